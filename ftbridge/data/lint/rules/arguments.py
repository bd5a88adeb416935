"""Rules about what calls pass to tools: arguments against the parameters that the tool has."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ftbridge.data.lint.rule import JSON, Line, Problem, kind_of, rule
from ftbridge.data.lint.rules.calls import called
from ftbridge.data.lint.rules.specimens import GOOD_CALL, call, calling, chat, tool, user
from ftbridge.data.lint.structure import function_of, listed, near, shown

_ELSEWHERE = frozenset({"$ref", "anyOf", "oneOf", "allOf", "not", "if", "patternProperties", "$dynamicRef"})
"""Keywords under which a schema says more than what is read here; such a schema is passed over, with all below it."""

_DEEPEST = 20
"""Schemas inside each other that are looked at."""

_MOST = 3
"""Faults of one call that are told."""


@rule(
    "FTB310",
    "arguments-unlike-schema",
    kind="line",
    severity="warning",
    reason="The model learns calls that the tool does not accept.",
    source="OpenAI function calling guide: arguments follow the function's JSON Schema; JSON Schema 2020-12, validation: "
    "type, enum, required, properties, additionalProperties, items",
    bad=chat(user("Weather in Rome?"), calling(call(arguments='{"town": "Rome"}')), tools=[tool()]),
    good=GOOD_CALL,
)
def arguments_unlike_schema(line: Line) -> Iterator[Problem]:
    """A call's arguments do not fit the parameters of its tool."""
    schemas = _schemas(line)
    for at, function in called(line) if schemas else ():
        name = function.get("name")
        schema = schemas.get(name) if isinstance(name, str) else None
        value = _value(function.get("arguments"))
        if schema is None or not isinstance(value, dict):
            continue  # other rules tell of tools that are not there and arguments that are not objects
        faults = [fault for _, fault in zip(range(_MOST), _faults(value, schema, "", 0), strict=False)]
        if faults:
            description = f"does not fit the parameters of {name}: {'; '.join(faults)}."
            yield Problem(f"{at}.arguments", f"{description} Correct the call or the tool.")


def _schemas(line: Line) -> dict[str, dict[str, JSON]]:
    """The parameters of each tool by its name; those of a name that stands twice are not known."""
    holder = line.conversations[0].holder if line.conversations else {}
    tools, functions = holder.get("tools"), holder.get("functions")
    offered = [function_of(one) for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
    offered += [one for one in functions if isinstance(one, dict)] if isinstance(functions, list) else []
    names = [function.get("name") for function in offered]
    return {
        function["name"]: function["parameters"]
        for function in offered
        if isinstance(function.get("name"), str)
        and isinstance(function.get("parameters"), dict)
        and names.count(function["name"]) == 1
    }


def _value(arguments: JSON) -> JSON:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return None


def _faults(value: JSON, schema: JSON, at: str, depth: int) -> Iterator[str]:
    if not isinstance(schema, dict) or depth > _DEEPEST or schema.keys() & _ELSEWHERE:
        return
    path = at or "the arguments"
    if value is None and schema.get("nullable") is True:
        return
    if not _is_of(value, schema.get("type")):
        yield f"{path} is {kind_of(value)}, not {_named(schema['type'])}"
        return
    allowed = schema.get("enum")
    if isinstance(allowed, list) and allowed and value not in allowed:
        yield f"{path} is {shown(value)}, which is not among {shown(allowed, 60)}"
    elif "const" in schema and value != schema["const"]:
        yield f"{path} is {shown(value)}, not {shown(schema['const'])}"
    if isinstance(value, dict):
        yield from _object_faults(value, schema, at, depth)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value[:1_000]):
            yield from _faults(item, schema["items"], f"{at}[{index}]", depth + 1)


def _object_faults(value: dict[str, JSON], schema: dict[str, JSON], at: str, depth: int) -> Iterator[str]:
    properties, required = schema.get("properties"), schema.get("required")
    declared = properties if isinstance(properties, dict) else {}
    inside = f"{at}." if at else ""
    missing = (
        [name for name in required if isinstance(name, str) and name not in value] if isinstance(required, list) else []
    )
    if missing:
        yield f"{inside}{listed(missing[:5])} {'is' if len(missing) == 1 else 'are'} missing"
    extra = schema.get("additionalProperties")
    if extra is False or (
        extra is None and declared
    ):  # without a word on others, models are offered those that are named
        for name in [name for name in value if name not in declared]:
            meant = near(name, frozenset(declared)) if isinstance(declared, dict) else None
            yield f"{inside}{name} is not a parameter" + (f" (is it {meant}?)" if meant else "")
    for name, item in value.items():
        yield from _faults(
            item, declared.get(name, extra if isinstance(extra, dict) else None), f"{inside}{name}", depth + 1
        )


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "number": (int, float), "integer": (int, float),
}  # fmt: skip


def _is_of(value: JSON, kind: JSON) -> bool:
    """Whether a value is of a schema's type, or of one of its types; types that are unknown take everything."""
    if isinstance(kind, list):
        return not kind or any(_is_of(value, one) for one in kind)
    if kind == "null":
        return value is None
    if not isinstance(kind, str) or kind not in _KINDS:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    is_whole = kind != "integer" or not isinstance(value, float) or value.is_integer()
    return isinstance(value, _KINDS[kind]) and is_whole


def _named(kind: JSON) -> str:
    names = {
        "object": "an object",
        "array": "a list",
        "string": "text",
        "boolean": "true or false",
        "number": "a number",
    }
    names |= {"integer": "a whole number", "null": "null"}
    kinds = kind if isinstance(kind, list) else [kind]
    return " or ".join(names.get(one, str(one)) for one in kinds)
