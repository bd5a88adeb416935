"""Submissions for the provider's tests: a small prepared run folder, and a request lowered from a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftbridge.providers import resolve
from ftbridge.providers.base import JobEvent, JobHandle, JobStatus, Submission
from ftbridge.providers.openai.lower import lower
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering


def spec(**changes: Any) -> JobSpec:
    document: dict[str, Any] = {"name": "small", "data": {"train": "t.jsonl"}, "model": {"openai": "gpt-test"}}
    return JobSpec.from_dict({**document, **changes})


def lowered(**changes: Any) -> Lowering:
    return lower(resolve(spec(**changes), 100, "openai"))


def submission(folder: Path, *, token: str = "small-1", validation: bool = True, **changes: Any) -> Submission:
    """A run folder with data of its own, and what is asked of the provider."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        lines = [
            {"messages": [{"role": "user", "content": f"{split} {n}"}, {"role": "assistant", "content": "a"}]}
            for n in range(10)
        ]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Submission(
        token=token,
        folder=folder,
        request=lowered(**changes).request,
        train=data / "train.jsonl",
        validation=data / "validation.jsonl" if validation else None,
    )


def followed(
    provider: OpenAIProvider, handle: JobHandle, *, after: str | None = None, looks: int = 200
) -> tuple[JobStatus, list[JobEvent]]:
    """The job's end and all it said, the way the bridge follows it."""
    lines: list[JobEvent] = []
    for _ in range(looks):
        status = provider.poll(handle)
        lines += provider.events(handle, lines[-1].id if lines else after)
        if status.state in ("succeeded", "failed", "cancelled", "paused"):
            return status, lines
    raise AssertionError(f"the job did not end within {looks} looks: {status}")


KEY = "sk-planted-8f2e7c61d0"
