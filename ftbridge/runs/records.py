"""What events of a run hold beside plain values: typed once, where the journal is folded, for every reader."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A value of an event. Fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True)


class JobHandle(Record):
    """What it takes to reach a job from any process. `folder` is the run's, where it is now."""

    provider: str
    id: str
    folder: Path


class TunedModel(Record):
    """What training made: a name the provider's sampler understands, and the base model it stands on."""

    provider: str
    id: str
    base: str
    checkpoints: tuple[str, ...] = ()


class Replayed(Record):
    """Replay examples of a run: how many, their tokens in `o200k_base`, the SHA-256 of their file, and completions left out."""

    examples: int
    tokens: int
    sha256: str
    left_out: int = 0

    @property
    def sentence(self) -> str:
        """What is replayed, for people."""
        left_out = f", {self.left_out:,} left out" if self.left_out else ""
        return f"{self.examples:,} replayed with the base model's own completions ({self.tokens:,} tokens{left_out})"


class Origin(Record):
    """The run that this one fell back from, its provider, and why it did not do the work."""

    run: str
    provider: str
    reason: str


class Refusal(Record):
    """A request (cancel or pause) that the service would not do, and why."""

    request: str
    reason: str


class ErrorDocument(TypedDict, total=False):
    """An error as `ftbridge.errors.document` writes it: `kind` is its class in snake_case."""

    kind: str
    message: str
    hint: str | None
    problems: list[str]
    split: str
    too_few: bool
