"""OpenAI's grader templates: text in which `{{ item.key }}` and `{{ sample.output_text }}` stand for values.

    "{{item.reference}}"   "{{ item.tags[0].name }}"   "{{ item.labels['first choice'] }}"   "Answer: {{ sample.output_text }}"

Two namespaces, item and sample; keys after dots, list positions (from 0) in brackets; spaces inside the braces are
free. A key with a space, dot, bracket or brace stands in brackets and quotes, as in JSONPath (RFC 9535), with a backslash
before a quote or backslash of its own. There are no expressions: a template reads values and does nothing
else. Text becomes itself, every other value its JSON. Source: OpenAI's graders guide.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ftbridge.errors import GraderError as GraderError

_QUOTED = r"""\['(?:[^'\\]|\\.)*'\]|\["(?:[^"\\]|\\.)*"\]"""
_TAG = re.compile(rf"\{{\{{((?:{_QUOTED}|.)*?)\}}\}}", re.DOTALL)
_PATH = re.compile(rf"(?:item|sample)(?:\.[^\s.\[\]{{}}]+|\[\d+\]|{_QUOTED})+")
_STEP = re.compile(rf"\.(?P<key>[^\s.\[\]{{}}]+)|\[(?P<position>\d+)\]|(?P<quoted>{_QUOTED})")
_HOW = "Write {{ item.KEY }} or {{ sample.output_text }}; paths go deeper with .key, [0] and ['a key with spaces']."


class VariableMissing(GraderError):
    """A template names something that is not there: `variable` is its path, `at` the last place on it that is there."""

    def __init__(self, message: str, *, hint: str | None = None, variable: str = "", at: str = "") -> None:
        super().__init__(message, hint=hint)
        self.variable = variable
        self.at = at


def render(template: str, item: Mapping[str, Any], sample: Mapping[str, Any], *, grader: str) -> str:
    """The template with its variables filled in; `grader` is the name that errors give.

    Values that are not text are written as JSON, as Python's `json.dumps` spaces it, letters outside ASCII as they are.
    Raises `GraderError` for a template that cannot be read and `VariableMissing` for a variable that is not there.
    """
    names = {"item": item, "sample": sample}
    pieces = _pieces(template, grader)
    return "".join(_text(_value(piece, names, grader)) if is_variable else piece for is_variable, piece in pieces)


def variables(template: str, *, grader: str = "") -> list[str]:
    """The variables a template names (`item.tags[0].name`), each once, in order of appearance.

    Raises `GraderError` for a template that cannot be read.
    """
    return list(dict.fromkeys(piece for is_variable, piece in _pieces(template, grader) if is_variable))


@functools.lru_cache(maxsize=256)
def _pieces(template: str, grader: str) -> tuple[tuple[bool, str], ...]:
    """Literal text (False) and variables (True), in order."""
    pieces: list[tuple[bool, str]] = []
    for position, piece in enumerate(_TAG.split(template)):
        is_variable = position % 2 == 1
        if is_variable:
            piece = piece.strip()
            if not _PATH.fullmatch(piece):
                raise GraderError(f"{_prefix(grader)}{{{{ {piece} }}}} is not a variable.", hint=_HOW)
        elif "{{" in piece:
            start = piece[piece.index("{{") :]
            raise GraderError(f"{_prefix(grader)}{_short(start)} opens a variable and never closes it.", hint=_HOW)
        pieces.append((is_variable, piece))
    return tuple(pieces)


def _value(path: str, names: Mapping[str, Mapping[str, Any]], grader: str) -> Any:
    """Walk from a namespace to the value, naming the place where the path leaves what exists."""
    match = re.match(r"\w+", path)
    assert match is not None
    at = match.group()
    value: Any = names[at]
    for step in _STEP.finditer(path, match.end()):
        if (position := step["position"]) is not None:
            result, value, there = _element(value, int(position))
        else:
            key = step["key"] or re.sub(r"\\(.)", r"\1", step["quoted"][2:-2])
            result, value, there = _entry(value, key)
        if not result:
            raise VariableMissing(
                f"{_prefix(grader)}{{{{ {path} }}}} is not there: {at} {there}.",
                hint="Change the template, or give every test example this field.",
                variable=path,
                at=at,
            )
        at += step.group()
    return value


def _entry(value: Any, key: str) -> tuple[bool, Any, str]:
    """Whether there is such a key, its value, and what there is instead."""
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value))
        return key in value, value.get(key), f"has the keys {keys}" if keys else "has no keys"
    return False, None, f"is {_kind(value)} and has no keys"


def _element(value: Any, position: int) -> tuple[bool, Any, str]:
    """Whether there is such a list element, its value, and what there is instead."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        exists = position < len(value)
        many = "1 element" if len(value) == 1 else f"{len(value)} elements"
        return exists, value[position] if exists else None, f"has {many}, counted from 0"
    return False, None, f"is {_kind(value)}, not a list"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", type(None): "null", dict: "an object", list: "a list"}
    return names.get(type(value), type(value).__name__)


def _prefix(grader: str) -> str:
    return f"grader {grader}: " if grader else ""


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
