"""The sample: one answer as templates and graders see it.

    output_text    the answer's text; "" for an answer that only calls tools
    output_json    the text as JSON; absent when it is not JSON
    output_tools   the calls: [{"type": "function", "function": {"name": ..., "arguments": ...}}]
    choices        as a chat completion has them; made of the others, and of `finish_reason`, where they are not given

A local model writes its calls as text. They are read from it when there are none beside it, in the two common forms: JSON
(one call or a list of calls, each an object with `name` and `arguments`) and `<tool_call>…</tool_call>` around such objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

NAMES = ("output_text", "output_json", "output_tools", "choices")
"""What a template may read of a sample."""

_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


class BadSample(ValueError):
    """An answer that is no sample: without text and tool calls, or whose text is not text."""


class NotJson(ValueError):
    """A text that is not one JSON document; says why."""


def complete(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The sample with every name that can be told; what is there already is kept.

    Raises `BadSample`.
    """
    whole = dict(sample)
    tools = whole.get("output_tools")
    if whole.get("output_text") is None:
        if not tools:
            raise BadSample("the answer has neither text nor tool calls")
        whole["output_text"] = ""
    text = whole["output_text"]
    if not isinstance(text, str):
        raise BadSample(f"the answer is {type(text).__name__}, not text")
    if "output_json" not in whole:
        try:
            whole["output_json"] = parse_json(text)
        except NotJson:
            pass
    if tools is None:
        whole["output_tools"] = _written_calls(text, whole.get("output_json"))
    if "choices" not in whole:
        message = {"role": "assistant", "content": text, "tool_calls": whole["output_tools"]}
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": whole.get("finish_reason", "stop")}]
    return whole


def parse_json(text: str) -> Any:
    """One JSON document (RFC 8259: no NaN, no Infinity). Raises `NotJson` that says why it is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except ValueError as error:
        raise NotJson(str(error)) from None


def calls_of(document: Any) -> list[tuple[str, Any]]:
    """Name and arguments of each call in a list of calls; arguments written as JSON text are parsed.

    A call is `{"name", "arguments"}` or `{"function": {"name", "arguments"}}`; one call may stand without its list.
    Raises `ValueError` for anything else.
    """
    calls = []
    for entry in document if isinstance(document, list) else [document]:
        call = entry.get("function", entry) if isinstance(entry, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise ValueError(f"not a tool call: {json.dumps(entry, ensure_ascii=False)[:80]}")
        arguments = call.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = parse_json(arguments or "{}")
            except NotJson:
                pass  # compared as the text it is
        calls.append((call["name"], arguments))
    return calls


def _written_calls(text: str, document: Any) -> list[dict[str, Any]]:
    documents = [document] if document is not None else []
    for inner in _TOOL_CALL.findall(text):
        try:
            documents.append(parse_json(inner))
        except NotJson:
            return []
    told = [entry for found in documents for entry in (found if isinstance(found, list) else [found])]
    if not all(isinstance(entry, Mapping) and {"name", "arguments"} <= entry.keys() for entry in told):
        return []
    try:
        return [
            {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
            for name, arguments in calls_of(told)
        ]
    except ValueError:
        return []


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
