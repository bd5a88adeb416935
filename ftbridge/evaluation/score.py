"""Judging: graders score every candidate's answers to the same items, and statistics compare them in pairs.

check(items, graders)                    before anything is spent
judge(items, predictions, graders)       scores, intervals, differences, verdicts: evaluation.json
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftbridge import graders as grading
from ftbridge.errors import FtbridgeError
from ftbridge.evaluation.agreement import agreement_notes, panel_agreement
from ftbridge.evaluation.calibration import Calibration, Labelled, calibration
from ftbridge.evaluation.classification import classify
from ftbridge.evaluation.document import Answered, Difference, Evaluation, Score, Slice
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades, keep, lookup, name_of
from ftbridge.evaluation.items import NON_PREFERRED, Item, slice_values
from ftbridge.evaluation.length_control import controlled_rates
from ftbridge.evaluation.missing import MaybeScores, both_present, known_score, present
from ftbridge.evaluation.notes import grading_notes, item_notes
from ftbridge.evaluation.statistics import mean_interval, paired_difference, require_statistics
from ftbridge.evaluation.verdict import compare_family
from ftbridge.evaluation.wording import distinct_rivals, summary
from ftbridge.spec.graders import Grader, PythonGrader

Results = dict[str, dict[str, list[grading.GraderResult]]]
"""What graders say: by candidate, by grader, in the order of the items."""


@dataclass(frozen=True)
class JudgeRequests:
    """How judges are asked: `between` is called after each result and may raise to stop, `at_once` is the most in flight."""

    calls: grading.Calls | None = None
    between: Callable[[], None] = lambda: None
    at_once: int | None = None


_Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


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
            many = f" The same applies to all {len(items)} test examples." if len(items) > 1 else ""
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
    grading_with: JudgeRequests | None = None,
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
        notes=[*item_notes(items, predictions, graders), *grading_notes(graded, graders), *agreement_notes(agreement)],
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
    grading_with: JudgeRequests | None = None,
) -> Results:
    """What each grader says by candidate and grader, one for each item in the order of `items`. Raises as `judge` does."""
    grades, grading_with = {} if grades is None else grades, grading_with or JudgeRequests()
    if not items:
        raise ValueError("there are no items to score")
    graded: Results = {}
    for name, candidate_predictions in predictions.items():
        samples_by_item = {prediction.key: prediction.samples for prediction in candidate_predictions}
        if missing := [item.line for item in items if item.key not in samples_by_item]:
            raise FtbridgeError(
                (
                    f"{name} has no completion for {len(missing)} of {len(items)} test examples (the first is "
                    f"{missing[0]})."
                ),
                hint="Candidates are compared on the same items only. Generate the missing completions first.",
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
    grading_with: JudgeRequests | None = None,
) -> dict[str, Calibration]:
    """Each grader beside people, by name; `graded` are its results of the test. Raises as `judge`."""
    grades, grading_with = {} if grades is None else grades, grading_with or JudgeRequests()
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
        errors={"other_error": f"there is no completion: {why}"},
        metadata=grading.Metadata(details={"no_score": True}),
    )


def _graded(
    grader: Grader, pairs: Sequence[_Pair], grades: Grades, grading_with: JudgeRequests
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
