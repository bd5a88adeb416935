"""What a reader of scores should know: few items, completions cut off or without a score, candidates from different places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ftbridge import graders as grading
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.missing import too_many
from ftbridge.evaluation.statistics import wilson
from ftbridge.spec.graders import Grader, ScoreModelGrader

FEW = 50
"""Below this many items an evaluation says how little they can tell."""


def item_notes(
    items: Sequence[Item], predictions: Mapping[str, Sequence[Prediction]], graders: Sequence[Grader]
) -> list[str]:
    """Notes on the items and completions: how few they are, what was cut off, which items or graders tell nothing."""
    notes = []
    if len(items) < FEW:
        low, high = wilson(len(items) // 2, len(items))
        count = "1 item is" if len(items) == 1 else f"{len(items)} items are"
        notes.append(f"{count} few: a 95 % interval spans up to {100 * (high - low):.0f} points.")
    clusters = len({item.cluster or item.key for item in items})
    if clusters < len(items):
        notes.append(f"{len(items)} items are {clusters} conversations or clusters; intervals and tests count those.")
    keys = {item.key for item in items}
    for name, candidate_predictions in predictions.items():
        by_key = {prediction.key: prediction.samples for prediction in candidate_predictions if prediction.key in keys}
        samples = [one for samples in by_key.values() for one in samples]
        if cut := sum(one.finish_reason == "length" for one in samples):
            notes.append(f"{name}: {cut} of {len(samples)} completions were cut off at the token limit.")
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
                f"{len(blind)} of {len(items)} items carry no information, the first in line {blind[0][0].line}: "
                f"{blind[0][1]}"
            )
        notes += grading.remarks(grader, [item.fields for item in items])
        if not grading.reads_answer(grader):
            notes.append(f"{grader.name} never looks at the completion: its templates use no variable of sample.")
    return notes


def _tells_nothing(grader: Grader, item: Item) -> str | None:
    try:
        grading.preflight(grader, item.fields)
    except grading.GraderError as error:
        return error.message
    return None


def grading_notes(
    graded: Mapping[str, Mapping[str, Sequence[grading.GraderResult]]], graders: Sequence[Grader]
) -> list[str]:
    """What could not be graded, and scores that are not what the grader computed."""
    notes = []
    for name, by in graded.items():
        for grader in graders:
            gone = [reason for result in by[grader.name] if (reason := result.missing_because) is not None]
            if gone:
                more = "; above a tenth, there is no verdict" if too_many(len(gone), len(by[grader.name])) else ""
                notes.append(
                    f"{name}: {len(gone)} of {len(by[grader.name])} items have no score by {grader.name} and are left "
                    f"out because the grader, its judge or the endpoint failed{more}. Example: {gone[0]}"
                )
            each = [one for result in by[grader.name] for one in (result.samples or [result])]
            failures = [result for result in each if result.errors and not result.is_missing]
            if failures:
                kinds = sorted({error for result in failures for error in result.errors})
                example = next(iter(failures[0].errors.values()))
                notes.append(
                    f"{name}: {len(failures)} of {len(each)} completions do not have the form that {grader.name} "
                    f"grades, and score 0 ({', '.join(kinds)}), such as: {example}"
                )
            if beyond := sum("clipped_from" in result.metadata.details for result in each):
                notes.append(
                    f"{name}: {beyond} of {len(each)} scores of {grader.name} were outside its range and were clipped "
                    "to it; a judge that uses another scale needs another range or another prompt."
                )
            agreed = [result.metadata.details.get("consistent") for result in each]
            if changed := agreed.count(False):
                notes.append(
                    f"{name}: {changed} of {len(agreed)} verdicts of {grader.name} changed with the order of the "
                    "completions; these count as ties."
                )
    for grader in graders:
        if isinstance(grader, ScoreModelGrader) and grader.range != [0, 1]:
            low, high = grader.range
            notes.append(f"{grader.name}: scores of {low:g} to {high:g} are shown as 0 to 1.")
        elif any(not 0 <= result.reward <= 1 for by in graded.values() for result in by[grader.name]):
            notes.append(f"{grader.name}: rewards below 0 count as 0, rewards above 1 as 1.")
    return notes


class CompletionSource(NamedTuple):
    """Where a candidate's completions come from.

    `name` is a provider or an address, `base` the base model. `hosted`: a service renders the prompts, by a chat template that
    only it knows.
    """

    name: str
    base: str
    hosted: bool


def differences(places: Sequence[CompletionSource]) -> list[str]:
    """Notes on candidates whose completions come from several places, or stand on several base models."""
    notes = []
    names = sorted({index.name for index in places})
    models = sorted({index.base for index in places if not index.hosted})
    if len(names) > 1:
        notes.append(
            f"Candidates ran in different places ({', '.join(names)}): items, messages and greedy decoding are the "
            "same; chat template, tokenizer and arithmetic differ, so token counts cannot be compared."
        )
    if len(models) > 1:
        notes.append(
            f"Candidates have different base models ({', '.join(models)}), each with its own chat template and tokenizer."
        )
    return notes
