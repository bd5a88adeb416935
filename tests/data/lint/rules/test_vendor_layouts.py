"""Files in the layouts that vendors publish pass without an error or a warning. The texts are our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.lint import Options, lint

Record = dict[str, Any]
TOPICS = [
    "ferry",
    "kettle",
    "violin",
    "glacier",
    "ledger",
    "orchard",
    "compass",
    "lantern",
    "saddle",
    "harbour",
    "quarry",
    "beacon",
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
            "required": ["place", "unit"],
            "additionalProperties": False,
        },
    },
}


def _call(topic: str) -> Record:
    arguments = json.dumps({"place": f"{topic} bay", "unit": "c"})
    call = {"id": f"call_{topic}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


def _said(role: str, content: Any, **more: Any) -> Record:
    return {"role": role, "content": content, **more}


def openai_supervised(topic: str) -> Record:
    return {
        "messages": [
            _said("system", "A dry guide."),
            _said("user", f"Why a {topic}?"),
            _said("assistant", f"For {topic}s."),
        ]
    }


def openai_weights(topic: str) -> Record:
    first, last = _said("assistant", f"A {topic}.", weight=0), _said("assistant", f"Clearly a {topic}.", weight=1)
    return {
        "messages": [_said("system", "A dry guide."), _said("user", f"{topic}?"), first, _said("user", "Sure?"), last]
    }


def openai_tools(topic: str) -> Record:
    return {
        "messages": [_said("user", f"Rain at {topic} bay?"), _call(topic)],
        "parallel_tool_calls": False,
        "tools": [WEATHER],
    }


def openai_tool_results(topic: str) -> Record:
    talk = [_said("user", f"Rain at {topic} bay?"), _call(topic)]
    talk += [
        {"role": "tool", "tool_call_id": f"call_{topic}", "content": "{}"},
        _said("assistant", f"None at {topic} bay."),
    ]
    return {"messages": talk, "tools": [WEATHER]}


def openai_vision(topic: str) -> Record:
    picture = {"type": "image_url", "image_url": {"url": f"https://example.com/{topic}.jpg", "detail": "low"}}
    question = [{"type": "text", "text": f"Is it a {topic}?"}, picture]
    return {"messages": [_said("system", "Name it."), _said("user", question), _said("assistant", f"A {topic}.")]}


def openai_empty_tools(topic: str) -> Record:
    return {**openai_supervised(topic), "tools": []}


def openai_preference(topic: str) -> Record:
    return {
        "input": {"messages": [_said("user", f"Is a {topic} large?")], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [_said("assistant", f"A {topic} can be, yes.")],
        "non_preferred_output": [_said("assistant", "Hm.")],
    }


def openai_reinforcement(topic: str) -> Record:
    messages = [_said("developer", "Answer with the number."), _said("user", f"Letters in {topic}?")]
    return {
        "messages": messages,
        "reference_answer": {"count": len(topic)},
        "policy": "Version 3.",
        "reference_policy": "v3",
    }


def openai_reinforcement_tools(topic: str) -> Record:
    return {"messages": [_said("user", f"Rain at {topic} bay?")], "tools": [WEATHER], "expected_place": f"{topic} bay"}


def azure_preference(topic: str) -> Record:
    return {
        "input": {"messages": [_said("system", "Be kind."), _said("user", f"My {topic} broke.")]},
        "preferred_output": [_said("assistant", f"I am sorry about the {topic}.")],
        "non_preferred_output": [_said("assistant", f"Buy another {topic}.")],
    }


def nebius_chat(topic: str) -> Record:
    return {"messages": [_said("user", f"Sing of a {topic}."), _said("assistant", f"O {topic}, o {topic}!")]}


LAYOUTS = [
    (openai_supervised, "openai"), (openai_weights, "openai"), (openai_tools, "openai"), (openai_tool_results, "openai"),
    (openai_vision, "openai"), (openai_empty_tools, "openai"), (openai_preference, "openai"), (openai_reinforcement, "openai"),
    (openai_reinforcement_tools, "openai"), (openai_supervised, "azure"), (openai_tool_results, "azure"),
    (azure_preference, "azure"), (openai_reinforcement, "azure"), (nebius_chat, "nebius"), (openai_tool_results, "nebius"),
    (openai_supervised, "local"), (openai_weights, "local"), (openai_tool_results, "local"), (openai_preference, "local"),
    (openai_reinforcement, "local"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "target"), LAYOUTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_file_in_a_published_layout_passes_linted_alone(layout: Any, target: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = "".join(json.dumps(layout(topic)) + "\n" for topic in TOPICS)
    path.write_text(lines, encoding="utf-8-sig" if target == "azure" else "utf-8")

    [report] = lint(path, Options(target=target)).files

    assert report.examples == len(TOPICS)
    assert [finding for finding in report.findings if finding.severity != "info"] == []
