"""Waiting in tests: for a condition, a job, or a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from openai import OpenAI

ENDS = ("succeeded", "failed", "cancelled")


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until `what()` is true and return it."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return value


def until(client: OpenAI, job: str, states: tuple[str, ...] = ENDS, seconds: float = 60) -> Any:
    """The job once its status is one of `states`."""
    give_up = time.monotonic() + seconds
    while (seen := client.fine_tuning.jobs.retrieve(job)).status not in states:
        assert time.monotonic() < give_up, f"{job} is still {seen.status}"
        assert seen.status not in ENDS, f"{job} is {seen.status}: {seen.error}"
        time.sleep(0.05)
    return seen


def until_batch(client: OpenAI, batch: str, seconds: float = 60) -> Any:
    """The batch once it has ended."""
    give_up = time.monotonic() + seconds
    while (seen := client.batches.retrieve(batch)).status not in ("completed", "failed", "cancelled"):
        assert time.monotonic() < give_up, f"{batch} is still {seen.status}"
        time.sleep(0.02)
    return seen
