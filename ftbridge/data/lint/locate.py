"""Find the piece of a line that a finding is about: from a path like messages[1].content to characters of the raw line."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Place(NamedTuple):
    """Characters of a line, from `start` to before `end`. `exact` is false where only something around it was found."""

    start: int
    end: int
    exact: bool


def locate(text: str, field: str | None, span: tuple[int, int] | None = None) -> Place:
    """Where a field's value stands in a line; with `span`, those characters of the decoded text.

    A field that is missing is the object it is missing from. A line that is not JSON is only its `span`. Never raises.
    """
    stripped = text.strip()
    begin = text.index(stripped) if stripped else 0
    record_place = Place(begin, begin + len(stripped), exact=not field)
    if not field:
        return Place(min(span[0], len(text)), min(span[1], len(text)), True) if span else record_place
    try:
        start, exact = _descend(text, begin, _steps(field))
        end = _value_end(text, start)
    except (ValueError, IndexError, RecursionError):
        return record_place
    if span and exact and text[start : start + 1] == '"':
        inner = _inside(text, start, span)
        if inner:
            return Place(*inner, exact=True)
    return Place(start, end, exact)


def _steps(field: str) -> list[str | int]:
    return [int(index) if index else key for key, index in _STEP.findall(field)]


def _descend(text: str, position: int, steps: list[str | int]) -> tuple[int, bool]:
    """Where the value of the last step begins, and whether every step was found."""
    for step in steps:
        child = _member(text, position, step) if isinstance(step, str) else _element(text, position, step)
        if child is None:
            return position, False
        position = child
    return position, True


def _member(text: str, position: int, key: str) -> int | None:
    if text[position] != "{":
        return None
    position = _skip(text, position + 1)
    while text[position] == '"':
        name, position = scanstring(text, position + 1, False)
        position = _skip(text, _skip(text, position) + 1)
        if name == key:
            return position
        position = _skip(text, _value_end(text, position))
        if text[position] != ",":
            break
        position = _skip(text, position + 1)
    return None


def _element(text: str, position: int, index: int) -> int | None:
    if text[position] != "[":
        return None
    position = _skip(text, position + 1)
    while text[position] != "]":
        if index == 0:
            return position
        index -= 1
        position = _skip(text, _value_end(text, position))
        if text[position] != ",":
            break
        position = _skip(text, position + 1)
    return None


def _value_end(text: str, position: int) -> int:
    return _DECODER.raw_decode(text, position)[1]


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _inside(text: str, quote: int, span: tuple[int, int]) -> tuple[int, int] | None:
    """Raw characters for decoded ones: an escape is one character, and so is an escaped surrogate pair."""
    position, decoded = quote + 1, 0
    start = end = -1
    while position < len(text) and text[position] != '"':
        if decoded == span[0] and start < 0:
            start = position
        if decoded >= span[1]:
            end = position
            break
        position += _character(text, position)
        decoded += 1
    if start < 0 and decoded == span[0]:
        start = position
    if end < 0:
        end = position
    return (start, end) if 0 <= start <= end else None


def _character(text: str, position: int) -> int:
    """How many raw characters one decoded character takes."""
    if text[position] != "\\":
        return 1
    if text[position + 1] != "u":
        return 2
    high = text[position + 2 : position + 6].lower()
    low = text[position + 6 : position + 12].lower()
    pair = high[:2] in ("d8", "d9", "da", "db") and low[:2] == "\\u" and low[2:4] in ("dc", "dd", "de", "df")
    return 12 if pair else 6
