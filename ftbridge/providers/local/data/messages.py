"""Examples' messages as one chat template wants them: roles it knows, calls in its form, ids it takes, its reasoning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ftbridge.data.examples import ChatExample, FunctionCall, Message
from ftbridge.data.notation import reasoning_of, split_reasoning
from ftbridge.providers.local.data.template import ChatTemplate, RenderError, TemplateMessage

NO_CALLS = "contains tool calls, which this model's chat template does not render"


def for_template(messages: Sequence[Message], template: ChatTemplate) -> list[TemplateMessage]:
    """Every message, with first system messages put into the first user's where the template has no system role.

    Reasoning is passed on only where `template.thinking`. Raises `RenderError` for content parts that are not text, calls that
    the template cannot write, and a later system message that it cannot write.
    """
    documents: list[TemplateMessage] = []
    call_id = None
    names: dict[str, str] = {}
    for index, message in enumerate(messages):
        one = _one(message, index, call_id, template)
        for call in one.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
        if one["role"] == "tool" and not one.get("name") and one.get("tool_call_id") in names:
            one["name"] = names[one["tool_call_id"]]
        documents.append(one)
        if message.function_call is not None:
            call_id = documents[-1]["tool_calls"][-1]["id"]
    return documents if template.takes_role("system") else _fold_system(documents, template)


def tools_of(example: ChatExample) -> list[dict[str, Any]] | None:
    """An example's tools, those written in the deprecated way as `functions` included."""
    if example.tools:
        return example.tools
    functions = example.extra.get("functions")
    functions_list = functions if isinstance(functions, list) else []
    return [
        {"type": "function", "function": function} for function in functions_list if isinstance(function, dict)
    ] or None


def _one(message: Message, index: int, function_call_id: str | None, template: ChatTemplate) -> TemplateMessage:
    """One message; a deprecated function message answers the function call before it."""
    role: str = message.role
    if role == "developer" and not template.takes_role("developer"):
        role = "system"
    for part in message.content if isinstance(message.content, list) else ():
        if part.type not in ("text", "refusal"):
            raise RenderError(
                f"messages[{index}].content has a part of type {part.type}: training on this machine reads text only"
            )
    one: TemplateMessage = {
        "role": "tool" if role == "function" else role,
        "content": message.text,
        "at": index,
        "trained": message.has_loss,
    }
    if message.role == "assistant":
        one |= _reasoned(message, template)
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
        if template.calls is None:
            raise RenderError(NO_CALLS)
        one["tool_calls"] = [
            {
                "id": _id(call or f"call_{index}_{number}", template),
                "type": "function",
                "function": _call(function, index, template.calls.arguments),
            }
            for number, (call, function) in enumerate(calls)
        ]
        one = template.calls.content(_planned(one, message, template))
    return one


def _planned(one: TemplateMessage, message: Message, template: ChatTemplate) -> TemplateMessage:
    """A message with calls: reasoning as a plan where the template takes one, and left out where it would write it nowhere."""
    reasoning, text = reasoning_of(message), split_reasoning(message.text)[1]
    if reasoning is None or not template.thinking:
        return one
    if template.takes_plans:
        return {**one, "content": text, "tool_plan": reasoning}
    inline = template.reasoning_key is None and one.get("content") != text
    return {**one, "content": text} if inline and not template.writes_text_beside_calls else one


def _reasoned(message: Message, template: ChatTemplate) -> TemplateMessage:
    """Text and reasoning where the template reads them; text alone where reasoning is off, or is not read."""
    reasoning, text = reasoning_of(message), split_reasoning(message.text)[1]
    inline = split_reasoning(message.text)[0] is not None
    if reasoning is None or not template.thinking:
        return {"content": text if inline and (template.notation.reasoning or reasoning is None) else message.text}
    if template.reasoning_key is not None:
        return {"content": text, template.reasoning_key: reasoning}
    if inline and template.writes_inline_reasoning and not template.notation.channels:
        return {"content": message.text}
    pair = template.notation.reasoning
    if pair is not None and template.names_reasoning and template.writes_inline_reasoning:
        return {"content": f"{pair[0].strip()}\n{reasoning}\n{pair[1].strip()}\n\n{text}"}
    return {"content": text}


def _call(function: FunctionCall, index: int, form: str) -> dict[str, Any]:
    arguments: Any = function.arguments
    if form == "object" and isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise RenderError(f"messages[{index}]: the arguments of {function.name} are not JSON ({error})") from None
    if form == "string" and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"name": function.name, "arguments": arguments}


def _id(call_id: str, template: ChatTemplate) -> str:
    """A call's id; nine letters and digits made of it where the template takes no others (Mistral's do not)."""
    short = template.calls is not None and template.calls.short_ids
    return hashlib.sha256(call_id.encode()).hexdigest()[:9] if short else call_id


def _fold_system(messages: list[TemplateMessage], template: ChatTemplate) -> list[TemplateMessage]:
    """First system messages at the head of the first user's. Raises `RenderError` for a later one."""
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    for message in messages[first:]:
        if message["role"] == "system":
            raise RenderError(
                f"messages[{message['at']}] is a system message in the middle, and this model's chat template has no system "
                "role: put it first, or make it a user message"
            )
    system, rest = messages[:first], messages[first:]
    if not system:
        return messages
    template.note("this chat template has no system role; system messages are put before the first user message")
    text = "\n\n".join(message["content"] for message in system)
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{text}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{**system[0], "role": "user", "content": text}, *rest]
