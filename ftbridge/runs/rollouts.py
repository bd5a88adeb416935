"""The completions that reinforcement learnt from, as files of a run.

    RUN/rollouts/000012.jsonl          the completions of step 12 with rewards and judges' replies, written before its update
    RUN/rollouts/.000012.drawn.jsonl   those drawn so far, without rewards; gone once the file above is there
    RUN/rollouts/valid-000010.jsonl    the same of validation prompts, after step 10; 000000 is the base model

A completion is on disk before it is graded, and graded completions are on disk before the update: a killed run draws what was
not drawn, asks no judge twice, and goes on to the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ftbridge.files import disk_full_is_an_error, write_text

FOLDER = "rollouts"


class JudgeReply(BaseModel):
    """What a judge replied to the question about a completion."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    reply: str | None = None
    tokens: int | None = None


class Rollout(BaseModel):
    """One completion of one prompt, a line of `rollouts/STEP.jsonl`.

    `prompt` is the prompt's line in its split, from 0; `sample` counts the completions of one prompt. `logprobs` are those of
    the sampler, in nats. `reward` is on the grader's own scale, null where the grader or a judge failed; `errors` says how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: int
    sample: int
    seed: int
    prompt_tokens: int
    tokens: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    text: str
    reasoning: str | None = None
    reasoning_tokens: int = 0
    tool_calls: list[dict[str, Any]] | None = None
    reward: float | None = None
    errors: dict[str, str] = {}
    parts: dict[str, float] = {}
    judges: list[JudgeReply] = []
    grading_seconds: float = 0.0

    @property
    def name(self) -> tuple[int, int]:
        """Names it within a step."""
        return self.prompt, self.sample


def seed_of(seed: int, step: int | str, prompt: int, sample: int) -> int:
    """The seed of one completion, 0 to 2^63 - 1: the same in every process that draws it."""
    digest = hashlib.sha256(f"{seed}:{step}:{prompt}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RolloutFiles:
    """The rollouts of one run, in its folder `rollouts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file of graded rollouts of a step, such as 000012, or of a validation, such as valid-000010."""
        return self.folder / f"{name}.jsonl"

    def graded(self, name: str) -> list[Rollout] | None:
        """The graded rollouts of a step; None where they were not written yet."""
        return read_rollouts(self.path(name)) if self.path(name).exists() else None

    def drawn(self, name: str) -> dict[tuple[int, int], Rollout]:
        """What was drawn for a step before it was interrupted."""
        return {one.name: one for one in read_rollouts(self._waiting(name))}

    def add(self, name: str, rollout: Rollout) -> None:
        """Keep a completion that was drawn, before it is graded."""
        path = self._waiting(name)
        with disk_full_is_an_error(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                stream.write(rollout.model_dump_json(exclude_defaults=True).encode() + b"\n")
                stream.flush()

    def finish(self, name: str, rollouts: Sequence[Rollout]) -> None:
        """Write the graded rollouts of a step, whole or not at all, and flush them to disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(one.model_dump_json(exclude_defaults=True) + "\n" for one in rollouts)
        write_text(self.path(name), lines)
        self._waiting(name).unlink(missing_ok=True)

    def _waiting(self, name: str) -> Path:
        return self.folder / f".{name}.drawn.jsonl"


def read_rollouts(path: Path) -> list[Rollout]:
    """The rollouts in a file, up to the first line that a kill cut short; none where there is no file."""
    rollouts = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        try:
            rollouts.append(Rollout.model_validate_json(line))
        except ValidationError:
            break
    return rollouts
