"""POST /responses: its body, and the chat that it comes to. One engine answers both.

    instructions ─▶ a system message        items ─▶ messages        previous_response_id ─▶ the messages before

A setting that changes the answer and that nothing here acts on is refused, as in /chat/completions.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from ftbridge.server.http.errors import invalid
from ftbridge.server.http.validation import Metadata, RequestBody, understood
from ftbridge.server.requests.chat import CreateChat

Message = dict[str, Any]


class TextFormat(RequestBody):
    """text, any JSON object, or JSON of a schema, which stands here beside its name."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class Text(RequestBody):
    """What the answer's text is like."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class CreateResponse(RequestBody):
    """The body."""

    model: str = Field(min_length=1)
    input: str | list[dict[str, Any]] = ""
    instructions: str | list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    reasoning: dict[str, Any] | None = None
    metadata: Metadata | None = None

    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    context_management: list[dict[str, Any]] | None = None
    moderation: dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    include: list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None


_CANNOT: dict[str, tuple[Any, ...]] = {
    "background": (None, False),
    "conversation": (None,),
    "prompt": (None,),
    "context_management": (None, []),
    "moderation": (None,),
    "truncation": (None, "disabled"),
}


LOGPROBS = "message.output_text.logprobs"
"""What `include` names to have the log probabilities of a text's tokens; `top_logprobs` alone asks for them too."""


def to_chat(response_request: CreateResponse, before: list[Message]) -> tuple[CreateChat, list[Message]]:
    """The chat to answer, and its messages without the instructions, which do not outlive their request.

    `before` are the messages of the response that this one goes on from. Raises `ApiError` 400.
    """
    for field, neutral in _CANNOT.items():
        if getattr(response_request, field) not in neutral:
            text = f"'{field}' is not supported here; leave it out."
            raise invalid(text, field, "unsupported_parameter")
    effort = (response_request.reasoning or {}).get("effort")
    if effort is not None and not isinstance(effort, str):
        raise invalid("'reasoning.effort' must be text.", "reasoning.effort", "invalid_type")
    scored = bool(response_request.top_logprobs) or LOGPROBS in (response_request.include or [])
    messages = [*before, *to_messages(response_request.input, "input")]
    if not messages:
        raise invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    leading: list[Message] = []
    if isinstance(response_request.instructions, str) and response_request.instructions:
        leading = [{"role": "system", "content": response_request.instructions}]
    elif isinstance(response_request.instructions, list):
        leading = to_messages(response_request.instructions, "instructions")
    chat = {
        "model": response_request.model,
        "messages": _one_system([*leading, *messages]),
        "max_completion_tokens": response_request.max_output_tokens,
        "temperature": response_request.temperature,
        "top_p": response_request.top_p,
        "tools": [_tool(tool, index) for index, tool in enumerate(response_request.tools or [])] or None,
        "tool_choice": response_request.tool_choice if response_request.tools else None,
        "parallel_tool_calls": response_request.parallel_tool_calls,
        "logprobs": True if scored else None,
        "top_logprobs": response_request.top_logprobs or 0 if scored else None,
        "response_format": _format(response_request.text.format if response_request.text else None),
        "reasoning_effort": effort,
        "verbosity": response_request.text.verbosity if response_request.text else None,
    }
    return understood({key: value for key, value in chat.items() if value is not None}, CreateChat), messages


def _one_system(messages: list[Message]) -> list[Message]:
    """Instructions before a system message of the input make one with it: many templates take one, and first."""
    if len(messages) > 1 and all(message["role"] in ("system", "developer") for message in messages[:2]):
        texts = [message["content"] for message in messages[:2]]
        if all(isinstance(text, str) for text in texts):
            return [{**messages[0], "content": "\n\n".join(texts)}, *messages[2:]]
    return messages


def to_messages(items: str | list[dict[str, Any]], where: str) -> list[Message]:
    """The messages of an input: text, messages, calls and their results; reasoning goes with the answer that follows it."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}] if items else []
    messages: list[Message] = []
    thought = ""
    for index, item in enumerate(items):
        at, kind = f"{where}[{index}]", item.get("type", "message")
        if kind == "message":
            message = {"role": item.get("role"), "content": _content(item.get("content"), f"{at}.content")}
        elif kind == "function_call":
            call = _call(item, at)
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
                continue
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        elif kind == "function_call_output":
            output = item.get("output")
            text = output if isinstance(output, str) else _content(output, f"{at}.output")
            message = {"role": "tool", "tool_call_id": item.get("call_id"), "content": text}
        elif kind == "reasoning":
            parts = item.get("content") or []
            thought = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
            continue
        else:
            raise invalid(
                f"'{at}' is of the type {str(kind)[:40]!r}, which is not known here.", at, "unsupported_parameter"
            )
        if thought and message["role"] == "assistant":
            message["reasoning_content"] = thought
        thought = ""
        messages.append(message)
    return messages


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    parts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text", "text", "summary_text"):
            parts.append(str(part.get("text", "")))
        elif kind == "refusal":
            parts.append(str(part.get("refusal", "")))
        else:
            at = f"{where}[{index}]"
            raise invalid(f"'{at}' is not text, and only text is read here.", at, "unsupported_parameter")
    return "".join(parts)


def _call(item: dict[str, Any], at: str) -> dict[str, Any]:
    name, call_id, arguments = item.get("name"), item.get("call_id"), item.get("arguments", "{}")
    if not isinstance(name, str) or not isinstance(call_id, str):
        missing = "name" if not isinstance(name, str) else "call_id"
        raise invalid(f"Missing required parameter: '{at}.{missing}'.", f"{at}.{missing}", "missing_required_parameter")
    arguments_text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments_text}}


def _tool(tool: dict[str, Any], index: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        at = f"tools[{index}]"
        kind = str(tool.get("type"))[:40]
        raise invalid(
            f"'{at}' is {kind!r}, which runs at a service; only functions can be called here.",
            at,
            "unsupported_parameter",
        )
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _format(text_format: TextFormat | None) -> dict[str, Any] | None:
    if text_format is None or text_format.type != "json_schema":
        return None if text_format is None else {"type": text_format.type}
    shape = {"name": text_format.name or "answer", "schema": text_format.schema_, "strict": text_format.strict}
    return {"type": "json_schema", "json_schema": {key: value for key, value in shape.items() if value is not None}}
