"""Preferences, and answers that were liked or not.

{prompt, chosen, rejected}           text or messages; the answers may repeat the prompt            TRL
{chosen, rejected}                   "Human: … Assistant: …" in both                    Anthropic's HH-RLHF
{conversations, chosen, rejected}    the answers one {from, value} each                             LLaMA-Factory
{instruction, input, chosen, rejected}                                                              LLaMA-Factory
{messages, rejected_response}        the last message is the better answer                          ms-swift
{contents, completions: [{score, completion}]}                                                      Vertex AI
{prompt, completion, label}, …       KTO: an answer, and whether it was liked                       TRL, LLaMA-Factory
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ftbridge.data.convert.exports import gemini_messages, gemini_system_and_tools
from ftbridge.data.convert.fields import Document, LeftOut, Messages, ShapeError, UnknownKey
from ftbridge.data.convert.images import with_images
from ftbridge.data.convert.messages import normal_messages
from ftbridge.data.convert.turns import (
    alpaca_prompt,
    chat_turn,
    read_alpaca,
    read_chat,
    read_prompt_completion,
    read_sharegpt,
    sharegpt_turns,
    with_system,
    with_system_text,
)
from ftbridge.data.known_formats import is_liked, kto_field

_SPEAKER = re.compile(r"(?:^|\n\n)\s*(Human|Assistant|System):[ ]?")


def read_preference(record: Document, unknown: list[UnknownKey]) -> Document:
    """OpenAI's own preferences, with their messages as OpenAI writes them."""
    missing = [key for key in ("input", "preferred_output", "non_preferred_output") if key not in record]
    if missing:
        raise ShapeError(f"{missing[0]} is missing")
    if not isinstance(record["input"], dict) or not isinstance(record["input"].get("messages"), list):
        raise ShapeError("input.messages is missing or is not a list")
    held = dict(record.pop("input"))
    held["messages"] = normal_messages(held["messages"], "input.messages", unknown)
    held["messages"] = with_system_text(held, held["messages"])
    for key in [key for key in held if key not in ("messages", "tools", "parallel_tool_calls")]:
        if held[key] is None:
            del held[key]
        else:
            unknown.append(UnknownKey(f"input.{key}", f"input.{key}"))
    example: Document = {"input": held}
    for key in ("preferred_output", "non_preferred_output"):
        value = record.pop(key)
        value = [{"role": "assistant", "content": value}] if isinstance(value, str) else value
        example[key] = normal_messages(value, key, unknown) if isinstance(value, list) else value
    return example


def read_chosen_rejected(record: Document, unknown: list[UnknownKey]) -> Document:
    """A preference in any of the ways above. Raises `ShapeError`."""
    if isinstance(record.get("contents"), list):
        return _vertex(record)
    if "rejected_response" in record or "rejected_messages" in record:
        return _last_is_better(record, unknown)
    chosen, rejected = (_answer(record.pop(name, None), name, unknown) for name in ("chosen", "rejected"))
    shared = _shared(chosen, rejected)
    messages = _prompt(record, unknown) or shared
    if shared and shared[-len(messages) :] == messages:
        # both answers repeat the prompt, perhaps after a system message
        messages, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    if not messages:
        raise ShapeError("prompt is missing, and chosen and rejected do not have the same beginning")
    if len(chosen) != 1 or len(rejected) != 1:
        raise ShapeError("chosen and rejected must each end in one message after the prompt")
    return {"input": with_system(record, messages), "preferred_output": chosen, "non_preferred_output": rejected}


def _prompt(record: Document, unknown: list[UnknownKey]) -> Messages:
    """What both answers reply to; empty where the record has no such field."""
    if isinstance(record.get("conversations"), list):
        return sharegpt_turns(record.pop("conversations"), unknown)
    if isinstance(record.get("messages"), list) and record.get("prompt") is None:
        return normal_messages(record.pop("messages"), "messages", unknown)
    if record.get("prompt") is not None:
        prompt = record.pop("prompt")
        if isinstance(prompt, str) and (turns := dialogue(prompt)):
            if turns[-1] == {"role": "assistant", "content": ""}:
                turns.pop()
            return turns
        return chat_turn(prompt, "user", "prompt", unknown)
    record.pop("prompt", None)
    return alpaca_prompt(record) if isinstance(record.get("instruction"), str) else []


