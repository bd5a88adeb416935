"""Completions of every family of models are read into text, reasoning and calls by one table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ftbridge.data.notation import Reply, notation_of, read_reply, split_reasoning, tools_prompt, write_calls
from support.call_notations import AS_JSON, FAMILIES, TOOLS, WANTED


def _calls(reply: Reply) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in reply.tool_calls]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_of_each_family_is_read(family: str) -> None:
    template, text = FAMILIES[family]
    reply = read_reply(text, notation_of(template), tools=TOOLS)
    assert _calls(reply) == [("look_up", WANTED)]
    assert reply.content == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_a_call_where_no_tools_were_offered(family: str) -> None:
    template, text = FAMILIES[family]
    assert not read_reply(text, notation_of(template), tools=()).tool_calls


CUT = [name for name in FAMILIES if not name.startswith("gpt-oss")]


@pytest.mark.parametrize("family", CUT)
def test_half_a_call_stays_text(family: str) -> None:
    template, text = FAMILIES[family]
    half = text[: text.index("Lima") + 2]
    reply = read_reply(half, notation_of(template), tools=TOOLS)
    assert (reply.content, reply.tool_calls) == (half, ())


def test_text_beside_calls_and_several_calls() -> None:
    template, text = FAMILIES["hermes"]
    reply = read_reply(f"I look.\n{text}\n{text}", notation_of(template), tools=TOOLS)
    assert reply.content == "I look."
    assert [call["id"] for call in reply.tool_calls] == ["call_0", "call_1"]


@pytest.mark.parametrize(
    ("text", "thinking_open", "content", "reasoning"),
    [
        ("<think>\n\n</think>\n\nLima.", False, "Lima.", None),
        ("<think>\nPeru.\n</think>\n\nLima.", False, "Lima.", "Peru."),
        ("Peru.\n</think>\n\nLima.", True, "Lima.", "Peru."),
        ("\n</think>\n\nLima.", True, "Lima.", None),
        ("Peru, which", True, "", "Peru, which"),
        ("</think>Lima.", False, "Lima.", None),
        ("<think>Peru, which", False, "", "Peru, which"),
        ("Lima.", False, "Lima.", None),
        (" Lima.\n", False, " Lima.\n", None),
        ("Say <think> to think.", False, "Say <think> to think.", None),
        ("<think>a</think>Say </think>", False, "Say </think>", "a"),
    ],
)
def test_reasoning_is_a_part_of_its_own(text: str, thinking_open: bool, content: str, reasoning: str | None) -> None:
    reply = read_reply(text, notation_of("<think> {{ content.split('</think>') }}"), thinking_open)
    assert (reply.content, reply.reasoning_content) == (content, reasoning)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("[THINK] [/THINK]", "[THINK]Peru.[/THINK]Lima."),
        (
            "<|START_THINKING|> <|END_THINKING|>",
            "<|START_THINKING|>Peru.<|END_THINKING|><|START_RESPONSE|>Lima.<|END_RESPONSE|>",
        ),
        ("<seed:think> </seed:think>", "<seed:think>Peru.</seed:think>Lima."),
        ("<|channel>thought\\n <channel|>", "<|channel>thought\nPeru.<channel|>Lima."),
        ("◁think▷ ◁/think▷", "◁think▷Peru.◁/think▷Lima."),
        (
            "<|channel|> <|message|>",
            "<|channel|>analysis<|message|>Peru.<|end|><|start|>assistant<|channel|>final<|message|>Lima.",
        ),
        ("plain", "<think>Peru.</think>\n\nLima."),
    ],
)
def test_each_family_marks_its_reasoning(template: str, text: str) -> None:
    if "RESPONSE" in text:
        template += " <|START_RESPONSE|> <|END_RESPONSE|>"
    assert read_reply(text, notation_of(template)) == Reply("Lima.", "Peru.")


def test_text_without_reasoning_is_not_touched() -> None:
    assert split_reasoning(" a\n") == (None, " a\n")
    assert split_reasoning("<think>\nb\n</think>\n\na") == ("\nb\n", "a")
    assert read_reply("<think> is a mark") == Reply("<think> is a mark")


def test_values_have_the_types_of_the_schema() -> None:
    text = "<tool_call><function=look_up><parameter=city>007</parameter><parameter=days>7</parameter></function></tool_call>"
    reply = read_reply(text, notation_of("<tool_call> <function= <parameter="), tools=TOOLS)
    assert _calls(reply) == [("look_up", {"city": "007", "days": 7})]


@pytest.mark.parametrize("text", ['{"name": "Ada", "arguments": []}', "[1, 2]", "print(x=1)", "Action: run", "a >>> b"])
def test_an_answer_that_resembles_a_call_of_no_offered_tool_is_text(text: str) -> None:
    assert read_reply(text, notation_of(""), tools=TOOLS) == Reply(text)


def test_a_template_without_a_place_for_tools_has_a_prompt_and_a_notation() -> None:
    written = write_calls([{"function": {"name": "look_up", "arguments": AS_JSON}}])
    assert "look_up" in tools_prompt(TOOLS)
    assert "<tool_call>" in tools_prompt(TOOLS)
    assert _calls(read_reply(f"I look.\n{written}", notation_of(""), tools=TOOLS)) == [("look_up", WANTED)]
