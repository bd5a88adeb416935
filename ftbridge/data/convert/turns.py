"""Chats, and the shapes of text and turns that become chats: prompt and completion, Alpaca, ShareGPT."""

from __future__ import annotations

import json
from typing import Any

from ftbridge.data.convert.fields import Document, Messages, ShapeError, UnknownKey
from ftbridge.data.convert.function_text import reply_in_text, results_in_text, tools_in_text
from ftbridge.data.convert.images import with_images
from ftbridge.data.convert.messages import ROLES, call_of, normal_messages, text_of
from ftbridge.data.convert.tools import read_tools

_CHAT_KEYS = ("messages", "tools", "parallel_tool_calls", "functions")


def read_chat(record: Document, unknown: list[UnknownKey]) -> Document:
    """A chat, as it is but for messages and tools that others write otherwise, and a system text beside them."""
    example = {key: record.pop(key) for key in _CHAT_KEYS if key in record}
    messages = normal_messages(example.get("messages"), "messages", unknown)
    messages = with_system_text(record, messages)
    with_images(record, [messages])
    example["messages"] = messages
    config = record.get("toolConfig", record.get("tool_config"))
    if isinstance(config, dict) and isinstance(config.get("tools"), list):
        record.pop("toolConfig", record.pop("tool_config", None))
        example["tools"] = config
    tools = example.get("tools")
    if tools is None or isinstance(tools, (str, dict)):
        example.pop("tools", None)
        tools = read_tools(tools)
        if tools:
            example["tools"] = tools
    elif isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools):
        example["tools"] = read_tools(tools)
    if isinstance(record.get("schemaVersion"), str):
        record.pop("schemaVersion")  # Bedrock's name for its own layout
    return example


def read_prompt_completion(record: Document, unknown: list[UnknownKey]) -> Document:
    """A prompt and its completion: text, or lists of messages."""
    messages = chat_turn(record.pop("prompt", None), "user", "prompt", unknown)
    messages = [*messages, *chat_turn(record.pop("completion", None), "assistant", "completion", unknown)]
    return with_system(record, messages)


def read_prompt(record: Document, unknown: list[UnknownKey]) -> Document:
    """A question without its answer, which is all that reinforcement needs."""
    return with_system(record, chat_turn(record.pop("prompt", None), "user", "prompt", unknown))


def chat_turn(value: Any, role: str, field: str, unknown: list[UnknownKey]) -> Messages:
    """Text as one message of a role, or the list of messages that is given. Raises `ShapeError`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, dict) and value.keys() & {"role", "from"}:
        value = [value]
    if (
        isinstance(value, list)
        and value
        and all(isinstance(one, dict) and one.keys() & {"role", "from"} for one in value)
    ):
        return normal_messages(value, field, unknown)
    raise ShapeError(f"{field} is {'missing' if value is None else 'neither text nor a list of messages'}")


def with_system_text(record: Document, messages: Messages) -> Messages:
    """Messages with the record's `system`, if it has one, as their first. Raises `ShapeError` where they have another."""
    system = record.pop("system", None)
    if system in (None, "", []):
        return messages
    text = text_of(system, "system")
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    if first.get("role") not in ("system", "developer"):
        return [{"role": "system", "content": text}, *messages] if text else messages
    if first.get("content") != text:
        raise ShapeError(
            "there is a system field, and the messages begin with another system message",
            hint="`ftbridge convert … --drop system` drops the field; in a spec, data.drop does.",
        )
    return messages


def with_system(record: Document, messages: Messages) -> Document:
    """The example of some messages, with the record's system text, tools and images."""
    messages = with_system_text(record, messages)
    with_images(record, [messages])
    example: Document = {"messages": messages}
    if tools := read_tools(record.pop("tools", None)):
        example["tools"] = tools
    return example


def read_alpaca(record: Document, unknown: list[UnknownKey]) -> Document:
    """An instruction with its input and output, after its history."""
    key = "output" if "output" in record else "response"
    messages = alpaca_prompt(record)
    output = record.pop(key, None)
    if not isinstance(output, str):
        raise ShapeError(f"{key} is missing or is not text")
    return with_system(record, [*messages, {"role": "assistant", "content": output}])


