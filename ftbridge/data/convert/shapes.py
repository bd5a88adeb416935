"""What records mean, and the same in another shape: each pair of functions reads a shape into an example and writes it.

    shape               a record                                                        is an example for
    chat                {messages, tools?, …}, the last message the assistant's         supervised
    reinforcement       {messages, tools?, …}, the last message the user's              reinforcement
    preference          {input: {messages}, preferred_output, non_preferred_output}     dpo
    prompt_completion   {prompt, completion}: text, or lists of messages (TRL's)        supervised
    alpaca              {instruction, input?, output, system?, history?}                supervised
    sharegpt            {conversations: [{from, value}], system?, tools?}               supervised
    chosen_rejected     {prompt?, chosen, rejected}: text, or lists of messages (TRL's) dpo

Optional fields (system, tools, history, input) that are null or empty are as good as absent.

Sources: OpenAI's fine-tuning guides; TRL's documentation "Dataset formats and types"; Stanford Alpaca's README; the ShareGPT
and alpaca sections of LLaMA-Factory's data/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

from ftbridge.data.examples import Method

Shape = Literal["chat", "reinforcement", "preference", "prompt_completion", "alpaca", "sharegpt", "chosen_rejected"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

Document = dict[str, Any]
Messages = list[Document]

_ROLES = {
    "human": "user", "user": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "assistant": "assistant", "model": "assistant", "bing": "assistant", "bard": "assistant", "system": "system",
    "tool": "tool", "observation": "tool", "function_response": "tool", "function_call": "function_call",
}  # fmt: skip
METHODS: dict[Shape, Method] = {
    "preference": "dpo",
    "chosen_rejected": "dpo",
    "reinforcement": "reinforcement",
}
"""The method a shape holds examples for; supervised for the others."""

NATIVE: dict[Method, Shape] = {"supervised": "chat", "reinforcement": "reinforcement", "dpo": "preference"}
"""OpenAI's own shape for each method."""

_CHAT_KEYS = ("messages", "tools", "parallel_tool_calls", "functions")


class ShapeError(ValueError):
    """Why a record cannot be read in a shape, or written in one: "field sentence"."""


class WouldBeLost(ShapeError):
    """Fields that have no place where the record goes; only the caller may let them go, by these names."""

    def __init__(self, fields: Sequence[str], where: str, told: Sequence[str] = ()) -> None:
        super().__init__(f"{', '.join(told or fields)} would be lost: {where}")
        self.fields = tuple(fields)


class Read(NamedTuple):
    """An example in OpenAI's shape, and the record's fields that it does not hold."""

    example: Document
    left: Document


def detect(record: Document) -> Shape | None:
    """The shape of a record by the fields that tell it; None if it has those of none."""
    messages = record.get("messages")
    if isinstance(messages, list):
        last = messages[-1] if messages else None
        return "reinforcement" if isinstance(last, dict) and last.get("role") == "user" else "chat"
    if "preferred_output" in record or "non_preferred_output" in record:
        return "preference"
    if "chosen" in record or "rejected" in record:
        return "chosen_rejected"
    if isinstance(record.get("conversations"), list):
        return "sharegpt"
    if "instruction" in record:
        return "alpaca"
    return "prompt_completion" if "prompt" in record else None


def read(record: Document, shape: Shape, system: str | None = None, *, answered: bool = True) -> Read:
    """A record as an example. `system` is put before conversations that have no system message. Raises `ShapeError`.

    With `answered` false a prompt may come without its completion.
    """
    reader = _READERS[shape]
    if shape == "prompt_completion" and not answered and "completion" not in record:
        reader = _read_prompt
    given = dict(record)
    example = reader(given)
    if system is not None:
        holder = example.get("input", example)
        if not any(isinstance(one, dict) and one.get("role") in ("system", "developer") for one in holder["messages"]):
            holder["messages"] = [{"role": "system", "content": system}, *holder["messages"]]
    return Read(example, given)


def write(example: Document, shape: Shape) -> Document:
    """An example as a record. Raises `ShapeError` naming the field that the shape cannot hold."""
    return _WRITERS[shape](example)


# Reading: what is used is taken out of the record, and what is left is for the caller


def _read_chat(record: Document) -> Document:
    if not isinstance(record.get("messages"), list):
        raise ShapeError("messages is missing or no list")
    return {key: record.pop(key) for key in _CHAT_KEYS if key in record}


def _read_reinforcement(record: Document) -> Document:
    if not isinstance(record.get("messages"), list):
        raise ShapeError("messages is missing or no list")
    return {key: record.pop(key) for key in ("messages", "tools") if key in record}


