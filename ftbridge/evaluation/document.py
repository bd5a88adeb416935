"""What an evaluation comes to, as `evaluation.json` holds it: scores, differences, verdicts, and what completions took."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.agreement import Agreement
from ftbridge.evaluation.calibration import Calibration
from ftbridge.evaluation.classification import Classification
from ftbridge.evaluation.length_control import LengthControlled
from ftbridge.evaluation.preference import Preferences
from ftbridge.evaluation.retention.measure import Retention
from ftbridge.evaluation.verdict import PairedComparison


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(_Document):
    """One candidate on one grader."""

    mean: float = Field(description="Mean score over the items, 0 to 1.")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean.")
    n: int = Field(description="Items scored.")
    missing: int = Field(default=0, description="Items left out, since a grader, judge or endpoint failed.")


class Difference(_Document):
    """Two candidates on one grader, item by item."""

    difference: float = Field(description="Mean of the first minus mean of the second, -1 to 1.")
    ci95: tuple[float, float] = Field(description="95 % interval of the difference, paired over the items.")
    n: int = Field(description="Items scored.")
    better: int = Field(description="Items on which the first scores higher.")
    worse: int = Field(description="Items on which the first scores lower.")
    same: int = Field(description="Items on which both score the same.")


class Slice(_Document):
    """The items that share one value of a field. Means with intervals; no verdicts (see `ftbridge.evaluation.items`)."""

    field: str = Field(description="Field of the items, beside messages in the test file.")
    value: str
    items: int
    candidates: dict[str, dict[str, Score]] = Field(description="Score by candidate and grader.")


class Answered(_Document):
    """What answering took one candidate. Latencies are those of single answers, or of the batches they came in."""

    model: str | None = Field(default=None, description="Who answered; null in a run, whose models are its own.")
    prompt_tokens: int
    completion_tokens: int
    p50_seconds: float | None = Field(description="Median seconds for an answer; null where it is not known.")
    p95_seconds: float | None = Field(description="19 in 20 answers took no longer.")
    in_batches: bool = Field(
        default=False,
        description="Whether answers came in batches: then a batch's time stands for each of its answers.",
    )
    cut_off: int = Field(description="Answers that reached the token limit.")
    failed: int = Field(description="Items without an answer; they are left out.")
    usd: float | None = Field(
        default=None, description="What the answers cost at a service, about; null where no price is known, and here."
    )


class Evaluation(_Document):
    """The result of an evaluation: `evaluation.json`."""

    items: int = Field(description="Items that every candidate answered.")
    graders: list[str] = Field(description="Names of the graders, in the order of the spec.")
    candidates: dict[str, dict[str, Score]] = Field(description="Score by candidate and grader.")
    paired: dict[str, dict[str, Difference]] = Field(
        default={}, description='Difference by pair ("tuned-base": tuned minus base) and grader.'
    )
    verdicts: dict[str, dict[str, PairedComparison]] = Field(
        default={}, description='Verdict by pair ("tuned-base": tuned against base) and grader.'
    )
    answered: dict[str, Answered] = Field(default={}, description="What answering took, by candidate.")
    classification: dict[str, Classification] = Field(
        default={},
        description="Where the references are labels: confusion matrix, precision, recall and F1 by candidate.",
    )
    perplexity: dict[str, float] = Field(
        default={},
        description="Of the reference answers, by candidate: exp of the mean nats a token. Where it was asked.",
    )
    agreement: dict[str, Agreement] = Field(
        default={}, description="How far the judges of each panel agree, over the completions of all candidates."
    )
    length_controlled: dict[str, dict[str, LengthControlled]] = Field(
        default={},
        description="Of pairwise graders, by candidate and grader: the win rate if answers were of one length.",
    )
    calibration: dict[str, Calibration] = Field(
        default={}, description="By grader, how far it agrees with people's scores, where a file of these was given."
    )
    preference: Preferences | None = Field(
        default=None, description="What preference tuning changed on the test pairs; null for other methods."
    )
    retention: Retention | None = Field(
        default=None, description="Whether tuning kept what was known; null if not asked."
    )
    notes: list[str] = Field(default=[], description="What a reader of these figures should know.")
    slices: list[Slice] = Field(
        default=[], description="Scores of the items that share a value of a field, where fields have few values."
    )
    summary: list[str] = Field(
        default=[], description="The verdicts in words, one sentence for each pair: those in which a rival wins first."
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `evaluation.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Evaluation.model_json_schema()}
