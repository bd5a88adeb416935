"""What real clients send, without the clients: one request of each shape, recorded while they were driven, asked again here.

A script reads no template, so a simulator takes conversations that a model's template may refuse; hence a model of two layers,
whose template is as strict as the strictest in use, is asked as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ftbridge.server import served
from ftbridge.server.app import application
from ftbridge.server.http import network
from support.service import BASE
from support.small_model import TOOLS_TEMPLATE, write_small_model

REQUESTS = [
    json.loads(line)
    for line in (Path(__file__).parent / "clients" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
]
STRICT = TOOLS_TEMPLATE.replace(
    "{%- for message in messages %}",
    "{%- for message in messages %}"
    "{%- if message.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}"
    "{%- if message.content is not string %}{{ raise_exception('content must be text') }}{% endif %}",
    1,
)
"""Refuses a system message in the middle, and content that is null or in parts."""


def refusals(http: httpx.Client, model: str, **limits: int) -> list[str]:
    """The requests that were not answered, each with the reason."""
    matches = []
    for request in REQUESTS:
        body = {**request["body"], "model": model, **_limited(request["path"], limits)}
        response = http.post(request["path"], json=body)
        last = response.text.strip().splitlines()[-1]
        ended = not body.get("stream") or last == "data: [DONE]" or '"type":"response.' in last
        if response.status_code != 200 or not ended or '"type":"response.failed"' in last:
            matches.append(f"{request['path']} {response.status_code} {last[:300]} for {json.dumps(body)[:300]}")
    return matches


def _limited(path: str, limits: dict[str, int]) -> dict[str, Any]:
    """Few tokens for each answer, under the name that the path has for them."""
    if not limits or path == "/embeddings":
        return {}
    if path == "/responses":
        return {"max_output_tokens": limits["tokens"]}
    other = "max_completion_tokens" if path == "/chat/completions" else None
    return {"max_tokens": limits["tokens"], **({other: None} if other else {})}


def test_a_simulator_answers_what_clients_send(http):
    assert len(REQUESTS) > 100
    assert refusals(http, BASE) == []


@pytest.fixture(scope="module")
def strict_model(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> Iterator[str]:
    """The address of a server whose one model has a strict template."""
    folder = tmp_path_factory.mktemp("strict")
    model = write_small_model(folder / "strict", base_model_dir, template=STRICT)
    settings = {"quantization": "none", "max_length": 64, "evals_per_epoch": 1}
    service = served({"strict": str(model)}, folder / "server", home=folder, settings=settings)
    bound = network.bind("127.0.0.1", 0)
    with network.in_background(application(service), bound):
        yield f"{network.address_of(bound)}/v1"
    bound.close()


@pytest.mark.slow
def test_a_model_with_a_strict_template_answers_what_clients_send(strict_model):
    with httpx.Client(base_url=strict_model, timeout=120) as http:
        assert refusals(http, "strict", tokens=4) == []