def _read_preference(record: Document) -> Document:
    missing = [key for key in ("input", "preferred_output", "non_preferred_output") if key not in record]
    if missing:
        raise ShapeError(f"{missing[0]} is missing")
    if not isinstance(record["input"], dict) or not isinstance(record["input"].get("messages"), list):
        raise ShapeError("input.messages is missing or no list")
    return {key: record.pop(key) for key in ("input", "preferred_output", "non_preferred_output")}


def _read_prompt_completion(record: Document) -> Document:
    messages = [*_said(record.pop("prompt", None), "user", "prompt")]
    messages += _said(record.pop("completion", None), "assistant", "completion")
    return _with_system(record, messages)


def _read_prompt(record: Document) -> Document:
    """A question without its answer, which is all that reinforcement needs."""
    return _with_system(record, [*_said(record.pop("prompt", None), "user", "prompt")])


def _said(value: Any, role: str, field: str) -> Messages:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value and all(isinstance(message, dict) and "role" in message for message in value):
        return value
    raise ShapeError(f"{field} is {'missing' if value is None else 'neither text nor a list of messages'}")


def _with_system(record: Document, messages: Messages) -> Document:
    system = record.pop("system", None)
    if system not in (None, "") and not isinstance(system, str):
        raise ShapeError("system is no text")
    if system:
        messages = [{"role": "system", "content": system}, *messages]
    example: Document = {"messages": messages}
    if tools := _tools(record.pop("tools", None)):
        example["tools"] = tools
    return example


def _tools(value: Any) -> list[Document]:
    """Tools as OpenAI writes them, from a list or its JSON, with or without the wrapping."""
    if value in (None, "", []):
        return []
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ShapeError("tools is no JSON") from None
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise ShapeError("tools is no list of objects")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in given]


def _read_alpaca(record: Document) -> Document:
    asked = record.pop("instruction", None)
    if not isinstance(asked, str):
        raise ShapeError("instruction is missing or no text")
    more = record.pop("input", None)
    if more is not None and not isinstance(more, str):
        raise ShapeError("input is no text")
    key = "output" if "output" in record else "response"
    answer = record.pop(key, None)
    if not isinstance(answer, str):
        raise ShapeError(f"{key} is missing or no text")
    messages: Messages = []
    history = record.pop("history", None)
    if history not in (None, "") and not isinstance(history, list):
        raise ShapeError("history is no list of pairs")
    for turn in history or []:
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            raise ShapeError("history is no list of pairs")
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    text = f"{asked}\n\n{more}" if more and asked else asked or more or ""
    messages += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return _with_system(record, messages)


def _read_sharegpt(record: Document) -> Document:
    turns = record.pop("conversations", None)
    if not isinstance(turns, list) or not turns:
        raise ShapeError("conversations is missing or empty")
    messages: Messages = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise ShapeError(f"conversations[{index}] is no object")
        given = dict(turn)
        who, text = given.pop("from", given.pop("role", None)), given.pop("value", given.pop("content", None))
        weight = given.pop("weight", None)
        role = _ROLES.get(str(who).lower())
        if role is None:
            raise ShapeError(f"conversations[{index}].from is {who!r}, which is no known role")
        if given:
            raise ShapeError(f"conversations[{index}].{next(iter(given))} has no place in a message")
        messages.append(_turn(role, text, messages, index))
        if weight is not None and role == "assistant":
            messages[-1]["weight"] = int(weight) if weight in (0, 1) else weight
    return _with_system(record, messages)


