"""JSON that a schema accepts, small and always the same: what the simulator answers when it is asked for JSON without a script.

Known: type, const, enum, properties, required, items, prefixItems, anyOf, oneOf, allOf, $ref, bounds of numbers, lengths,
pattern, format, multipleOf, uniqueItems. What a schema says beyond that is not looked at.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

sre: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_DEEPEST = 5
"""Beyond this depth, what need not be there is left out, so that schemas that contain themselves come to an end."""
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}


def instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value of a JSON schema; `root` is where its references begin."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or not schema:
        return {} if depth == 0 else "text"
    schema = _merged(schema, root, depth)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type") or _implied(schema)
    kinds = kind if isinstance(kind, list) else [kind]
    match next((one for one in kinds if one != "null"), "null"):
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "string":
            return _string(schema)
        case "integer" | "number" as number:
            return _number(schema, is_integer=number == "integer")
        case "boolean":
            return True
        case _:
            return None


def _merged(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    """The schema with references followed, all of `allOf`, and the first of `anyOf` and `oneOf` that is not null."""
    merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
    parts = [part for key in ("allOf",) for part in schema.get(key) or []]
    if isinstance(schema.get("$ref"), str) and depth < 4 * _DEEPEST:
        parts.append(_found(schema["$ref"], root))
    for key in ("anyOf", "oneOf"):
        options = [part for part in schema.get(key) or [] if isinstance(part, Mapping)]
        plain = [part for part in options if part.get("type") != "null"]
        if depth >= _DEEPEST and len(plain) < len(options):
            plain = [{"type": "null"}]
        parts += plain[:1]
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        for key, value in _merged(part, root, depth + 1).items():
            if key == "properties" and isinstance(merged.get(key), Mapping):
                merged[key] = {**value, **merged[key]}
            elif key == "required" and isinstance(merged.get(key), list):
                merged[key] = [*merged[key], *value]
            else:
                merged.setdefault(key, value)
    return merged


def _found(reference: str, root: Any) -> Any:
    node = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


def _implied(schema: Mapping[str, Any]) -> str:
    """The type that a schema without one speaks of."""
    if "properties" in schema or "required" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = [name for name in schema.get("required") or [] if isinstance(name, str)]
    names = required if depth >= _DEEPEST else [*properties, *(name for name in required if name not in properties)]
    return {name: instance(properties.get(name, {"type": "string"}), root, depth + 1) for name in names}


def _array(schema: Mapping[str, Any], root: Any, depth: int) -> list[Any]:
    first = [instance(part, root, depth + 1) for part in schema.get("prefixItems") or []]
    least = int(schema.get("minItems", 0 if depth >= _DEEPEST or schema.get("maxItems") == 0 else 1))
    items = schema.get("items", {"type": "string"})
    while len(first) < least and items is not False:
        element = instance(items, root, depth + 1)
        if schema.get("uniqueItems") and element in first:
            element = _another(items, root, depth, first)
        first.append(element)
    return first


def _another(items: Any, root: Any, depth: int, taken: list[Any]) -> Any:
    """A value unlike those that are taken, as far as one can be had."""
    merged = _merged(items, root, depth) if isinstance(items, Mapping) else {}
    for choice in merged.get("enum") or []:
        if choice not in taken:
            return choice
    base = instance(items, root, depth + 1)
    if isinstance(base, str):
        return f"{base}{len(taken)}"
    return base + len(taken) if isinstance(base, int | float) and not isinstance(base, bool) else base


def _string(schema: Mapping[str, Any]) -> str:
    if isinstance(schema.get("pattern"), str):
        try:
            return _matching(sre.parse(schema["pattern"]))
        except (re.error, ValueError, OverflowError):
            return ""
    text = _FORMATS.get(str(schema.get("format")), "text")
    least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 1 << 20))
    return (text + "x" * max(0, least - len(text)))[:most]


def _number(schema: Mapping[str, Any], *, is_integer: bool) -> int | float:
    step = schema.get("multipleOf") or (1 if is_integer else 0)
    value: float
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    least, most = max(low, above), min(high, below)
    if not step:
        if math.isinf(least) or math.isinf(most):
            value = least + 1 if math.isfinite(least) else most - 1 if math.isfinite(most) else 1
            return float(low) if low == least and math.isfinite(low) else value
        return float(least + most) / 2
    value = (
        math.ceil(least / step - 1e-9) * step
        if math.isfinite(least)
        else min(step, math.floor(most / step) * step)
        if math.isfinite(most)
        else step
    )
    value = value + step if value <= above else value
    value = value - step if value >= below else value
    return int(value) if is_integer else value


def _matching(parsed: Any) -> str:
    """A short text that a parsed regular expression matches. Raises `ValueError` for looking around and back."""
    text = ""
    for operation, argument in parsed:
        match str(operation):
            case "LITERAL":
                text += chr(argument)
            case "NOT_LITERAL":
                text += "a" if chr(argument) != "a" else "b"
            case "ANY":
                text += "a"
            case "IN":
                text += _member(argument)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = argument
                text += _matching(inner) * max(least, min(1, most))
            case "SUBPATTERN":
                text += _matching(argument[-1])
            case "ATOMIC_GROUP":
                text += _matching(argument)
            case "BRANCH":
                text += _matching(argument[1][0])
            case "AT":
                continue
            case other:
                raise ValueError(other)
    return text


_CATEGORIES = {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a",
               "CATEGORY_NOT_DIGIT": "a", "CATEGORY_NOT_SPACE": "a", "CATEGORY_NOT_WORD": " "}  # fmt: skip


def _member(members: Any) -> str:
    """One character of a set."""
    if str(members[0][0]) == "NEGATE":
        pattern = members[1:]
        return next(chr(code) for code in range(97, 0x3000) if not any(_holds(part, code) for part in pattern))
    operation, argument = members[0]
    match str(operation):
        case "LITERAL":
            return chr(argument)
        case "RANGE":
            return chr(argument[0])
        case _:
            return _CATEGORIES[str(argument)]


def _holds(part: Any, code: int) -> bool:
    operation, argument = part
    if str(operation) == "LITERAL":
        return bool(code == argument)
    if str(operation) == "RANGE":
        return bool(argument[0] <= code <= argument[1])
    classes = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}
    name = str(argument).removeprefix("CATEGORY_")
    hit = bool(re.match(classes[name.removeprefix("NOT_")], chr(code)))
    return hit != name.startswith("NOT_")
