"""Judging retention: each candidate against a baseline over the same questions, by kind and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from pydantic import Field

from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.missing import MaybeScores, known_score
from ftbridge.evaluation.retention.checks import Check, passes
from ftbridge.evaluation.retention.questions import KINDS
from ftbridge.evaluation.statistics import mean_interval
from ftbridge.evaluation.verdict import compare_paired
from ftbridge.graders import Calls, grade
from ftbridge.providers.base import Frozen
from ftbridge.spec.graders import Grader

SUFFIX = ".retention"
"""What the answers of a candidate to the questions are named: `predictions/tuned.retention.jsonl`."""
ALL = "all"


class KindScore(Frozen):
    """One candidate on one kind of question."""

    mean: float = Field(description="Share of questions answered correctly, 0 to 1.")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean.")
    n: int = Field(description="Questions.")


class Lost(Frozen):
    """A question that the baseline answered better."""

    kind: str
    prompt: str
    expected: str
    before: str = Field(description="The baseline's answer.")
    after: str = Field(description="The candidate's answer.")


class RetainedSkill(Frozen):
    """One candidate against the baseline. Differences are candidate minus baseline, -1 to 1."""

    verdict: Literal["kept", "worse", "not_enough_data"] = Field(
        description="kept: not worse by more than the margin; worse: by more than chance, and the margin is not met."
    )
    difference: float
    ci95: tuple[float, float] = Field(description="95 % interval of the difference, paired over the questions.")
    gained: int = Field(description="Questions on which the candidate does better.")
    lost: list[Lost] = Field(description="Questions on which it does worse.")


class Retention(Frozen):
    """Whether candidates still know what the baseline knew."""

    items: int = Field(description="Questions.")
    margin: float = Field(description="Largest drop that still counts as kept, 0 to 1.")
    baseline: str
    kinds: list[str] = Field(description="Kinds of question that were asked.")
    candidates: dict[str, dict[str, KindScore]] = Field(description='By candidate and kind; "all" covers every kind.')
    verdicts: dict[str, RetainedSkill] = Field(description="By candidate, without the baseline.")


def retention_candidate(name: str) -> Candidate:
    """The candidate that answers the questions for `name`: asked with the question's own prompt."""
    return Candidate(name + SUFFIX, plain)


def measure_retention(
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graders: Sequence[Grader],
    *,
    baseline: str,
    margin: float,
    calls: Calls | None = None,
) -> Retention:
    """Score every candidate's answers to the questions, and compare each with the baseline.

    `graders` judge canaries that bring no check of their own, by the mean of their scores. An item without an answer, or whose
    judge failed, is left out.
    Raises `KeyError` for a candidate that has not answered every question.
    """
    by_candidate = {
        name: {prediction.key: prediction for prediction in candidate_predictions}
        for name, candidate_predictions in predictions.items()
    }
    scored = {
        name: [_score(item, candidate_predictions[item.key], graders, calls) for item in items]
        for name, candidate_predictions in by_candidate.items()
    }
    kinds = [kind for kind in KINDS if any(_kind(item) == kind for item in items)]
    clusters = [item.cluster or item.key for item in items]
    return Retention(
        items=len(items),
        margin=margin,
        baseline=baseline,
        kinds=kinds,
        candidates={
            name: {kind: _of_kind(kind, items, values) for kind in (*kinds, ALL)} for name, values in scored.items()
        },
        verdicts={
            name: _kept(items, scored, by_candidate, baseline, name, margin, clusters)
            for name in scored
            if name != baseline
        },
    )


def _score(item: Item, prediction: Prediction, graders: Sequence[Grader], calls: Calls | None) -> float | None:
    if prediction.error is not None:
        return None
    if (check := item.fields.get("check")) is not None:
        prompt = item.prompt[-1].text if item.prompt else ""
        return float(passes(cast(Check, check), str(item.fields["expected"]), prediction.output_text, prompt))
    sample = {"output_text": prediction.output_text, "finish_reason": prediction.finish_reason}
    scores = [known_score(grader, grade(grader, item.fields, sample, calls=calls)) for grader in graders]
    present_scores = [score for score in scores if score is not None]
    return sum(present_scores) / len(present_scores) if len(present_scores) == len(scores) else None


def _of_kind(kind: str, items: Sequence[Item], values: MaybeScores) -> KindScore:
    of_kind = ((_kind(item), value) for item, value in zip(items, values, strict=True))
    kind_values = [value for name, value in of_kind if kind in (ALL, name) and value is not None]
    mean, low, high = mean_interval(kind_values) if kind_values else (0.0, 0.0, 1.0)
    return KindScore(mean=mean, ci95=(low, high), n=len(kind_values))


def _kept(
    items: Sequence[Item],
    scored: Mapping[str, MaybeScores],
    by_candidate: Mapping[str, Mapping[str, Prediction]],
    baseline: str,
    name: str,
    margin: float,
    clusters: Sequence[str],
) -> RetainedSkill:
    before, after = scored[baseline], scored[name]
    paired = compare_paired({ALL: before}, {ALL: after}, margin, clusters)[ALL]
    verdict: Literal["kept", "worse", "not_enough_data"] = "not_enough_data"
    if paired.margin_met:
        verdict = "kept"
    elif paired.verdict == "worse":
        verdict = "worse"
    lost = [
        Lost(
            kind=_kind(item),
            prompt=item.prompt[-1].text if item.prompt else "",
            expected=str(item.fields.get("expected", item.fields.get("reference", ""))),
            before=by_candidate[baseline][item.key].output_text,
            after=by_candidate[name][item.key].output_text,
        )
        for item, first, second in zip(items, before, after, strict=True)
        if first is not None and second is not None and second < first
    ]
    return RetainedSkill(
        verdict=verdict, difference=paired.difference, ci95=paired.ci95, gained=paired.better, lost=lost
    )


def _kind(item: Item) -> str:
    return str(item.fields.get("kind", "canary"))
