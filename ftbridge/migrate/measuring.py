"""Scores of a proof: every measure on both models, the paired verdicts, and the noise floor.

By graders, both models' scores are compared item by item. Without them, scores are agreement with the recorded greedy
completion, and the recorded model's further completions, averaged by item, are what the replacement is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.document import Score
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import stored_grades
from ftbridge.evaluation.items import Item as Question
from ftbridge.evaluation.missing import MaybeScores, known_score
from ftbridge.evaluation.score import JudgeRequests, results, score_of
from ftbridge.evaluation.verdict import PairedComparison, compare_paired
from ftbridge.evaluation.wording import sentence
from ftbridge.graders import Calls
from ftbridge.graders.calls import FILE as CALLS_FILE
from ftbridge.migrate.agreement import applies, deciding
from ftbridge.migrate.questions import DRAWN, RECORDED, REPLACEMENT
from ftbridge.spec.graders import Grader


class Measured(BaseModel):
    """One measure. `floor` is how well the recorded model does by its own greedy completions, None where nothing was drawn."""

    model_config = ConfigDict(frozen=True)

    name: str
    decides: bool
    replacement: Score
    recorded: Score | None = Field(description="The recorded model's own score; what the replacement is compared with.")
    noise: float | None = Field(
        description="Mean change of an item's score from one completion of the model to another."
    )
    judged: PairedComparison | None
    words: str


Scored = dict[str, dict[str, list[float | None]]]
"""Scores by candidate and measure, in the order of the questions."""


def scores_of(
    questions: Sequence[Question], predictions: Mapping[str, list[Prediction]], graders: Sequence[Grader], folder: Path
) -> Scored:
    """Every score; what judges replied is grades in the proof's folder, so that none is asked, or paid, again."""
    with stored_grades(folder / "grades.jsonl") as grades:
        graded = results(questions, predictions, graders, grades, JudgeRequests(Calls(folder / CALLS_FILE)))
    scored: Scored = {}
    for name, by in graded.items():
        scored[name] = {
            grader.name: [
                known_score(grader, result) if applies(grader.name, str(question.fields["recorded"])) else None
                for question, result in zip(questions, by[grader.name], strict=True)
            ]
            for grader in graders
        }
    return scored


def measured_of(
    questions: Sequence[Question], scored: Scored, graders: Sequence[Grader], margin: float, by_graders: bool
) -> list[Measured]:
    clusters = [question.cluster for question in questions]
    drawn = [name for name in scored if name.startswith(DRAWN)]
    recorded = {
        grader.name: scored[RECORDED][grader.name]
        if by_graders
        else _means([scored[name][grader.name] for name in drawn])
        if drawn
        else None
        for grader in graders
    }
    agreement = {
        name: (
            sum(present) / len(present) if (present := [value for value in values or () if value is not None]) else None
        )
        for name, values in recorded.items()
    }
    names = [grader.name for grader in graders]
    decisive = set(names) if by_graders else {deciding(names, agreement)}
    measured = []
    for name in names:
        values, baseline = scored[REPLACEMENT][name], recorded[name]
        places = [index for index, question in enumerate(questions) if applies(name, str(question.fields["recorded"]))]
        replacement, names_here = [values[index] for index in places], [clusters[index] for index in places]
        there = [baseline[index] for index in places] if baseline is not None else None
        paired = compare_paired({name: there}, {name: replacement}, margin, names_here)[name] if there else None
        noise = _noise([scored[RECORDED][name], *(scored[each][name] for each in drawn)]) if by_graders else None
        if not by_graders and agreement[name] is not None:
            noise = 1 - (agreement[name] or 0.0)
        measured.append(
            Measured(
                name=name,
                decides=name in decisive,
                replacement=score_of(replacement, names_here),
                recorded=score_of(there, names_here) if there is not None else None,
                noise=noise,
                judged=paired,
                words=_words(name, paired, by_graders),
            )
        )
    return sorted(measured, key=lambda one: not one.decides)


def _words(name: str, paired: PairedComparison | None, by_graders: bool) -> str:
    if paired is None:
        return f"{name}: how well the recorded model agrees with itself is not known, so there is no verdict."
    candidate, baseline = (
        ("the replacement", "the recorded model")
        if by_graders
        else ("the replacement's agreement with the recording", "the recorded model's with itself")
    )
    text = sentence(name, paired, candidate=candidate, baseline=baseline)
    return text[:1].upper() + text[1:]


def _means(columns: Sequence[MaybeScores]) -> list[float | None]:
    """The mean of several scores of each item; None where any is missing."""
    return [
        None if any(value is None for value in row) else sum(value for value in row if value is not None) / len(row)
        for row in zip(*columns, strict=True)
    ]


def _noise(columns: Sequence[MaybeScores]) -> float | None:
    """Mean absolute change of an item's score from the greedy completion to another of the same model."""
    first, *others = columns
    changes = [
        abs(a - b) for other in others for a, b in zip(first, other, strict=True) if a is not None and b is not None
    ]
    return sum(changes) / len(changes) if changes else None
