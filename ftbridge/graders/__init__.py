"""Graders in OpenAI's own schema: each turns one item and one answer into a score from 0 to 1.

    item     the test example's own fields, and its `reference`
    sample   the answer: `output_text`

A new type of grader is a module here with a `grade` function, a spec model, and a line in `score` and `templates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbridge.graders import string_check
from ftbridge.graders.template import GraderError, render, variables
from ftbridge.spec import Grader

__all__ = ["GraderError", "check", "reads_answer", "score", "templates"]

_ANY_ANSWER = {"output_text": ""}


def score(grader: Grader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """The grader's score, 0 to 1, for one answer. Raises `GraderError` when a template names what is not there."""
    return string_check.grade(grader, item, sample)


def check(grader: Grader, item: Mapping[str, Any]) -> None:
    """Raise the `GraderError` that scoring any answer to this item would raise; for use before answers exist."""
    for template in templates(grader):
        render(template, item, _ANY_ANSWER, grader=grader.name)


def reads_answer(grader: Grader) -> bool:
    """Whether the grader looks at the answer at all; one that does not gives every candidate the same score."""
    named = [variable for template in templates(grader) for variable in variables(template, grader=grader.name)]
    return any(variable.startswith("sample.") for variable in named)


def templates(grader: Grader) -> tuple[str, ...]:
    """Every template of a grader."""
    return grader.input, grader.reference
