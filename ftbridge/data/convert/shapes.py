"""What records mean, and the same in another shape: each pair of functions reads a shape into an example and writes it.

    shape               a record                                                        is an example for
    chat                {messages, tools?, …}, the last message the assistant's         supervised
    reinforcement       {messages, tools?, …}, the last message the user's              reinforcement
    preference          {input: {messages}, preferred_output, non_preferred_output}     dpo
    prompt_completion   {prompt, completion}: text, or lists of messages (TRL's)        supervised
    alpaca              {instruction, input?, output, system?, history?}                supervised
    sharegpt            {conversations: [{from, value}], system?, tools?}               supervised
    chosen_rejected     {prompt?, chosen, rejected}: text, or lists of messages (TRL's) dpo
    kto                 an answer, and whether it was liked; read with --only-liked     supervised
    stored_completion   a request and its response, as APIs and logs keep them          supervised
    responses           {input, output}: items of OpenAI's Responses API                supervised
    gemini              {contents: [{role, parts}], systemInstruction?, tools?}         supervised
    function_text       function calls in texts: xLAM, Glaive                           supervised

The last five are only read. Optional fields (system, tools, history, input) that are null or empty are as good as absent.

Sources: OpenAI's fine-tuning guides; TRL's documentation "Dataset formats and types"; Stanford Alpaca's README; the ShareGPT
and alpaca sections of LLaMA-Factory's data/README.md; what `ftbridge.data.known_formats.FORMATS` names for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ftbridge.data.convert.exports import read_gemini, read_responses, read_stored_completion
from ftbridge.data.convert.fields import Document, Messages, ShapeError, UnknownKey, WouldBeLost
from ftbridge.data.convert.function_text import read_function_text
from ftbridge.data.convert.pairs import read_chosen_rejected, read_kto, read_preference
from ftbridge.data.convert.turns import (
    read_alpaca,
    read_chat,
    read_prompt,
    read_prompt_completion,
    read_sharegpt,
)
from ftbridge.data.examples import Method
from ftbridge.data.known_formats import SHAPES, Shape, format_of

__all__ = [
    "METHODS", "NATIVE", "SHAPES", "WRITABLE", "Document", "Messages", "Read", "Shape", "ShapeError", "WouldBeLost",
    "detect", "read", "write",
]  # fmt: skip

METHODS: dict[Shape, Method] = {
    "preference": "dpo",
    "chosen_rejected": "dpo",
    "reinforcement": "reinforcement",
}
"""The method a shape holds examples for; supervised for the others."""

NATIVE: dict[Method, Shape] = {"supervised": "chat", "reinforcement": "reinforcement", "dpo": "preference"}
"""OpenAI's own shape for each method."""


class Read(NamedTuple):
    """An example in OpenAI's shape, the record's fields that it does not hold, and keys of messages that none has."""

    example: Document
    left: Document
    unknown: list[UnknownKey]


def detect(record: Document) -> Shape | None:
    """The shape of a record by the fields that tell it; None if it has those of none."""
    detection = format_of(record)
    return detection.shape if detection else None


def read(
    record: Document, shape: Shape, system: str | None = None, *, with_completion: bool = True, only_liked: bool = False
) -> Read:
    """A record as an example. `system` is put before conversations that have no system message. Raises `ShapeError`.

    With `answered` false a prompt may come without its completion. Answers of KTO data are read with `only_liked`, and
    `LeftOut` is raised for those that were not liked.
    """
    left, unknown = dict(record), list[UnknownKey]()
    if shape == "kto":
        example = read_kto(left, unknown, only_liked)
    elif shape == "prompt_completion" and not with_completion and "completion" not in record:
        example = read_prompt(left, unknown)
    else:
        example = _READERS[shape](left, unknown)
    if system is not None:
        holder = example.get("input", example)
        if not any(isinstance(one, dict) and one.get("role") in ("system", "developer") for one in holder["messages"]):
            holder["messages"] = [{"role": "system", "content": system}, *holder["messages"]]
    return Read(example, left, unknown)


def write(example: Document, shape: Shape) -> Document:
    """An example as a record. Raises `ShapeError` naming the field that the shape cannot hold."""
    if shape not in _WRITERS:
        raise ShapeError(f"{shape} can only be read; write examples as {', '.join(_WRITERS)}", once=True)
    return _WRITERS[shape](example)


# Writing


def _as_is(example: Document) -> Document:
    return example


def _plain_turns(example: Document, shape: str) -> tuple[str | None, Messages]:
    """The system text and the other messages, if every message is only a role and text."""
    if "messages" not in example:
        raise ShapeError(f"input: a preference cannot be written as {shape}; use preference or chosen_rejected")
    if lost := [key for key in example if key != "messages"]:
        raise WouldBeLost(lost, f"{shape} cannot hold it")
    messages = example["messages"]
    for index, message in enumerate(messages):
        if not isinstance(message.get("content"), str):
            raise ShapeError(f"messages[{index}].content is not plain text, and {shape} contains only that")
        if extra := [key for key in message if key not in ("role", "content")]:
            dropped = [f"messages[{index}].{key}" for key in extra]
            raise WouldBeLost([f"messages[].{key}" for key in extra], f"{shape} cannot hold it", dropped)
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    if system == "" and shape != "sharegpt":
        raise ShapeError(f"messages[0].content is empty, and an empty system field of {shape} means that there is none")
    rest = messages[1:] if system is not None else messages
    for index, message in enumerate(rest, int(system is not None)):
        if message["role"] not in ("user", "assistant"):
            raise ShapeError(f"messages[{index}].role {message['role']} does not fit into {shape}")
    return system, rest


def _alternating(rest: Messages, shape: str) -> None:
    wanted = ["user", "assistant"] * (len(rest) // 2)
    if not rest or [message["role"] for message in rest] != wanted:
        raise ShapeError(f"messages do not go user, assistant, …, as {shape} does")


def _write_prompt_completion(example: Document) -> Document:
    system, rest = _plain_turns(example, "prompt_completion")
    _alternating(rest, "prompt_completion")
    if len(rest) != 2:
        raise ShapeError("messages has more than one exchange, but prompt_completion holds one")
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
        raise ShapeError("messages: a chat has no rejected completion; chosen_rejected needs a preference")
    held = example["input"]
    lost = [key for key in example if key not in ("input", "preferred_output", "non_preferred_output")]
    if lost := [*lost, *(f"input.{key}" for key in held if key != "messages")]:
        raise WouldBeLost(lost, "chosen_rejected cannot hold it")
    return {
        "prompt": held["messages"],
        "chosen": example["preferred_output"],
        "rejected": example["non_preferred_output"],
    }


_READERS: dict[Shape, Callable[[Document, list[UnknownKey]], Document]] = {
    "chat": read_chat,
    "reinforcement": read_chat,
    "preference": read_preference,
    "prompt_completion": read_prompt_completion,
    "alpaca": read_alpaca,
    "sharegpt": read_sharegpt,
    "chosen_rejected": read_chosen_rejected,
    "stored_completion": read_stored_completion,
    "responses": read_responses,
    "gemini": read_gemini,
    "function_text": lambda record, _: read_function_text(record),
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
WRITABLE: tuple[Shape, ...] = tuple(_WRITERS)
"""Shapes that examples are written in; the others are only read."""
