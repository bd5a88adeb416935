"""What an evaluation may hold beside scores: what was kept of old skills, labels and their mix-ups, perplexity."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.evaluation.evaluate import Evaluation, Score
from ftbridge.runs.run import Run


class _Part(BaseModel):
    """As it stands in evaluation.json; keys that this page does not show are passed over."""

    model_config = ConfigDict(frozen=True)


class Kept(_Part):
    """Whether old skills are kept; the difference is tuned minus base, -1 to 1."""

    verdict: Literal["kept", "worse", "not_enough_data"]
    difference: float
    ci95: tuple[float, float]


class Lost(_Part):
    """A question that base answered and the tuned model does not."""

    kind: str
    prompt: str
    expected: str
    before: str
    after: str


class Retention(_Part):
    """General questions by kind, before and after; `candidates` holds a score by kind, and "all"."""

    items: int
    margin: float | None = None
    kinds: list[str] = []
    candidates: dict[str, dict[str, Score]] = {}
    verdict: Kept | None = None
    lost: list[Lost] = []
    notes: list[str] = []


class LabelScore(_Part):
    """One label: shares of 0 to 1, and how many items have it."""

    precision: float
    recall: float
    f1: float
    support: int


class Classification(_Part):
    """One candidate's answers as labels. `confusion[i][j]`: items of label i that were answered j."""

    labels: list[str]
    confusion: list[list[int]]
    accuracy: float
    macro_f1: float
    per_label: dict[str, LabelScore] = {}


class Checks(_Part):
    """The optional parts of an evaluation."""

    retention: Retention | None = None
    classification: dict[str, Classification] = {}
    perplexity: dict[str, float] = {}


def checks_of(evaluation: Evaluation) -> Checks:
    """The optional parts of an evaluation that is at hand."""
    return Checks.model_validate_json(evaluation.model_dump_json(exclude_none=True))


def read_checks(run: Run) -> Checks:
    """The optional parts of a run's evaluation.json; none for a run without one."""
    if not run.evaluation_path.exists():
        return Checks()
    return Checks.model_validate_json(run.evaluation_path.read_text(encoding="utf-8"))
