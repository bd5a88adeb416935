"""Judging: graders score every candidate's answers to the same items, and statistics compare them in pairs.

check(items, graders)                    before anything is spent
judge(items, predictions, graders)       scores, intervals, differences, verdicts: evaluation.json
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import graders as grading
from ftbridge.errors import FtbridgeError
from ftbridge.evaluation.agreement import Agreement, agreement_notes, panel_agreement
from ftbridge.evaluation.calibration import Calibration, Labelled, calibration
from ftbridge.evaluation.classification import Classification, classify
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades, keep, lookup, name_of
from ftbridge.evaluation.items import NON_PREFERRED, Item
from ftbridge.evaluation.length_control import LengthControlled, controlled_rates
from ftbridge.evaluation.missing import MaybeScores, both_present, known_score, present, too_many
from ftbridge.evaluation.preference import Preferences
from ftbridge.evaluation.retention.measure import Retention
from ftbridge.evaluation.slices import slice_values
from ftbridge.evaluation.statistics import mean_interval, paired_difference, require_statistics, wilson
from ftbridge.evaluation.verdict import PairedComparison, compare_family
from ftbridge.evaluation.wording import distinct_rivals, summary
from ftbridge.spec.graders import Grader, PythonGrader, ScoreModelGrader

Results = dict[str, dict[str, list[grading.GraderResult]]]
"""What graders say: by candidate, by grader, in the order of the items."""


@dataclass(frozen=True)
class Grading:
    """How judges are asked: `between` is called after each result and may raise to stop, `at_once` is the most in flight."""

    calls: grading.Calls | None = None
    between: Callable[[], None] = lambda: None
    at_once: int | None = None


_Pair = tuple[Mapping[str, Any], Mapping[str, Any]]

FEW = 50
"""Below this many items an evaluation says how little they can tell."""


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
    """The items that share one value of a field. Means with intervals; no verdicts (see `ftbridge.evaluation.slices`)."""

    field: str = Field(description="Field of the items, beside messages in the test file.")
    value: str
    items: int
    candidates: dict[str, dict[str, Score]] = Field(description="Score by candidate and grader.")


class Answered(_Document):
    """What answering took one candidate. Latencies are those of single answers, or of the batches they came in."""

    model: str | None = Field(default=None, description="Who answered; null in a run, whose models are its own.")
    prompt_tokens: int
    completion_tokens: int
    p50_seconds: float | None = Field(description="Median seconds for an answer; null where nobody told.")
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


def check(items: Sequence[Item], graders: Sequence[Grader]) -> None:
    """Raise, before any completion exists, the `GraderError` that grading these items would raise; it names the line.

    A grader that can tell nothing on any item is refused too; where that holds of some items only, `judge` notes it. A Python
    grader that is allowed grades the first item's reference, so that source which raises is found before anything is paid.
    Raises `MissingDependency` where the statistics' library is not installed.
    """
    require_statistics()
    for grader in graders:
        blind: list[tuple[Item, grading.Uninformative]] = []
        for item in items:
            try:
                grading.check(grader, item.fields)
            except grading.Uninformative as error:
                blind.append((item, error))
            except grading.GraderError as error:
                raise grading.GraderError(f"test example {item.line}: {error.message}", hint=error.hint) from None
        if blind and len(blind) == len(items):
            item, why = blind[0]
            many = f" The same holds of all {len(items)} test examples." if len(items) > 1 else ""
            raise grading.GraderError(f"test example {item.line}: {why.message}{many}", hint=why.hint)
        if isinstance(grader, PythonGrader) and items and isinstance(items[0].fields.get("reference"), str):
            _try_on_reference(grader, items[0])


def _try_on_reference(grader: PythonGrader, item: Item) -> None:
    sample = {"output_text": item.fields["reference"], "finish_reason": "stop"}
    result = grading.grade(grader, item.fields, sample)
    if result.errors:
        raise grading.GraderError(
            f"test example {item.line}: grader {grader.name} cannot grade the expected completion itself: "
            f"{next(iter(result.errors.values()))}.",
            hint="Correct its source.",
        )


def judge(
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graders: Sequence[Grader],
    *,
    margin: float | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    grades: Grades | None = None,
    models: Mapping[str, str] | None = None,
    on_results: Callable[[Results], None] | None = None,
    grading_with: Grading | None = None,
) -> Evaluation:
    """Score every candidate's answers to the same items, and compare them in pairs, item by item.

    `pairs` are candidates of which the first is judged against the second; tuned against each other one where not told.
    `margin` (0..1) is how much worse still counts as not worse. `kept` are answers of judges known already; new ones are added.
    `models` tells who answered, by candidate; `on_results` receives what each grader says of each item.
    An item that a grader, judge or endpoint failed on is left out on both sides, and a note tells how many and why; above a
    tenth of the items there is no verdict. An answer that is not what was asked for, such as one that is not JSON, scores 0.
    `grading_with` says how judges are asked: what was asked before, the budget, and who is heard between two results.
    Raises `FtbridgeError` when a candidate has not answered every item, `GraderError` for a grader that can grade nothing,
    `ValueError` without items.
    """
    graded = results(items, predictions, graders, grades, grading_with)
    if on_results is not None:
        on_results(graded)
    scored = _scores(graded, graders)
    clusters = [item.cluster or item.key for item in items]
    if pairs is None:
        pairs = [("tuned", other) for other in scored if other != "tuned"] if "tuned" in scored else []
    verdicts = compare_family(
        {f"{first}-{second}": (scored[second], scored[first]) for first, second in pairs}, margin, clusters
    )
    agreement = panel_agreement(graders, graded)
    return Evaluation(
        items=len(items),
        graders=[grader.name for grader in graders],
        candidates={
            name: {grader: score_of(values, clusters) for grader, values in by.items()} for name, by in scored.items()
        },
        paired={
            f"{first}-{second}": {
                grader: _difference(values, scored[second][grader], clusters)
                for grader, values in scored[first].items()
            }
            for first, second in pairs
        },
        verdicts=verdicts,
        summary=summary(distinct_rivals(scored, verdicts)),
        classification=classify(items, predictions),
        slices=_sliced(items, scored, clusters),
        answered={
            name: answered_of(candidate_predictions, (models or {}).get(name))
            for name, candidate_predictions in predictions.items()
        },
        agreement=agreement,
        length_controlled=controlled_rates(graders, graded, items, predictions),
        notes=[*_notes(items, predictions, graders), *_grading_notes(graded, graders), *agreement_notes(agreement)],
    )


def _sliced(
    items: Sequence[Item], scored: Mapping[str, Mapping[str, MaybeScores]], clusters: Sequence[str]
) -> list[Slice]:
    slices = []
    for field, values in slice_values(items).items():
        if field in ("reference", NON_PREFERRED):
            continue  # labels have a classification report
        for value in sorted(set(values)):
            places = [index for index, item_values in enumerate(values) if item_values == value]
            names = [clusters[index] for index in places]
            by_candidate = {
                name: {grader: score_of([all_of[index] for index in places], names) for grader, all_of in by.items()}
                for name, by in scored.items()
            }
            slices.append(Slice(field=field, value=value, items=len(places), candidates=by_candidate))
    return slices


def scores(
    items: Sequence[Item], predictions: Mapping[str, Sequence[Prediction]], graders: Sequence[Grader]
) -> dict[str, dict[str, list[float | None]]]:
    """Score by candidate and grader, one for each item in the order of `items`, 0 to 1, None where there is none.

    Raises as `judge` does.
    """
    return _scores(results(items, predictions, graders), graders)


def results(
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graders: Sequence[Grader],
    grades: Grades | None = None,
    grading_with: Grading | None = None,
) -> Results:
    """What each grader says by candidate and grader, one for each item in the order of `items`. Raises as `judge` does."""
    grades, grading_with = {} if grades is None else grades, grading_with or Grading()
    if not items:
        raise ValueError("there are no items to judge")
    graded: Results = {}
    for name, candidate_predictions in predictions.items():
        samples_by_item = {prediction.key: prediction.samples for prediction in candidate_predictions}
        if missing := [item.line for item in items if item.key not in samples_by_item]:
            raise FtbridgeError(
                f"{name} has no answer to {len(missing)} of {len(items)} test examples (the first is {missing[0]}).",
                hint="Candidates are compared on the same items only. Let it answer the rest first.",
            )
        pairs = [
            (item.fields, sample_of(one)) for item in items for one in samples_by_item[item.key] if one.error is None
        ]
        graded[name] = {
            grader.name: _by_item(grader, items, samples_by_item, _graded(grader, pairs, grades, grading_with))
            for grader in graders
        }
    return graded


def calibrated(
    items: Sequence[Item],
    graded: Results,
    graders: Sequence[Grader],
    labelled: Sequence[Labelled],
    grades: Grades | None = None,
    grading_with: Grading | None = None,
) -> dict[str, Calibration]:
    """Each grader beside people, by name; `graded` are its results of the test. Raises as `judge`."""
    grades, grading_with = {} if grades is None else grades, grading_with or Grading()
    clusters = [item.cluster or item.key for item in items]
    scored = _scores(graded, graders)
    corrections = {}
    for grader in graders:
        pairs = [(one.fields, {"output_text": one.completion, "finish_reason": "stop"}) for one in labelled]
        judge_scores = [known_score(grader, result) for result in _graded(grader, pairs, grades, grading_with)]
        tests = {name: (by[grader.name], clusters) for name, by in scored.items()}
        if (corrected := calibration(labelled, judge_scores, tests)) is not None:
            corrections[grader.name] = corrected
    return corrections


def answered_of(predictions: Sequence[Prediction], model: str | None = None) -> Answered:
    """Tokens, latencies and failures of a candidate's answers, of every sample."""
    predictions = [one for prediction in predictions for one in prediction.samples]
    seconds = sorted(prediction.seconds for prediction in predictions if prediction.seconds is not None)
    return Answered(
        model=model,
        prompt_tokens=sum(prediction.prompt_tokens for prediction in predictions),
        completion_tokens=sum(prediction.completion_tokens for prediction in predictions),
        p50_seconds=seconds[(len(seconds) - 1) // 2] if seconds else None,
        p95_seconds=seconds[math.ceil(0.95 * len(seconds)) - 1] if seconds else None,
        in_batches=2 * len(set(seconds)) <= len(seconds) and len(seconds) > 1,
        cut_off=sum(prediction.finish_reason == "length" for prediction in predictions),
        failed=sum(prediction.error is not None for prediction in predictions),
    )


def _by_item(
    grader: Grader,
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graded: Sequence[grading.GraderResult],
) -> list[grading.GraderResult]:
    """The results in the order of the items; an item without an answer has no score, and says why."""
    others = iter(graded)
    results = []
    for item in items:
        results_of_item = [
            _failure(grader, one.error) if one.error is not None else next(others) for one in predictions[item.key]
        ]
        results.append(results_of_item[0] if len(results_of_item) == 1 else grading.together(grader, results_of_item))
    return results


def _failure(grader: Grader, why: str) -> grading.GraderResult:
    return grading.GraderResult(
        name=grader.name,
        type=grader.type,
        reward=0.0,
        passed=False,
        errors={"other_error": f"there is no answer: {why}"},
        metadata=grading.Metadata(details={"no_score": True}),
    )


def _graded(
    grader: Grader, pairs: Sequence[_Pair], grades: Grades, grading_with: Grading
) -> list[grading.GraderResult]:
    """One grader on all answers, asking judges only what is not known."""
    names = [name_of(grader, item, sample) for item, sample in pairs]
    cached = {
        name: result
        for name, (item, sample) in zip(names, pairs, strict=True)
        if (result := lookup(grades, grader, item, sample)) is not None
    }
    ungraded = {name: pair for name, pair in zip(names, pairs, strict=True) if name not in cached}
    fresh = grading.grade_all(
        grader,
        list(ungraded.values()),
        calls=grading_with.calls,
        on_result=lambda result: grading_with.between(),
        at_once=grading_with.at_once,
    )
    for name, result in zip(ungraded, fresh, strict=True):
        cached[name] = result
        keep(grades, name, result)
    return [cached[name] for name in names]


def sample_of(prediction: Prediction) -> dict[str, str]:
    """What graders see of a completion."""
    sample: dict[str, Any] = {"output_text": prediction.output_text, "finish_reason": prediction.finish_reason}
    if prediction.tool_calls:
        sample["output_tools"] = [{"type": "function", "function": call["function"]} for call in prediction.tool_calls]
    return sample


def _scores(graded: Results, graders: Sequence[Grader]) -> dict[str, dict[str, list[float | None]]]:
    return {
        name: {grader.name: [known_score(grader, result) for result in by[grader.name]] for grader in graders}
        for name, by in graded.items()
    }


def score_of(values: MaybeScores, clusters: Sequence[str]) -> Score:
    """The mean of a candidate's scores and its interval; `clusters` names what each item belongs to.

    Items without a score are left out; where none has one, the mean is 0 and the interval from 0 to 1.
    """
    present_values, clusters_present = present(values, clusters)
    mean, low, high = mean_interval(present_values, clusters_present) if present_values else (0.0, 0.0, 1.0)
    return Score(mean=mean, ci95=(low, high), n=len(present_values), missing=len(values) - len(present_values))


def _difference(first: MaybeScores, second: MaybeScores, clusters: Sequence[str]) -> Difference:
    ones, others, pairs_present = both_present(first, second, clusters)
    difference, low, high = paired_difference(ones, others, pairs_present) if ones else (0.0, -1.0, 1.0)
    better = sum(a > b for a, b in zip(ones, others, strict=True))
    worse = sum(a < b for a, b in zip(ones, others, strict=True))
    n = len(ones)
    return Difference(difference=difference, ci95=(low, high), n=n, better=better, worse=worse, same=n - better - worse)


def _notes(
    items: Sequence[Item], predictions: Mapping[str, Sequence[Prediction]], graders: Sequence[Grader]
) -> list[str]:
    notes = []
    if len(items) < FEW:
        low, high = wilson(len(items) // 2, len(items))
        count = "1 item is" if len(items) == 1 else f"{len(items)} items are"
        notes.append(f"{count} few: an interval on so few spans up to {100 * (high - low):.0f} points.")
    clusters = len({item.cluster or item.key for item in items})
    if clusters < len(items):
        notes.append(f"{len(items)} items are {clusters} conversations or clusters; intervals and tests count those.")
    keys = {item.key for item in items}
    for name, candidate_predictions in predictions.items():
        by_key = {prediction.key: prediction.samples for prediction in candidate_predictions if prediction.key in keys}
        samples = [one for samples in by_key.values() for one in samples]
        if cut := sum(one.finish_reason == "length" for one in samples):
            notes.append(f"{name}: {cut} of {len(samples)} answers were cut off at the token limit.")
    if several := {
        len(prediction.samples)
        for candidate_predictions in predictions.values()
        for prediction in candidate_predictions
    } - {1}:
        notes.append(
            f"Each item has {max(several)} completions, drawn with different seeds; their scores are averaged, and an item "
            "counts as one draw."
        )
    for grader in graders:
        if blind := [(item, why) for item in items if (why := _tells_nothing(grader, item)) is not None]:
            notes.append(
                f"{len(blind)} of {len(items)} items tell nothing, the first in line {blind[0][0].line}: {blind[0][1]}"
            )
        notes += grading.remarks(grader, [item.fields for item in items])
        if not grading.reads_answer(grader):
            notes.append(f"{grader.name} never looks at the answer: its templates name nothing of sample.")
    return notes


def _tells_nothing(grader: Grader, item: Item) -> str | None:
    try:
        grading.preflight(grader, item.fields)
    except grading.GraderError as error:
        return error.message
    return None


def _grading_notes(graded: Results, graders: Sequence[Grader]) -> list[str]:
    """What could not be graded, and scores that are not what the grader computed."""
    notes = []
    for name, by in graded.items():
        for grader in graders:
            gone = [reason for result in by[grader.name] if (reason := result.missing_because) is not None]
            if gone:
                more = "; above a tenth, nothing is concluded" if too_many(len(gone), len(by[grader.name])) else ""
                notes.append(
                    f"{name}: {len(gone)} of {len(by[grader.name])} items have no score by {grader.name} and are left out, "
                    f"since the grader, its judge or the endpoint failed{more}. Such as: {gone[0]}"
                )
            each = [one for result in by[grader.name] for one in (result.samples or [result])]
            failures = [result for result in each if result.errors and not result.is_missing]
            if failures:
                kinds = sorted({error for result in failures for error in result.errors})
                example = next(iter(failures[0].errors.values()))
                notes.append(
                    f"{name}: {len(failures)} of {len(each)} answers are not what {grader.name} grades, and score 0 "
                    f"({', '.join(kinds)}), such as: {example}"
                )
            if beyond := sum("clipped_from" in result.metadata.details for result in each):
                notes.append(
                    f"{name}: {beyond} of {len(each)} scores of {grader.name} lay outside its range, and count as "
                    "its end; a judge that uses another scale needs another range or another prompt."
                )
            agreed = [result.metadata.details.get("consistent") for result in each]
            if changed := agreed.count(False):
                notes.append(
                    f"{name}: {changed} of {len(agreed)} verdicts of {grader.name} changed with the order of the answers; "
                    "these count as ties."
                )
    for grader in graders:
        if isinstance(grader, ScoreModelGrader) and grader.range != [0, 1]:
            low, high = grader.range
            notes.append(f"{grader.name}: scores of {low:g} to {high:g} are shown as 0 to 1.")
        elif any(not 0 <= result.reward <= 1 for by in graded.values() for result in by[grader.name]):
            notes.append(f"{grader.name}: rewards below 0 count as 0, rewards above 1 as 1.")
    return notes
