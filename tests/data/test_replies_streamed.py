"""A completion that is read while it comes is what the evaluator's reader makes of the whole, however it is cut."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge.data.notation import Notation, notation_of, read_reply
from ftbridge.providers.local.inference.channels import reader_of
from ftbridge.providers.local.inference.replies import Parts
from support.call_notations import FAMILIES, TOOLS

SIZES = (1, 2, 5, 16, 10_000)
THINKS = "<think> {{ content.split('</think>') }}"


def streamed(text: str, notation: Notation, tools: list[dict[str, Any]], size: int, **how: Any) -> tuple[str, Parts]:
    """What is told before the end, and all that is told."""
    reader = reader_of(notation, tools, **{"thinking_open": False, "call_id": "call_x", **how})
    pieces = [reader.add(text[start : start + size]) for start in range(0, len(text), size)]
    early = "".join(piece.reasoning + piece.text for piece in pieces)
    pieces.append(reader.end())
    calls = [call for piece in pieces for call in piece.calls]
    return early, Parts("".join(piece.text for piece in pieces), "".join(piece.reasoning for piece in pieces), calls)


def same(
    parts: Parts, text: str, notation: Notation, tools: Any, thinking_open: bool = False, exact: bool = False
) -> None:
    reply = read_reply(text, notation, thinking_open, tools)
    if exact:
        assert parts.text == reply.content
    assert parts.text.strip() == reply.content.strip()
    assert parts.reasoning == (reply.reasoning_content or "")
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in parts.calls] == reply.calls


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("before", ["", "I look.\n", "  a < b, [c] {d} f"])
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["offered", "none"])
def test_calls_of_each_family_are_the_same_in_a_stream(family, before, tools):
    source, call = FAMILIES[family]
    notation = notation_of(source)
    for text in (before + call, before + call[: len(call) // 2], before):
        for size in SIZES:
            same(streamed(text, notation, tools, size)[1], text, notation, tools)
            same(streamed(text, notation, tools, size, at_end=True)[1], text, notation, tools, exact=True)


REASONING = [
    (THINKS, "<think>\nPeru has one.\n</think>\n\nLima. \n", False),
    (THINKS, "\n<think>\n\n</think>\n\nLima.", False),
    (THINKS, "Peru has one.\n</think>\n\nLima.", True),
    (THINKS, "Peru, which has no", True),
    (THINKS, "<think>Peru, which has no", False),
    (THINKS, "Lima </thi is", False),
    ("no marks at all", "<think>Peru.</think>\n\nLima.", False),
    ("no marks at all", "<think> is a mark, and so is </thin", False),
    ("[THINK] [/THINK]", "[THINK]Peru has one.[/THINK]Lima.", False),
    ("[THINK] [/THINK]", "<think>Peru.</think>Lima.", False),
    ("[THINK] [/THINK]", "<think> is a mark of others", False),
    ("<|START_THINKING|> <|END_THINKING|> <|START_RESPONSE|> <|END_RESPONSE|>",
     "<|START_THINKING|>Peru.<|END_THINKING|><|START_RESPONSE|>Lima is it.<|END_RESPONSE|>", False),
    ("<|START_RESPONSE|> <|END_RESPONSE|>", "<|START_RESPONSE|>Lima is it.<|END_RESPONSE|>", False),
    ("<|channel|> <|message|>",
     "<|channel|>analysis<|message|> Peru\nhas one. <|end|><|start|>assistant<|channel|>final<|message|>Lima.\n\nYes.<|return|>",
     False),
    ("<|channel|> <|message|>", "<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>analysis<|message|>Two."
     "<|end|><|start|>assistant<|channel|>commentary<|message|>\nLook.\n<|end|><|start|>assistant<|channel|>final<|message|>Lima.",
     False),
    ("<|channel|> <|message|>", "Lima, to be sure, and as", False),
    ("<|channel|> <|message|>", "ass", False),
    ("<|channel|> <|message|>", "<|channel|>analysis<|message|>Peru has", False),
]  # fmt: skip


@pytest.mark.parametrize(("source", "text", "thinking_open"), REASONING)
def test_reasoning_is_the_same_in_a_stream(source, text, thinking_open):
    notation = notation_of(source)
    for size in SIZES:
        for complete in (False, True):
            _, parts = streamed(text, notation, [], size, thinking_open=thinking_open, at_end=complete)
            same(parts, text, notation, (), thinking_open, exact=True)


@pytest.mark.parametrize(
    "source", [THINKS, "[THINK] [/THINK]", "<|channel|> <|message|>", "<response> </response> </think>"]
)
def test_reasoning_and_text_are_told_while_they_come(source):
    notation = notation_of(source)
    thought, message = "Peru has one. " * 20, "Lima is the capital. " * 20
    opening, closing = notation.reasoning or (
        "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")  # fmt: skip
    early, _ = streamed(f"{opening}{thought}{closing}{message}", notation, TOOLS, 3)
    assert len(early) > len(thought + message) - 40
    early, _ = streamed(f"{opening}{thought}{closing}{message}", notation, TOOLS, 3, at_end=True)
    assert early == ""


@pytest.mark.parametrize("text", ["f", "fun and games", "functor", "function x"])
def test_text_that_begins_as_a_call_without_marks_is_told_once_it_is_none(text):
    early, _ = streamed(text + " and more words", notation_of("functools"), TOOLS, 1)
    assert early.startswith(text)


@pytest.mark.parametrize(
    "call", ['{"name": "look_up", "arguments": {"city": "\\ud83d"}}', '{"name": "\\ude00", "arguments": {}}']
)
def test_half_a_character_in_a_call_can_be_passed_on(call):
    text = f"<tool_call>{call}</tool_call>"
    for size in SIZES:
        (created,) = streamed(text, notation_of("<tool_call>"), TOOLS, size)[1].calls
        created["function"]["name"].encode()
        created["function"]["arguments"].encode()


def test_at_most_one_call_is_told_where_one_was_asked_for():
    _, call = FAMILIES["hermes"]
    parts = streamed(f"{call}\n{call}", notation_of("<tool_call>"), TOOLS, 7, one=True)[1]
    assert len(parts.calls) == 1
