"""What an evaluation comes to, as `evaluation.json` holds it: scores, differences, verdicts, and what completions took."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ftbridge.evaluation.agreement import Agreement
from ftbridge.evaluation.calibration import Calibration
from ftbridge.evaluation.classification import Classification
from ftbridge.evaluation.length_control import LengthControlled
from ftbridge.evaluation.preference import Preferences
from ftbridge.evaluation.retention.measure import Retention
from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.providers.base import Frozen


class Score(Frozen):
    """One candidate on one grader."""

    mean: float = Field(description="Mean score over the items, 0 to 1.")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean.")
    n: int = Field(description="Items scored.")
    missing: int = Field(default=0, description="Items left out because a grader, judge or endpoint failed.")


class Difference(Frozen):
    """Two candidates on one grader, item by item."""

    difference: float = Field(description="Mean of the first minus mean of the second, -1 to 1.")
    ci95: tuple[float, float] = Field(description="95 % interval of the difference, paired over the items.")
    n: int = Field(description="Items scored.")
    better: int = Field(description="Items on which the first scores higher.")
    worse: int = Field(description="Items on which the first scores lower.")
    same: int = Field(description="Items on which both score the same.")


class Slice(Frozen):
    """The items that share one value of a field. Means with intervals; no verdicts (see `ftbridge.evaluation.items`)."""

    field: str = Field(description="Field of the items, beside messages in the test file.")
    value: str
    items: int
    candidates: dict[str, dict[str, Score]] = Field(description="Score by candidate and grader.")


class Answered(Frozen):
    """What answering took one candidate. Latencies are those of single answers, or of the batches they came in."""

    model: str | None = Field(default=None, description="The model; null in a run, which has its own models.")
    prompt_tokens: int
    completion_tokens: int
    p50_seconds: float | None = Field(description="Median seconds for a completion; null if unknown.")
    p95_seconds: float | None = Field(description="95 % of completions took no longer than this many seconds.")
    in_batches: bool = Field(
        default=False,
        description="Whether completions were generated in batches; each then counts with the time of its batch.",
    )
    cut_off: int = Field(description="Completions that reached the token limit.")
    failed: int = Field(description="Items without a completion; they are left out.")
    usd: float | None = Field(
        default=None,
        description="Approximate cost of the completions at a service; null on this machine, and if no price is known.",
    )


class Evaluation(Frozen):
    """The result of an evaluation: `evaluation.json`."""

    items: int = Field(description="Items that every candidate completed.")
    graders: list[str] = Field(description="Names of the graders, in the order of the spec.")
    candidates: dict[str, dict[str, Score]] = Field(description="Score by candidate and grader.")
    paired: dict[str, dict[str, Difference]] = Field(
        default={}, description='Difference by pair ("tuned-base": tuned minus base) and grader.'
    )
    verdicts: dict[str, dict[str, PairedComparison]] = Field(
        default={}, description='Verdict by pair ("tuned-base": tuned against base) and grader.'
    )
    answered: dict[str, Answered] = Field(
        default={}, description="Time, tokens and cost of the completions, by candidate."
    )
    classification: dict[str, Classification] = Field(
        default={},
        description="Where the references are labels: confusion matrix, precision, recall and F1 by candidate.",
    )
    perplexity: dict[str, float] = Field(
        default={},
        description=(
            "Perplexity of the reference completions, by candidate: exp of the mean nats per token; only if requested."
        ),
    )
    agreement: dict[str, Agreement] = Field(
        default={}, description="Agreement of the judges of each panel, over the completions of all candidates."
    )
    length_controlled: dict[str, dict[str, LengthControlled]] = Field(
        default={},
        description="Of pairwise graders, by candidate and grader: the win rate if all completions had the same length.",
    )
    calibration: dict[str, Calibration] = Field(
        default={}, description="By grader, its agreement with human scores, if a file of these was given."
    )
    preference: Preferences | None = Field(
        default=None, description="What preference tuning changed on the test pairs; null for other methods."
    )
    retention: Retention | None = Field(
        default=None, description="Whether the tuned model still knows what the base model knew; null if not measured."
    )
    notes: list[str] = Field(default=[], description="Notes on how to read the figures.")
    slices: list[Slice] = Field(
        default=[], description="Scores of the items that share a value of a field, where fields have few values."
    )
    summary: list[str] = Field(
        default=[], description="The verdicts in words, one sentence for each pair: those in which a rival wins first."
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `evaluation.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Evaluation.model_json_schema()}
