"""Messages as OpenAI writes them, from what other vendors and tools write: roles, parts, calls, results, flags of training.

    in a message                                                    becomes
    role human, gpt, model, bot, Chatbot, …; from, author           role user, assistant, system, tool
    content {text}, {type: input_text}, {type: text, value}         a part of type text
    content {type: tool_use}, {toolUse}, {type: thinking}           tool_calls, reasoning_content   (Anthropic, Bedrock)
    content {type: tool_result}, {toolResult}                       a message of role tool
    arguments as an object, calls without ids                       JSON text, ids; results find their calls by name or order
    train, trainable, loss, loss_weight, …: true or false           weight 1 or 0, of assistant messages

What is not in the table is reported as unknown by its path. Sources: the message objects of OpenAI's API reference, Anthropic's
Messages API, Amazon Bedrock's Converse API, Cohere's chat API; Axolotl's and ms-swift's pages on training flags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ftbridge.data.convert.fields import Document, Messages, ShapeError, UnknownKey, WouldBeLost

ROLES = {
    "human": "user", "user": "user", "prompter": "user", "customer": "user", "gpt": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "assistant": "assistant", "model": "assistant", "bing": "assistant", "bard": "assistant",
    "chatbot": "assistant", "ai": "assistant", "claude": "assistant", "system": "system", "developer": "developer",
    "tool": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool", "ipython": "tool",
    "function": "function", "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
"""What roles are called, in small letters; function_call is a message that is a call."""

_KEYS = frozenset(
    {"role", "content", "name", "weight", "refusal", "tool_calls", "tool_call_id", "function_call", "reasoning_content"}
    | {"audio", "reasoning", "thinking"}
)  # fmt: skip
_OTHER_NAMES = {"role": ("from", "author", "speaker"), "content": ("value", "text", "message")}
_FLAGS = ("train", "training", "trainable", "train_on_turn", "loss", "loss_weight")
_OF_TRAINING = frozenset({*_FLAGS, "weight", "train_detail", "loss_mask", "mask", "segments", "masked"})
_PART_KEYS = {
    "text": {"type", "text"},
    "refusal": {"type", "refusal"},
    "image_url": {"type", "image_url"},
    "input_audio": {"type", "input_audio"},
    "file": {"type", "file"},
    "image": {"type", "image"},
}
_TEXT_TYPES = ("text", "input_text", "output_text")
_EMPTY: tuple[Any, ...] = (None, [], {})
_CACHING = ("cache_control", "cachePoint")


def normal_messages(turns: object, at: str, unknown: list[UnknownKey]) -> Messages:
    """A list of messages as OpenAI writes them; `at` is its place in the record. What is not a message stays as it is.

    Keys that no message has stay too, and are added to `unknown`. Raises `ShapeError`.
    """
    if not isinstance(turns, list):
        raise ShapeError(f"{at} is missing or is not a list")
    messages: Messages = []
    calls = _Calls()
    for index, turn in enumerate(turns):
        if isinstance(turn, dict):
            for message in _message(dict(turn), at, index, unknown):
                calls.settle(message, index)
                messages.append(message)
        else:
            messages.append(turn)
    return messages


def call_of(value: Any, at: str) -> Document:
    """A function as tool_calls has it, from an object (or its JSON text) with a name and arguments. Raises `ShapeError`."""
    try:
        call = json.loads(value) if isinstance(value, str) else value
        call = call.get("function", call) if isinstance(call.get("function", None), dict) else call
        name = call["name"]
        arguments = call.get("arguments", call.get("parameters", call.get("input", call.get("args"))))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ShapeError(f"{at} is not a call: an object with name and arguments") from None
    if not isinstance(name, str):
        raise ShapeError(f"{at} is not a call: an object with name and arguments")
    return {"name": name, "arguments": as_text({} if arguments is None else arguments)}


def as_text(value: Any) -> str:
    """Text as it is, and anything else as its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def text_of(value: Any, at: str) -> str:
    """The text of a string or a list of text parts, as system prompts and results are. Raises `ShapeError`."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        value = value["parts"]
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    if isinstance(value, list) and all(isinstance(one, str) or isinstance(_text(one), str) for one in value):
        return "".join(one if isinstance(one, str) else str(_text(one)) for one in value)
    raise ShapeError(f"{at} is not text")


def _text(part: Any) -> Any:
    return part.get("text", part.get("value")) if isinstance(part, dict) else None


# One message


def _message(message: Document, at: str, index: int, unknown: list[UnknownKey]) -> Iterator[Document]:
    """The messages that one turn becomes: results of tools in a user's turn come before its text."""
    path = f"{at}[{index}]"
    for name, others in _OTHER_NAMES.items():
        if other := next((other for other in others if other in message and message.get(name) is None), None):
            message[name] = message.pop(other)
    role = message.get("role")
    if isinstance(role, str) and (known_role := ROLES.get(role.lower())) not in (None, "function_call"):
        message["role"] = known_role
    _flags(message, at, path)
    if isinstance(message.get("tool_calls"), str):
        message["tool_calls"] = _json(message["tool_calls"], f"{path}.tool_calls")
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [
            _call(call, f"{path}.tool_calls[{number}]", f"{at}[].tool_calls[]", unknown)
            for number, call in enumerate(message["tool_calls"])
        ]
    if isinstance(message.get("function_call"), dict) and isinstance(message["function_call"].get("arguments"), dict):
        message["function_call"] = call_of(message["function_call"], f"{path}.function_call")
    if message.get("role") == "tool" and isinstance(message.get("content"), dict):
        message["content"] = as_text(message["content"])
    results: Messages = []
    if isinstance(message.get("content"), list):
        results = _parts(message, at, path, unknown)
    for key in [key for key in message if key not in _KEYS]:
        if message[key] in _EMPTY or key in _CACHING:
            del message[key]
        else:
            unknown.append(UnknownKey(f"{at}[].{key}", f"{path}.{key}", key in _OF_TRAINING))
    yield from results
    if not results or message.get("content") or message.get("tool_calls"):
        yield message


