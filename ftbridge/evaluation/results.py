"""The score of every completion, written once: `scores.jsonl` beside `evaluation.json`.

    evaluation ─▶ scores.jsonl ─▶ report, compare, terminal, exports

Whoever shows a run reads this file: a report makes no request, runs no grader model and no Python grader, and needs no
permission for them. Runs of version 0.1 have no such file: what judges replied stands in their `grades.jsonl`, and graders that
only compare texts are computed again. What neither holds is shown as an error of that item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge import graders as grading
from ftbridge.errors import FtbridgeError
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades, lookup, name_of, read_grades
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.missing import known_score
from ftbridge.evaluation.score import Results, results, sample_of
from ftbridge.files import write_text
from ftbridge.graders import GraderResult
from ftbridge.runs.run import Run
from ftbridge.spec.graders import Grader, parts_of
from ftbridge.spec.problems import first_problem


class ItemScore(BaseModel):
    """One line of `scores.jsonl`: one grader on one candidate's completion of one item."""

    model_config = ConfigDict(frozen=True)

    item: str = Field(description="Key of the item, as in predictions.")
    line: int = Field(description="Line of the test file, from 1.")
    candidate: str = Field(description="The candidate, such as tuned.")
    grader: str = Field(description="Name of the grader.")
    sample: int | None = Field(
        default=None, description="Which of an item's completions, from 0, where it has several."
    )
    score: float | None = Field(description="0 to 1; null where the grader, its judge or the endpoint failed.")
    name: str = Field(description="SHA-256 of grader, item and completion: the score is valid only for these.")
    result: GraderResult = Field(description="The reward, errors, and a judge's prompts and replies.")


def item_scores(
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graders: Sequence[Grader],
    graded: Results,
) -> list[ItemScore]:
    """The scores behind an evaluation: by candidate, grader and item, in that order."""
    scores = []
    for candidate, by_grader in graded.items():
        completions = {prediction.key: prediction.samples for prediction in predictions[candidate]}
        for grader in graders:
            scores += [
                ItemScore(
                    item=item.key,
                    line=item.line,
                    candidate=candidate,
                    grader=grader.name,
                    sample=completion.sample,
                    score=known_score(grader, result),
                    name=name_of(grader, item.fields, sample_of(completion)),
                    result=result,
                )
                for item, of_item in zip(items, by_grader[grader.name], strict=True)
                for completion, result in zip(completions[item.key], of_item.samples or [of_item], strict=True)
            ]
    return scores


def write_scores(path: Path, scores: Sequence[ItemScore]) -> None:
    """Write `scores.jsonl`; the file is replaced as a whole. Raises `DiskFull`."""
    write_text(path, "".join(score.model_dump_json() + "\n" for score in scores))


def read_evaluation(run: Run) -> Evaluation | None:
    """The run's evaluation.json, or None if it got not that far. Raises `FtbridgeError` for one that cannot be read."""
    if not run.evaluation_path.exists():
        return None
    try:
        return Evaluation.model_validate_json(run.evaluation_path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise FtbridgeError(
            f"{run.evaluation_path} cannot be read: {reason}.",
            hint="Move it away and resume the run: its completions are scored again; none is generated again.",
        ) from None


def read_scores(path: Path) -> list[ItemScore]:
    """The scores in a file; a file that is not there, and lines that cannot be read, hold none."""
    scores = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            scores.append(ItemScore.model_validate_json(line))
        except ValidationError:
            continue
    return scores


def recorded(runs: Iterable[Run]) -> Grades:
    """Every result that these runs hold on disk, by name."""
    grades: Grades = {}
    for run in runs:
        grades |= read_grades([run.grades_path])
        grades |= {score.name: score.result for score in read_scores(run.scores_path)}
    return grades


def recorded_results(
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graders: Sequence[Grader],
    grades: Grades,
) -> Results:
    """The result of each grader by candidate and grader, in the order of `items`, without asking or executing anything.

    A result of a model or Python grader that is not on disk becomes an error of that item ("not recorded"). Raises
    `FtbridgeError` when a candidate has no completion of an item.
    """
    filled = dict(grades)
    for grader in graders:
        if not needs_others(grader):
            continue
        for candidate in predictions.values():
            completions = {prediction.key: prediction.samples for prediction in candidate}
            for item in items:
                for sample in (sample_of(one) for one in completions.get(item.key, ())):
                    if lookup(filled, grader, item.fields, sample) is None:
                        filled[name_of(grader, item.fields, sample)] = _not_recorded(grader)
    return results(items, predictions, graders, filled)


def needs_others(grader: Grader) -> bool:
    """Whether grading asks a model or executes the user's code."""
    if grader.type in ("multi", "panel"):
        return any(needs_others(part) for part in parts_of(grader))
    return grader.type in ("score_model", "label_model", "pairwise", "python")


def _not_recorded(grader: Grader) -> GraderResult:
    why = "no score is recorded in the run; `ftbridge eval` grades its completions"
    return GraderResult(
        name=grader.name,
        type=grader.type,
        reward=0.0,
        passed=None,
        errors={"other_error": why},
        metadata=grading.Metadata(details={"no_score": True}),
    )
