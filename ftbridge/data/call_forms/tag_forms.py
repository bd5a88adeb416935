"""Forms whose calls are tags: a name, and a tag for each argument."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from ftbridge.data.call_forms.calls import Call, NotACall, Tools, calls_in, json_or_text, whole_json

FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|$)", re.DOTALL)
_SPACE = r"(?:｜DSML｜|\w+:)?"
_INVOKE = re.compile(rf'<{_SPACE}invoke name="?([^">]+)"?>(.*?)</{_SPACE}invoke>', re.DOTALL)
_NAMED = re.compile(
    rf'<{_SPACE}parameter name="?([^">]+?)"?(?: string="(true|false)")?>(.*?)</{_SPACE}parameter>', re.DOTALL
)
_GLM = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def functions(text: str, tools: Tools) -> list[Call]:
    calls = []
    for name, body in FUNCTION.findall(text):
        if body.strip().startswith("{"):
            calls.append(Call(name.strip(), whole_json(body)))
            continue
        values = {key.strip(): _one_break(value) for key, value in _PARAMETER.findall(body)}
        calls.append(Call(name.strip(), _typed(name.strip(), values, tools)))
    if not calls:
        raise NotACall
    return calls


def invokes(text: str, tools: Tools) -> list[Call]:
    """Calls written as `<invoke name="look_up"><parameter name="city">Lima</parameter></invoke>`. Raises `NotACall`."""
    calls = []
    for name, body in _INVOKE.findall(text):
        parameters = _NAMED.findall(body)
        values = {key: _one_break(value) for key, _, value in parameters}
        typed = _typed(name, values, tools)
        typed |= {key: json_or_text(value) for key, is_text, value in parameters if is_text == "false"}
        typed |= {key: value for key, is_text, value in parameters if is_text == "true"}
        calls.append(Call(name, typed))
    if not calls:
        raise NotACall
    return calls


def glm(text: str, tools: Tools) -> list[Call]:
    name = re.match(r"\s*([\w.\-]+)", text)
    if not name or text.lstrip().startswith("{"):
        return calls_in(text)
    if _GLM.sub("", text[name.end() :]).strip():
        raise NotACall  # it was cut within an argument
    values = {key.strip(): _one_break(value) for key, value in _GLM.findall(text)}
    return [Call(name[1], _typed(name[1], values, tools))]


def _one_break(value: str) -> str:
    """A value without the one line break that layout puts on either side."""
    return value.removeprefix("\n").removesuffix("\n")


def _typed(name: str, values: Mapping[str, str], tools: Tools) -> dict[str, Any]:
    """Text values with the types of the tool's schema; without a schema, what reads as JSON other than text is that."""
    kinds = _kinds(name, tools)
    typed: dict[str, Any] = {}
    for key, value in values.items():
        kind = kinds.get(key)
        typed[key] = value if kind == {"string"} else typed_value(value, kind)
    return typed


def typed_value(value: str, kind: set[str] | None) -> Any:
    bare = value.strip()
    if bare in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[bare]
    try:
        document = json.loads(bare)
    except (ValueError, RecursionError):
        try:
            document = ast.literal_eval(bare) if bare[:1] in "[{(" else value
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value if isinstance(document, str) or (kind and "string" in kind and document is not None) else document


def _kinds(name: str, tools: Tools) -> dict[str, set[str]]:
    for tool in tools:
        function = tool.get("function") or tool
        if function.get("name") != name:
            continue
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        kinds = {}
        for key, schema in (properties if isinstance(properties, Mapping) else {}).items():
            kind = schema.get("type") if isinstance(schema, Mapping) else None
            if kind is None and isinstance(schema, Mapping) and isinstance(schema.get("enum"), list):
                kind = "string" if all(isinstance(one, str) for one in schema["enum"]) else None
            if kind is not None:
                kinds[key] = set(kind) if isinstance(kind, list) else {str(kind)}
        return kinds
    return {}


# A name, then JSON: DeepSeek, Kimi, functionary, Llama's function tags