def _turn(role: str, text: Any, before: Messages, index: int) -> Document:
    if role == "function_call":
        try:
            call = json.loads(text) if isinstance(text, str) else text
            arguments = call["arguments"]
            arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            function = {"name": call["name"], "arguments": arguments}
        except (ValueError, TypeError, KeyError):
            raise ShapeError(f"conversations[{index}].value is no call: an object with name and arguments") from None
        call_id = f"call_{index}"
        return {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
    if not isinstance(text, str):
        raise ShapeError(f"conversations[{index}].value is missing or no text")
    if role == "tool":
        calls = before[-1].get("tool_calls") if before else None
        if not calls:
            raise ShapeError(f"conversations[{index}] is a result that follows no call")
        return {"role": "tool", "tool_call_id": calls[-1]["id"], "content": text}
    return {"role": role, "content": text}


def _read_chosen_rejected(record: Document) -> Document:
    chosen = _said(record.pop("chosen", None), "assistant", "chosen")
    rejected = _said(record.pop("rejected", None), "assistant", "rejected")
    shared = _shared(chosen, rejected)
    messages = _said(record.pop("prompt"), "user", "prompt") if record.get("prompt") is not None else shared
    record.pop("prompt", None)
    if (
        shared and shared[-len(messages) :] == messages
    ):  # both answers repeat the prompt, perhaps after a system message
        messages, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    if not messages:
        raise ShapeError("prompt is missing, and chosen and rejected do not begin alike")
    if len(chosen) != 1 or len(rejected) != 1:
        raise ShapeError("chosen and rejected must each end in one message after the prompt")
    held = _with_system(record, messages)
    return {"input": held, "preferred_output": chosen, "non_preferred_output": rejected}


def _shared(chosen: Messages, rejected: Messages) -> Messages:
    """The messages that both begin with, the last of each aside."""
    most = min(len(chosen), len(rejected)) - 1
    differs = (index for index in range(most) if chosen[index] != rejected[index])
    return chosen[: next(differs, most)]


# Writing


def _as_is(example: Document) -> Document:
    return example


def _plain_turns(example: Document, shape: str) -> tuple[str | None, Messages]:
    """The system text and the other messages, if every message is only a role and text."""
    if "messages" not in example:
        raise ShapeError(f"input: a preference cannot be written as {shape}; use preference or chosen_rejected")
    if lost := [key for key in example if key != "messages"]:
        raise WouldBeLost(lost, f"{shape} has no place for it")
    messages = example["messages"]
    for index, message in enumerate(messages):
        if not isinstance(message.get("content"), str):
            raise ShapeError(f"messages[{index}].content is no plain text, and {shape} holds only that")
        if extra := [key for key in message if key not in ("role", "content")]:
            told = [f"messages[{index}].{key}" for key in extra]
            raise WouldBeLost([f"messages[].{key}" for key in extra], f"{shape} has no place for it", told)
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    if system == "" and shape != "sharegpt":
        raise ShapeError(f"messages[0].content is empty, and an empty system field of {shape} means that there is none")
    rest = messages[1:] if system is not None else messages
    for index, message in enumerate(rest, int(system is not None)):
        if message["role"] not in ("user", "assistant"):
            raise ShapeError(f"messages[{index}].role {message['role']} has no place in {shape}")
    return system, rest


def _alternating(rest: Messages, shape: str) -> None:
    wanted = ["user", "assistant"] * (len(rest) // 2)
    if not rest or [message["role"] for message in rest] != wanted:
        raise ShapeError(f"messages do not go user, assistant, …, as {shape} does")


def _write_prompt_completion(example: Document) -> Document:
    system, rest = _plain_turns(example, "prompt_completion")
    _alternating(rest, "prompt_completion")
    if len(rest) != 2:
        raise ShapeError("messages has more than one exchange, and prompt_completion holds one")
    head = {"system": system} if system is not None else {}
    return {**head, "prompt": rest[0]["content"], "completion": rest[1]["content"]}


def _write_alpaca(example: Document) -> Document:
    system, rest = _plain_turns(example, "alpaca")
    _alternating(rest, "alpaca")
    record: Document = {"instruction": rest[-2]["content"], "input": "", "output": rest[-1]["content"]}
    if system is not None:
        record["system"] = system
    if len(rest) > 2:
        record["history"] = [[rest[i]["content"], rest[i + 1]["content"]] for i in range(0, len(rest) - 2, 2)]
    return record


def _write_sharegpt(example: Document) -> Document:
    system, rest = _plain_turns(example, "sharegpt")
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[message["role"]], "value": message["content"]} for message in rest]
    head = [{"from": "system", "value": system}] if system is not None else []
    return {"conversations": [*head, *turns]}


def _write_chosen_rejected(example: Document) -> Document:
    if "input" not in example:
        raise ShapeError("messages: a chat has no rejected answer; chosen_rejected needs a preference")
    held = example["input"]
    lost = [key for key in example if key not in ("input", "preferred_output", "non_preferred_output")]
    if lost := [*lost, *(f"input.{key}" for key in held if key != "messages")]:
        raise WouldBeLost(lost, "chosen_rejected has no place for it")
    return {
        "prompt": held["messages"],
        "chosen": example["preferred_output"],
        "rejected": example["non_preferred_output"],
    }


_READERS: dict[Shape, Callable[[Document], Document]] = {
    "chat": _read_chat,
    "reinforcement": _read_reinforcement,
    "preference": _read_preference,
    "prompt_completion": _read_prompt_completion,
    "alpaca": _read_alpaca,
    "sharegpt": _read_sharegpt,
    "chosen_rejected": _read_chosen_rejected,
}
_WRITERS: dict[Shape, Callable[[Document], Document]] = {
    "chat": _as_is,
    "reinforcement": _as_is,
    "preference": _as_is,
    "prompt_completion": _write_prompt_completion,
    "alpaca": _write_alpaca,
    "sharegpt": _write_sharegpt,
    "chosen_rejected": _write_chosen_rejected,
}