def _answer(value: Any, field: str, unknown: list[UnknownKey]) -> Messages:
    if isinstance(value, str) and (turns := dialogue(value)):
        return turns
    return chat_turn(value, "assistant", field, unknown)


def dialogue(text: str) -> Messages | None:
    """A text of HH-RLHF as messages; None for a text that does not begin with a speaker.

    An empty last turn of the assistant, where the answer is to follow, stays.
    """
    if not re.match(r"\s*(Human|Assistant|System):", text):
        return None
    pieces = _SPEAKER.split(text)
    roles = {"Human": "user", "Assistant": "assistant", "System": "system"}
    turns = [
        {"role": roles[speaker], "content": turn.strip()}
        for speaker, turn in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    return turns if any(turn["role"] == "user" for turn in turns) else None


def _shared(chosen: Messages, rejected: Messages) -> Messages:
    """The messages that both begin with, the last of each aside."""
    most = min(len(chosen), len(rejected)) - 1
    differs = (index for index in range(most) if chosen[index] != rejected[index])
    return chosen[: next(differs, most)]


def _last_is_better(record: Document, unknown: list[UnknownKey]) -> Document:
    name = "rejected_response" if "rejected_response" in record else "rejected_messages"
    rejected = chat_turn(record.pop(name), "assistant", name, unknown)
    messages = normal_messages(record.pop("messages", None), "messages", unknown)
    chosen = messages[-1:]
    if not chosen or chosen[0].get("role") != "assistant":
        raise ShapeError(f"messages do not end with the assistant's completion that is better than {name}")
    if len(rejected) > 1:
        rejected = rejected[-1:] if rejected[:-1] == messages[:-1] else rejected
    if len(rejected) != 1:
        raise ShapeError(f"{name} is not one completion of the messages before the last")
    with_images(record, [messages])
    return {"input": with_system(record, messages[:-1]), "preferred_output": chosen, "non_preferred_output": rejected}


def _vertex(record: Document) -> Document:
    completions = record.pop("completions", None)
    if not isinstance(completions, list) or len(completions) != 2:
        raise ShapeError("completions is not a list of two; a preference has a better and a worse completion")
    try:
        worse, better = sorted(completions, key=lambda one: float(one["score"]))
        if worse["score"] == better["score"]:
            raise ShapeError("completions have the same score; one must be better")
        completion_messages = [
            gemini_messages([one["completion"]], f"completions[{index}].completion")
            for index, one in enumerate((better, worse))
        ]
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, ShapeError):
            raise
        raise ShapeError("completions are not objects with a completion and a score") from None
    messages = gemini_messages(record.pop("contents"), "contents")
    held = gemini_system_and_tools(record, messages)
    return {"input": held, "preferred_output": completion_messages[0], "non_preferred_output": completion_messages[1]}


# KTO


def read_kto(record: Document, unknown: list[UnknownKey], only_liked: bool) -> Document:
    """An answer that was liked, as a chat; `LeftOut` for one that was not. Raises `ShapeError` without `only_liked`."""
    field = kto_field(record) or "label"
    liked = record.pop(field, None)
    if not only_liked:
        raise ShapeError(
            f"is KTO data: {field} marks completions as good or bad, but training on a chat teaches its completion",
            once=True,
            hint="`ftbridge convert … --only-liked` writes the completions that were liked as chats, and leaves out the "
            f"others. If {field} means something else, use `--from chat` (or another format) with `--drop {field}`.",
        )
    if not is_liked(liked):
        raise LeftOut(f"{field} is {liked}")
    reader: Callable[[Document, list[UnknownKey]], Document] = read_prompt_completion
    if "messages" in record:
        reader = read_chat
    elif "conversations" in record:
        reader = read_sharegpt
    elif "instruction" in record:
        reader = read_alpaca
    if reader is read_prompt_completion and "completion" not in record:
        completion_key = next((name for name in ("response", "output", "answer") if name in record), None)
        if completion_key:
            record["completion"] = record.pop(completion_key)
    return reader(record, unknown)
