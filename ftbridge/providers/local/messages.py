"""Examples' messages as one chat template wants them: roles it knows, calls in its form, ids it takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ftbridge.data.examples import ChatExample, FunctionCall, Message
from ftbridge.providers.local.template import ChatTemplate, RenderError, Told

NO_CALLS = "calls tools, which this model's chat template does not render"

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys that reasoning models' data carry beside the published ones; templates read one or another."""


def for_template(messages: Sequence[Message], template: ChatTemplate) -> list[Told]:
    """Every message, with system messages put into the first user's where the template has no system role.

    Raises `RenderError` for content parts that are not text, and calls that the template cannot write.
    """
    told: list[Told] = []
    call_id = None
    for index, message in enumerate(messages):
        told.append(_one(message, index, call_id, template))
        if message.function_call is not None:
            call_id = told[-1]["tool_calls"][-1]["id"]
    return told if template.takes_system else _fold_system(told, template)


def tools_of(example: ChatExample) -> list[dict[str, Any]] | None:
    """An example's tools, those written in the deprecated way as `functions` included."""
    if example.tools:
        return example.tools
    functions = example.extra.get("functions")
    given = functions if isinstance(functions, list) else []
    return [{"type": "function", "function": function} for function in given if isinstance(function, dict)] or None


def _one(message: Message, index: int, function_call_id: str | None, template: ChatTemplate) -> Told:
    """One message; a deprecated function message answers the function call before it."""
    role = message.role
    if role == "developer" and "developer" not in template.source:
        role = "system"
    for part in message.content if isinstance(message.content, list) else ():
        if part.type not in ("text", "refusal"):
            raise RenderError(
                f"messages[{index}].content has a part of type {part.type}: only text trains on this machine"
            )
    one: Told = {
        "role": "tool" if role == "function" else role,
        "content": message.text,
        "at": index,
        "trained": message.trained,
    }
    one |= {key: value for key, value in (message.model_extra or {}).items() if key in REASONING}
    if message.name:
        one["name"] = message.name
    if message.tool_call_id:
        one["tool_call_id"] = _id(message.tool_call_id, template)
    elif role == "function" and function_call_id:
        one["tool_call_id"] = function_call_id
    calls = [(call.id, call.function) for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append((None, message.function_call))
    if calls:
        one["tool_calls"] = [
            {
                "id": _id(given or f"call_{index}_{place}", template),
                "type": "function",
                "function": _call(function, index, template),
            }
            for place, (given, function) in enumerate(calls)
        ]
    return one


def _call(function: FunctionCall, index: int, template: ChatTemplate) -> dict[str, Any]:
    form = template.arguments_form
    if form is None:
        raise RenderError(NO_CALLS)
    arguments: Any = function.arguments
    if form == "object" and isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise RenderError(f"messages[{index}]: the arguments of {function.name} are not JSON ({error})") from None
    if form == "string" and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"name": function.name, "arguments": arguments}


def _id(given: str, template: ChatTemplate) -> str:
    """A call's id; nine letters and digits made of it where the template takes no others (Mistral's do not)."""
    return hashlib.sha256(given.encode()).hexdigest()[:9] if template.wants_short_ids else given


def _fold_system(messages: list[Told], template: ChatTemplate) -> list[Told]:
    system = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not system:
        return messages
    template.note("this chat template has no system role; system messages are put before the first user message")
    text = "\n\n".join(message["content"] for message in system)
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{text}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{**system[0], "role": "user", "content": text}, *rest]
