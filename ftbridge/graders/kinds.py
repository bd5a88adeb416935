"""One entry a type of grader: the templates it reads, what can be checked without an item, and how it grades one completion.

`KINDS` is the only place that knows every type. A new type is a model in `ftbridge.spec.graders`, a module here whose `grade`
returns an `Outcome`, and an entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ftbridge.graders import (
    judge,
    match,
    multi,
    pairwise,
    panel,
    python,
    similarity,
    string_check,
    structured,
    tool_calls,
)
from ftbridge.graders.calls import Calls
from ftbridge.graders.python import PythonPolicy
from ftbridge.graders.result import GraderResult, Outcome
from ftbridge.spec.graders import (
    Grader,
    JsonFieldsGrader,
    JsonSchemaGrader,
    LabelModelGrader,
    MatchGrader,
    MultiGrader,
    PairwiseGrader,
    PanelGrader,
    PythonGrader,
    ScoreModelGrader,
    SingleGrader,
    StringCheckGrader,
    TextSimilarityGrader,
    ToolCallsGrader,
    parts_of,
)


class Grading(NamedTuple):
    """What grading one completion may use besides the grader itself.

    `item` and `sample` are what templates read; `policy` says whether Python source may run; `calls` holds the requests made
    to judges before and takes new ones. `grade_part` grades with one of the grader's own parts, and `score` turns such a
    result into 0..1.
    """

    item: Mapping[str, Any]
    sample: Mapping[str, Any]
    policy: PythonPolicy
    calls: Calls | None
    grade_part: Callable[[SingleGrader], GraderResult]
    score: Callable[[Grader, GraderResult], float]


class Kind(NamedTuple):
    """A type of grader.

    `check` raises `GraderError` or `MissingDependency` for what would keep it from grading any completion.
    """

    templates: Callable[[Any], tuple[str, ...]]
    grade: Callable[[Any, Grading], Outcome]
    check: Callable[[Any, PythonPolicy], None] = lambda grader, policy: None


def kind_of(grader: Grader) -> Kind:
    """The entry of this grader's type."""
    return KINDS[type(grader)]


def _input_and_reference(
    grader: StringCheckGrader | TextSimilarityGrader | ToolCallsGrader | JsonFieldsGrader,
) -> tuple[str, ...]:
    return grader.input, str(grader.reference)


def _of_match(grader: MatchGrader) -> tuple[str, ...]:
    return grader.input, *([grader.reference] if isinstance(grader.reference, str) else grader.reference)


def _of_parts(grader: MultiGrader | PanelGrader) -> tuple[str, ...]:
    return tuple(template for part in parts_of(grader) for template in kind_of(part).templates(part))


def _of_judge(grader: ScoreModelGrader | LabelModelGrader) -> tuple[str, ...]:
    return tuple(judge.templates(grader.input))


def _check_parts(grader: MultiGrader | PanelGrader, policy: PythonPolicy) -> None:
    for part in parts_of(grader):
        kind_of(part).check(part, policy)
    if isinstance(grader, MultiGrader):
        multi.check(grader)


KINDS: Mapping[type, Kind] = {
    StringCheckGrader: Kind(
        templates=_input_and_reference,
        grade=lambda grader, at: string_check.grade(grader, at.item, at.sample),
    ),
    TextSimilarityGrader: Kind(
        templates=_input_and_reference,
        grade=lambda grader, at: similarity.grade(grader, at.item, at.sample),
        check=lambda grader, policy: similarity.check(grader),
    ),
    ScoreModelGrader: Kind(
        templates=_of_judge,
        grade=lambda grader, at: judge.grade_score(grader, at.item, at.sample, at.calls),
        check=lambda grader, policy: judge.check(grader),
    ),
    LabelModelGrader: Kind(
        templates=_of_judge,
        grade=lambda grader, at: judge.grade_label(grader, at.item, at.sample, at.calls),
        check=lambda grader, policy: judge.check(grader),
    ),
    PairwiseGrader: Kind(
        templates=lambda grader: (grader.question, grader.answer, grader.against),
        grade=lambda grader, at: pairwise.grade(grader, at.item, at.sample, at.calls),
        check=lambda grader, policy: judge.check(pairwise.orders(grader)[0]),
    ),
    PythonGrader: Kind(
        templates=lambda grader: (),
        grade=lambda grader, at: python.grade(grader, at.item, at.sample, at.policy),
        check=python.check,
    ),
    MatchGrader: Kind(
        templates=_of_match,
        grade=lambda grader, at: match.grade(grader, at.item, at.sample),
        check=lambda grader, policy: match.check(grader),
    ),
    JsonSchemaGrader: Kind(
        templates=lambda grader: (grader.input,),
        grade=lambda grader, at: structured.grade_schema(grader, at.item, at.sample),
        check=lambda grader, policy: structured.check_schema(grader),
    ),
    JsonFieldsGrader: Kind(
        templates=_input_and_reference,
        grade=lambda grader, at: structured.grade_fields(grader, at.item, at.sample),
        check=lambda grader, policy: structured.check_fields(grader),
    ),
    ToolCallsGrader: Kind(
        templates=_input_and_reference,
        grade=lambda grader, at: tool_calls.grade(grader, at.item, at.sample),
    ),
    MultiGrader: Kind(
        templates=_of_parts,
        grade=lambda grader, at: multi.grade(grader, at.grade_part),
        check=_check_parts,
    ),
    PanelGrader: Kind(
        templates=_of_parts,
        grade=lambda grader, at: panel.grade(grader, at.grade_part, at.score),
        check=_check_parts,
    ),
}
