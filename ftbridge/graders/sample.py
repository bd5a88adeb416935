"""The sample: one answer as templates and graders see it.

    output_text    the answer's text; "" for an answer that only calls tools
    output_json    the text as JSON; absent when it is not JSON
    output_tools   the calls: [{"type": "function", "function": {"name": ..., "arguments": ...}}]
    choices        as a chat completion has them; made of the others, and of `finish_reason`, where they are not given

A sample that has no calls beside its text may have them in it: they are read by `ftbridge.data.notation`, and bare JSON (one
call or a list of calls, each an object with `name` and `arguments`) is read as well. The text stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ftbridge import strict_json
from ftbridge.data.notation import read_reply

NAMES = ("output_text", "output_json", "output_tools", "choices")
"""What a template may read of a sample."""


class BadSample(ValueError):
    """An answer that is not a sample: without text and tool calls, or whose text is not text."""


class NotJson(ValueError):
    """A text that is not one JSON document; says why."""


def complete(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The sample with every name that can be told; what is there already is kept.

    Raises `BadSample`.
    """
    completed = dict(sample)
    tools = completed.get("output_tools")
    if completed.get("output_text") is None:
        if not tools:
            raise BadSample("the completion has neither text nor tool calls")
        completed["output_text"] = ""
    text = completed["output_text"]
    if not isinstance(text, str):
        raise BadSample(f"the completion is {type(text).__name__}, not text")
    if "output_json" not in completed:
        try:
            completed["output_json"] = parse_json(text)
        except NotJson:
            pass
    if tools is None:
        completed["output_tools"] = _written_calls(text, completed.get("output_json"))
    if "choices" not in completed:
        message = {"role": "assistant", "content": text, "tool_calls": completed["output_tools"]}
        completed["choices"] = [
            {"index": 0, "message": message, "finish_reason": completed.get("finish_reason", "stop")}
        ]
    return completed


def parse_json(text: str) -> Any:
    """One JSON document (RFC 8259: no NaN, no Infinity). Raises `NotJson` that says why it is none."""
    try:
        return strict_json.loads(text, duplicate_keys=True)
    except ValueError as error:
        raise NotJson(str(error)) from None


def calls_of(document: Any) -> list[tuple[str, Any]]:
    """Name and arguments of each call in a list of calls; arguments written as JSON text are parsed.

    A call is `{"name", "arguments"}` or `{"function": {"name", "arguments"}}`; one call may stand without its list, and
    `parameters` may stand for `arguments`, as Llama 3 writes it.
    Raises `ValueError` for anything else.
    """
    calls = []
    for entry in document if isinstance(document, list) else [document]:
        call = entry.get("function", entry) if isinstance(entry, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise ValueError(f"not a tool call: {json.dumps(entry, ensure_ascii=False)[:80]}")
        arguments = call.get("arguments", call.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = parse_json(arguments or "{}")
            except NotJson:
                pass  # compared as the text it is
        calls.append((call["name"], arguments))
    return calls


def is_call(entry: Any) -> bool:
    """Whether a parsed JSON value is a call: an object with a name, and with arguments or parameters where it has more."""
    call = entry.get("function", entry) if isinstance(entry, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        return False
    return bool({"arguments", "parameters"} & call.keys()) or call.keys() <= {"name", "id", "type"}


def _written_calls(text: str, document: Any) -> list[dict[str, Any]]:
    """Calls in the text, without ids."""
    entries = document if isinstance(document, list) else [document]
    written = [entry.keys() if isinstance(entry, Mapping) else () for entry in entries]
    if document and all("name" in keys and ("arguments" in keys or "parameters" in keys) for keys in written):
        try:
            return [_as_openai(name, arguments) for name, arguments in calls_of(entries)]
        except ValueError:
            return []
    return [{"type": "function", "function": call["function"]} for call in read_reply(text).tool_calls]


def _as_openai(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