def _flags(message: Document, at: str, path: str) -> None:
    """Flags of training as `weight`, and off what is never trained."""
    names = [name for name in (*_FLAGS, "weight") if name in message]
    weights: dict[int, str] = {}
    for name in names:
        value = message[name]
        if value is None:
            del message[name]
            continue
        weight = _weight(value)
        if weight is None:
            if name != "weight":
                raise WouldBeLost(
                    [f"{at}[].{name}"],
                    "a message is trained (weight 1) or not (weight 0)",
                    [f"{path}.{name} {value!r}"],
                )
            continue
        if message.get("role") == "assistant":
            weights.setdefault(weight, name)
            del message[name]
        elif weight == 0:
            del message[name]
        elif name != "weight":
            raise WouldBeLost([f"{at}[].{name}"], "only assistant messages are trained", [f"{path}.{name}"])
    if len(weights) > 1:
        raise ShapeError(f"{path} is trained according to {weights[1]} but not according to {weights[0]}")
    for weight in weights:
        message["weight"] = weight


def _weight(value: Any) -> int | None:
    if isinstance(value, str):
        value = {"true": 1, "false": 0, "1": 1, "0": 0}.get(value.strip().lower())
    return int(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def _call(call: Any, path: str, at: str, unknown: list[UnknownKey]) -> Any:
    if not isinstance(call, dict):
        return call
    call = dict(call)
    if not isinstance(call.get("function"), dict):
        if not isinstance(call.get("name"), str):
            return call
        call = {
            **{key: value for key, value in call.items() if key in ("id", "type", "index")},
            "function": call_of(call, path),
        }
    elif isinstance(call["function"].get("arguments"), (dict, type(None))) and "name" in call["function"]:
        call["function"] = {**call["function"], **call_of(call, path)}
    call.setdefault("type", "function")
    for key in [key for key in call if key not in ("id", "type", "function")]:
        if call[key] in _EMPTY or key == "index":
            del call[key]
        else:
            unknown.append(UnknownKey(f"{at}.{key}", f"{path}.{key}"))
    return call


def _json(text: str, path: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        raise ShapeError(f"{path} is not JSON") from None


# Parts


def _parts(message: Document, at: str, path: str, unknown: list[UnknownKey]) -> Messages:
    """Put a message's parts in OpenAI's form; the results of tools among them, as messages of their own."""
    parts: list[Any] = []
    calls, results, thoughts = [], [], list[str]()
    untyped = False
    for number, entry in enumerate(message["content"]):
        part_path = f"{path}.content[{number}]"
        part: Any = {"type": "text", "text": entry} if isinstance(entry, str) else entry
        if not isinstance(part, dict):
            parts.append(part)
            continue
        part = {key: value for key, value in part.items() if key not in _CACHING}
        if not part:
            continue
        untyped = untyped or "type" not in part
        if (call := part.get("toolUse")) or part.get("type") == "tool_use":
            use = call if isinstance(call, dict) else part
            calls.append(
                {"id": use.get("toolUseId", use.get("id")), "type": "function", "function": call_of(use, part_path)}
            )
        elif (result := part.get("toolResult")) or part.get("type") == "tool_result":
            results.append(_result(result if isinstance(result, dict) else part, part_path))
        elif part.get("type") == "thinking":
            thoughts.append(str(part.get("thinking", "")))
        elif isinstance(part.get("reasoningContent"), dict):
            thoughts.append(text_of(part["reasoningContent"].get("reasoningText"), f"{part_path}.reasoningContent"))
        else:
            parts.append(_part(part, f"{at}[].content[]", part_path, unknown))
    one_text = untyped and len(parts) == 1 and isinstance(parts[0], dict) and parts[0].get("type") == "text"
    message["content"] = parts[0]["text"] if one_text else parts
    if calls:
        message["tool_calls"] = [*(message.get("tool_calls") or []), *calls]
    if (calls or results) and not parts:
        message["content"] = None
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    return results


def _part(part: Document, at: str, part_path: str, unknown: list[UnknownKey]) -> Document:
    kind = part.get("type")
    if kind in _TEXT_TYPES or (kind is None and "text" in part):
        part = {**part, "type": "text"}
        if part.get("text") is None and "value" in part:
            part["text"] = part.pop("value")
    elif kind == "image" and isinstance(part.get("source"), dict):
        part = {"type": "image_url", "image_url": {"url": _source(part["source"], part_path)}}
    elif kind in ("image_url", "input_image") and isinstance(part.get("image_url"), str):
        part = {**part, "type": "image_url", "image_url": {"url": part["image_url"]}}
        if isinstance(detail := part.pop("detail", None), str):
            part["image_url"]["detail"] = detail
    elif kind not in _PART_KEYS:
        named = f"type {kind}" if kind else f"the fields {', '.join(part)}"
        raise ShapeError(f"{part_path} has {named}; a part is a text, an image_url, a refusal, input_audio or a file")
    for key in [key for key in part if key not in _PART_KEYS[part["type"]]]:
        if part[key] in _EMPTY:
            del part[key]
        else:
            unknown.append(UnknownKey(f"{at}.{key}", f"{part_path}.{key}", key in _OF_TRAINING))
    return part


def _source(source: Document, part_path: str) -> str:
    if source.get("type") == "base64" and isinstance(source.get("data"), str):
        return f"data:{source.get('media_type', 'image/png')};base64,{source['data']}"
    if isinstance(source.get("url"), str):
        return str(source["url"])
    raise ShapeError(f"{part_path}.source contains no address and no base64 data")


def _result(result: Document, part_path: str) -> Document:
    content = result.get("content")
    if isinstance(content, list):
        texts = [as_text(one["json"]) if isinstance(one, dict) and "json" in one else one for one in content]
        content = text_of(texts, f"{part_path}.content")
    message: Document = {"role": "tool", "content": "" if content is None else as_text(content)}
    if call_id := result.get("toolUseId", result.get("tool_use_id")):
        message["tool_call_id"] = call_id
    return message


# Which result is of which call


class _Calls:
    """The calls that wait for their results."""

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []
        self._go_on = False  # calls may follow in the next message

    def settle(self, message: Document, index: int) -> None:
        """Give calls ids, and results the id of their call: by its name where the result has one, else the first."""
        if isinstance(message.get("tool_calls"), list):
            if not self._go_on:
                self._open = []
            self._go_on = True
            for number, call in enumerate(message["tool_calls"]):
                if not isinstance(call, dict):
                    continue
                if not call.get("id"):
                    call = {"id": f"call_{index}" + (f"_{number}" if number else ""), **_without_id(call)}
                    message["tool_calls"][number] = call
                function = call.get("function")
                name = function.get("name") if isinstance(function, dict) else ""
                self._open.append((str(call["id"]), str(name)))
            return
        self._go_on = False
        if message.get("role") == "tool":
            self._answer(message)
        elif message.get("role") == "user":
            self._open = []

    def _answer(self, message: Document) -> None:
        call_id, name = message.get("tool_call_id"), message.get("name")
        if call_id:
            match = next((one for one in self._open if one[0] == call_id), None)
        else:
            named = [one for one in self._open if one[1] == name]
            match = named[0] if named else (self._open[0] if self._open and name is None else None)
            if match:
                message["tool_call_id"] = match[0]
        if match:
            self._open.remove(match)
            if name == match[1]:
                del message["name"]


def _without_id(call: Document) -> Document:
    return {key: value for key, value in call.items() if key != "id"}
