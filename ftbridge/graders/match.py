"""The `match` grader, ours beyond OpenAI's: a text or number among the expected ones, after what its options name and no more.

completion ─▶ extract ─▶ strip, spaces, case, Unicode form ─▶ equal to a reference, holds one, or the same number
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from ftbridge.graders.result import Outcome, failed
from ftbridge.graders.template import GraderError, render, variables
from ftbridge.spec.graders import MatchGrader

_NUMBER = re.compile(
    r"(?<![\w.,])[-+−]?(?:\d{1,3}(?:[,\u00a0\u202f]\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w]|[.,]\d)|"
    r"(?<![\w.,])[-+−]?\.\d+(?![\w]|[.,]\d)"
)
"""7, -7, 1,200, 3.5, .5, 2e-3; not in v2, 1.2.3 or 12,34."""
_EXCHANGED = str.maketrans(",.", ".,")
_LONGEST = 100_000
"""Characters of a completion that are looked at, so that a pattern cannot run for hours."""


def grade(grader: MatchGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Outcome:
    """1 when the input matches one of the references, else 0; `details` say what was compared.

    A reference template that is one variable with a list stands for all of its entries. Of a number that is compared,
    `tolerance` is the largest difference, `relative_tolerance` the largest as a share of the reference. A reference that
    should be a number and is not, and no reference at all, are errors.
    """
    text = render(grader.input, item, sample, grader=grader.name)[:_LONGEST]
    references = references_of(grader, item, sample)
    if not references:
        return failed("other_error", "there is no reference to match")
    if grader.extract is not None:
        match = re.search(grader.extract, text, re.DOTALL)
        if match is None:
            return Outcome(0.0, details={"extracted": None})
        text = (match.group(1) if match.re.groups else match.group()) or ""
    if grader.compare == "number":
        return _numbers(grader, text, references)
    shown, expected = _normal(grader, text), [_normal(grader, reference) for reference in references]
    if grader.compare == "contains" and "" in expected:
        return failed("other_error", "a reference is empty, and every text contains it")
    holds = shown in expected if grader.compare == "equal" else any(one in shown for one in expected)
    return Outcome(float(holds), details={"compared": shown[:500]})


def references_of(grader: MatchGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> list[str]:
    """The texts of which one must match; a template that is one variable with a list stands for its entries."""
    return [text for template in _templates(grader) for text in _expanded(template, grader.name, item, sample)]


def check(grader: MatchGrader) -> None:
    """Raise `GraderError` for a pattern that is not a regular expression, and options that do not go together."""
    if grader.extract is not None:
        try:
            re.compile(grader.extract)
        except (re.error, RecursionError, OverflowError) as error:
            raise GraderError(
                f"grader {grader.name}: extract is not a regular expression: {error}.",
                hint="Use the syntax of Python's re; group 1, if there is one, is compared.",
            ) from None
    tolerances = (grader.tolerance, grader.relative_tolerance)
    if grader.compare != "number" and any(tolerance is not None for tolerance in tolerances):
        raise GraderError(f"grader {grader.name}: a tolerance needs compare: number.")


def number_in(text: str, which: str, *, decimal_comma: bool = False) -> float | None:
    """The first or last number in a text, or, for "only", the one number that it is; 1.234,5 with a `decimal_comma`."""
    if decimal_comma:
        text = text.translate(_EXCHANGED)
    if which == "only":
        match = _NUMBER.fullmatch(text.strip().strip("$€£¥% ").rstrip(".").rstrip("$€£¥% "))
        return _value(match.group()) if match else None
    # A minus between two numbers subtracts: 15-8 holds 15 and 8.
    numbers = [match.group() for match in _NUMBER.finditer(re.sub(r"(?<=\d)[-−](?=\d)", " ", text))]
    return _value(numbers[0 if which == "first" else -1]) if numbers else None


def _numbers(grader: MatchGrader, text: str, references: Sequence[str]) -> Outcome:
    # A reference may be a number of JSON, which has a point whatever completions have.
    expected = [
        number_in(reference, "only") if value is None else value
        for reference in references
        for value in [number_in(reference, "only", decimal_comma=grader.decimal_comma)]
    ]
    if wrong := [reference for reference, value in zip(references, expected, strict=True) if value is None]:
        return failed("other_error", f"the reference {wrong[0][:80]!r} is not a number")
    number = number_in(text, grader.number, decimal_comma=grader.decimal_comma)
    if number is None:
        return Outcome(0.0, details={"number": None})
    absolute, relative = grader.tolerance or 0.0, grader.relative_tolerance or 0.0
    near = any(
        math.isclose(number, one, rel_tol=0.0, abs_tol=max(absolute, relative * abs(one))) for one in _known(expected)
    )
    return Outcome(float(near), details={"number": number})


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _value(number: str) -> float:
    return float(re.sub("[,\u00a0\u202f]", "", number).replace("−", "-"))


def _normal(grader: MatchGrader, text: str) -> str:
    if grader.unicode is not None:
        text = unicodedata.normalize(grader.unicode, text)
    if grader.collapse_spaces:
        text = re.sub(r"\s+", " ", text)
    if grader.strip:
        text = text.strip()
    return text.casefold() if grader.ignore_case else text


def _templates(grader: MatchGrader) -> list[str]:
    return [grader.reference] if isinstance(grader.reference, str) else list(grader.reference)


def _expanded(template: str, name: str, item: Mapping[str, Any], sample: Mapping[str, Any]) -> list[str]:
    """The texts that a template stands for: each entry of a list, where it is one variable and that is a list."""
    text = render(template, item, sample, grader=name)
    lone = variables(template, grader=name)
    if len(lone) != 1 or template.strip() != template or not (template.startswith("{{") and template.endswith("}}")):
        return [text]
    if template.count("{{") != 1 or not text.startswith("["):
        return [text]
    try:
        entries = json.loads(text)
    except ValueError:
        return [text]
    if not isinstance(entries, list) or not _is_list(lone[0], name, item, sample):
        return [text]
    return [entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False) for entry in entries]


def _is_list(variable: str, name: str, item: Mapping[str, Any], sample: Mapping[str, Any]) -> bool:
    """Whether a variable's value is a list, rather than a text that looks like one: only a list has a first element."""
    try:
        render(f"{{{{ {variable}[0] }}}}", item, sample, grader=name)
    except GraderError as error:
        return "has 0 elements" in error.message
    return True
