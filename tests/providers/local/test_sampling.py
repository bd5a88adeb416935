"""The judge's sampler on the real model: what a batch answers is what one item alone is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.providers.base import Prompt
from ftbridge.providers.local.lower import lower
from ftbridge.providers.local.request import LocalRequest, SampleRequest
from ftbridge.providers.local.sampling import Generator
from ftbridge.resolve import resolve
from ftbridge.spec import load

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-triage"


@pytest.mark.slow
def test_a_batch_answers_as_one_by_one() -> None:
    spec, _ = load(EXAMPLE / "job.yaml")
    request = LocalRequest.model_validate(lower(resolve(spec, 330, "local")).request)
    generator = Generator(SampleRequest(request=request, tuned=None))
    lines = (EXAMPLE / "test.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    messages = [json.loads(line)["messages"][:-1] for line in lines]
    prompts = [Prompt.model_validate({"key": str(n), "messages": said}) for n, said in enumerate(messages)]

    def answers(batch_size: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        generator.answer(prompts, 10, batch_size, lambda _, **one: told.update({one["key"]: one["text"]}))
        return told

    together, alone = answers(6), answers(1)
    assert together.keys() == alone.keys()
    # In bf16 the last bits depend on the batch's shape, and a near tie may fall the other way.
    assert sum(together[key] == alone[key] for key in alone) >= 5
    assert len(set(alone.values())) > 1