def alpaca_prompt(record: Document) -> Messages:
    """What an Alpaca record asks: its history, then its instruction with its input."""
    instruction = record.pop("instruction", None)
    if not isinstance(instruction, str):
        raise ShapeError("instruction is missing or is not text")
    more = record.pop("input", None)
    if more is not None and not isinstance(more, str):
        raise ShapeError("input is not text")
    messages: Messages = []
    history = record.pop("history", None)
    if history not in (None, "") and not isinstance(history, list):
        raise ShapeError("history is not a list of pairs")
    for turn in history or []:
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            raise ShapeError("history is not a list of pairs")
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    text = f"{instruction}\n\n{more}" if more and instruction else instruction or more or ""
    return [*messages, {"role": "user", "content": text}]


def read_sharegpt(record: Document, unknown: list[UnknownKey]) -> Document:
    """A conversation of ShareGPT, with its calls and observations."""
    messages = sharegpt_turns(record.pop("conversations", None), unknown)
    if record.get("tools") in (None, "", []) and messages[0].get("role") == "system":
        record["tools"] = tools_in_text(str(messages[0].get("content") or ""))
    return with_system(record, messages)


def sharegpt_turns(turns: Any, unknown: list[UnknownKey], at: str = "conversations") -> Messages:
    """Turns of ShareGPT as messages. Several calls in a row are calls of one message. Raises `ShapeError`."""
    if not isinstance(turns, list) or not turns:
        raise ShapeError(f"{at} is missing or empty")
    prepared: Messages = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise ShapeError(f"{at}[{index}] is not an object")
        who, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        role = ROLES.get(str(who).lower())
        if role is None:
            raise ShapeError(f"{at}[{index}].from is {who!r}, which is not a known role")
        rest = {key: value for key, value in turn.items() if key not in ("from", "role", "value", "content")}
        prepared += [{**message, **rest} for message in _turn(role, text, f"{at}[{index}]", rest)]
    messages = normal_messages(prepared, at, unknown)
    for index, message in enumerate(messages):
        if message["role"] == "tool" and not message.get("tool_call_id"):
            raise ShapeError(f"{at}[{index}] is a result without a call before it")
    return _joined_calls(messages)


def _turn(role: str, text: Any, path: str, rest: Document) -> Messages:
    """What one turn says, before its other keys are looked at."""
    if role == "function_call":
        reply = reply_in_text(text) if isinstance(text, str) else None
        if reply:
            return [{"role": "assistant", **reply}]
        calls = _calls(text, f"{path}.value")
        return [{"role": "assistant", "tool_calls": [{"type": "function", "function": call} for call in calls]}]
    if isinstance(text, (dict, list)) and role in ("user", "assistant", "tool"):
        return [{"role": role, "content": text}]
    if text is None and rest.get("tool_calls"):
        return [{"role": role}]
    if not isinstance(text, str):
        raise ShapeError(f"{path}.value is missing or is not text")
    if role == "assistant" and (reply := reply_in_text(text)):
        return [{"role": role, **reply}]
    if role == "tool":
        return [{"role": role, "content": result} for result in results_in_text(text)]
    return [{"role": role, "content": text}]


def _calls(text: Any, path: str) -> list[Document]:
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        value = text
    return [call_of(one, path) for one in (value if isinstance(value, list) and value else [value])]


def _joined_calls(messages: Messages) -> Messages:
    """Messages in which calls that follow each other, as LLaMA-Factory writes them, are of one message."""
    joined: Messages = []
    for message in messages:
        before = joined[-1] if joined else {}
        if _is_calls(message) and _is_calls(before) and before.get("weight") == message.get("weight"):
            joined[-1] = {**before, "tool_calls": [*before["tool_calls"], *message["tool_calls"]]}
        else:
            joined.append(message)
    return joined


def _is_calls(message: Document) -> bool:
    return bool(message.get("tool_calls")) and not message.get("content")
