"""The `tool_calls` grader, ours beyond OpenAI's: were the expected tools called, with the expected arguments?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftbridge.graders.result import Outcome, failed
from ftbridge.graders.sample import NotJson, calls_of, is_call, parse_json
from ftbridge.graders.structured import same_json
from ftbridge.graders.template import render
from ftbridge.spec.graders import ToolCallsGrader

_Call = tuple[str, Any]


def grade(grader: ToolCallsGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Outcome:
    """Calls that match, over the larger of the calls made and the calls expected: 0 to 1.

    A call matches one expected call at most: the same name, and arguments that are the same JSON (unless names alone
    count). Without `ordered`, order does not matter; with it, the longest run of matches in order counts. So a call too
    many costs as much as one too few. No calls where none are expected score 1: a reference that is not the JSON of calls
    (the expected completion is prose, or JSON that calls nothing) expects none. Input that is not calls made none. A list in
    which some entries are calls and some are not is an error of the reference.
    """
    try:
        expected = _calls(render(grader.reference, item, sample, grader=grader.name))
    except ValueError as error:
        return failed("other_error", f"the reference holds what is {error}")
    try:
        calls = _calls(render(grader.input, item, sample, grader=grader.name))
    except ValueError:
        calls = []
    most = max(len(calls), len(expected))
    if most == 0:
        return Outcome(1.0)

    def same(one: _Call, other: _Call) -> bool:
        return one[0] == other[0] and (grader.match == "name" or same_json(one[1], other[1]))

    matches = _in_order(calls, expected, same) if grader.ordered else _in_any_order(calls, expected, same)
    return Outcome(matches / most, details={"made": len(calls), "expected": len(expected), "matching": matches})


def _calls(text: str) -> list[_Call]:
    """The calls that a text is the JSON of; none for prose, and for JSON in which nothing is a call.

    Raises `ValueError` for a list of which only some entries are calls.
    """
    try:
        document = parse_json(text)
    except NotJson:
        return []
    entries = document if isinstance(document, list) else [document]
    return calls_of(document) if any(map(is_call, entries)) else []


def _in_any_order(calls: Sequence[_Call], expected: Sequence[_Call], same: Callable[[_Call, _Call], bool]) -> int:
    """Being the same is an equivalence, so taking the first match that is left finds the most matches."""
    left = list(expected)
    for call in calls:
        matching = next((index for index, other in enumerate(left) if same(call, other)), None)
        if matching is not None:
            del left[matching]
    return len(expected) - len(left)


def _in_order(calls: Sequence[_Call], expected: Sequence[_Call], same: Callable[[_Call, _Call], bool]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(expected) + 1)
    for call in calls:
        above = 0
        for index, other in enumerate(expected, 1):
            above, lengths[index] = (
                lengths[index],
                above + 1 if same(call, other) else max(lengths[index], lengths[index - 1]),
            )
    return lengths[-1]
