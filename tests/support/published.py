"""The published interface, and what a document lacks of it. `published.yaml` is its condensed description.

A type is alternatives parted by |: a quoted word, null, boolean, string 1..64, integer 1..256, number >0.., any, object,
[T], {T}, or the name of an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_TOLD = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text())
ROUTES: dict[str, dict[str, Any]] = _TOLD["routes"]
OBJECTS: dict[str, Any] = _TOLD["objects"]


def problems(value: Any, type: str, at: str = "") -> list[str]:
    """Where `value` is not of the type; empty if it is. Fields that are not published are allowed: real answers have some."""
    tried = [list(_problems(value, each, at)) for each in alternatives(type)]
    return (
        []
        if any(not result for result in tried)
        else min(tried, key=lambda result: (_shallow(result, at), len(result)))
    )


def _shallow(messages: list[str], at: str) -> bool:
    return messages[0].startswith(f"{at}:")


def _problems(value: Any, type: str, at: str) -> Iterator[str]:
    kind, _, bounds = type.partition(" ")
    if type.startswith("["):
        if not isinstance(value, list):
            yield f"{at}: {value!r} is not a list"
            return
        for index, entry in enumerate(value):
            yield from problems(entry, type[1:-1], f"{at}[{index}]")
    elif type.startswith("{"):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is not a map"
            return
        for key, entry in value.items():
            yield from problems(entry, type[1:-1], f"{at}.{key}")
    elif kind in OBJECTS:
        yield from _object(value, kind, at)
    elif not _is(value, type if type.startswith('"') else kind, bounds):
        yield f"{at}: {value!r} is not {type}"


def _object(value: Any, name: str, at: str) -> Iterator[str]:
    fields = OBJECTS[name]
    if isinstance(fields, str):
        yield from problems(value, fields, at)
        return
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is no {name}"
        return
    for field, type in fields.items():
        key = field.rstrip("?")
        if key in value:
            yield from problems(value[key], type, f"{at}.{key}")
        elif not field.endswith("?"):
            yield f"{at}.{key}: is missing"


def _is(value: Any, kind: str, bounds: str) -> bool:
    if kind.startswith('"'):
        return value == json.loads(kind)
    match kind:
        case "any":
            return True
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "string":
            return isinstance(value, str) and within(len(value), bounds)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and within(value, bounds)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool) and within(value, bounds)
    raise AssertionError(f"{kind!r} is not a type")


def within(value: float, bounds: str) -> bool:
    """Whether a number is within `1..256`, `..64` or `>0..`."""
    if not bounds:
        return True
    low, _, high = bounds.partition("..")
    above = float(low.lstrip(">")) if low.lstrip(">") else float("-inf")
    return (value > above if low.startswith(">") else value >= above) and value <= (
        float(high) if high else float("inf")
    )


def alternatives(type: str) -> list[str]:
    """The members of a union, split at the | that are not inside brackets or quotes."""
    result, depth, quoted, begun = [], 0, False, 0
    for where, letter in enumerate(type):
        quoted ^= letter == '"'
        depth += (letter in "[{") - (letter in "]}") if not quoted else 0
        if letter == "|" and depth == 0 and not quoted:
            result.append(type[begun:where].strip())
            begun = where + 1
    return [*result, type[begun:].strip()]


def wrong_values(type: str) -> list[Any]:
    """Values that are not of the type: beyond each bound, and of another kind."""
    kinds = alternatives(type)
    values: list[Any] = [["a list"], {"an": "object"}, 3.5, True, "no such word", -(10**9), 10**12, "x" * 1000]
    for kind in kinds:
        name, _, bounds = kind.partition(" ")
        if bounds and name in ("integer", "number"):
            low, _, high = bounds.partition("..")
            values += [float(low.lstrip(">")) - 1] if low else []
            values += [float(high) + 1] if high else []
    return [value for value in values if problems(value, type)]
