"""A completion read as it comes: reasoning, text and calls, whatever the pieces it comes in."""

import json

import pytest

from ftbridge.data.call_forms import HERMES
from ftbridge.data.notation import PLAIN, Notation, notation_of
from ftbridge.providers.local.inference.replies import ForcedReader, FreeReader

THINKING = Notation("hermes", HERMES, ("<think>", "</think>"))
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"city": "Lima"}}\n</tool_call>'


def read(text, reader, size):
    """(content, reasoning, calls) of a text that comes in pieces of `size` characters."""
    parts = [reader.add(text[start : start + size]) for start in range(0, len(text), size)]
    parts.append(reader.end())
    calls = []
    for delta in (delta for part in parts for delta in part.calls):
        if "id" in delta:
            assert delta["index"] == len(calls)
            calls.append([delta["function"]["name"], delta["function"]["arguments"]])
        else:
            calls[delta["index"]][1] += delta["function"]["arguments"]
    lines = [(name, json.loads(arguments)) for name, arguments in calls]
    return "".join(part.text for part in parts), "".join(part.reasoning for part in parts), lines


CASES = [
    (PLAIN, False, [], "Hello  there.\n", ("Hello  there.\n", "", [])),
    (THINKING, False, [], "<think>\nhm, 1 < 2\n</think>\n\nYes.", ("Yes.", "hm, 1 < 2", [])),
    (THINKING, True, [], "hm </b>\n</think>\n\nYes.", ("Yes.", "hm </b>", [])),
    (THINKING, True, [], "never closed", ("", "never closed", [])),
    (THINKING, False, TOOLS, CALL, ("", "", [("look_up", {"city": "Lima"})])),
    (THINKING, False, TOOLS, f"I look.\n{CALL}\n{CALL}", ("I look.", "", [("look_up", {"city": "Lima"})] * 2)),
    (THINKING, True, TOOLS, f"which?\n</think>\n\n{CALL}", ("", "which?", [("look_up", {"city": "Lima"})])),
    (THINKING, False, TOOLS, "a < b and <tool_ box", ("a < b and <tool_ box", "", [])),
    (THINKING, False, TOOLS, "<tool_call>\nhalf a", ("<tool_call>\nhalf a", "", [])),
    (THINKING, False, [], CALL, (CALL, "", [])),
    (notation_of("[TOOL_CALLS]"), False, TOOLS, '[TOOL_CALLS][{"name": "look_up", "arguments": {"n": 1}}]',
     ("", "", [("look_up", {"n": 1})])),
    (notation_of('{"name": x, "parameters": y}'), False, TOOLS, '{"name": "look_up", "parameters": {"n": 1}}',
     ("", "", [("look_up", {"n": 1})])),
    (notation_of('{"name": x, "parameters": y}'), False, TOOLS, '{"not": "a call"}', ('{"not": "a call"}', "", [])),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(("notation", "thinking", "tools", "text", "expected"), CASES)
def test_the_parts_of_a_completion_do_not_depend_on_its_pieces(notation, thinking, tools, text, expected, size):
    reader = FreeReader(notation, tools, thinking_open=thinking, call_id="call_x")
    assert read(text, reader, size) == expected


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_forced_calls_come_with_their_arguments(size):
    one = ForcedReader(["look_up"], one=True, call_id="c")
    assert read('{"city": "Lima"}', one, size) == ("", "", [("look_up", {"city": "Lima"})])
    either = ForcedReader(["look_up", "other"], one=True, call_id="c")
    assert read('{"name": "other", "arguments": {}}', either, size) == ("", "", [("other", {})])
    several = ForcedReader(["look_up", "other"], one=False, call_id="c")
    text = '[{"name": "other", "arguments": {}}, {"name": "look_up", "arguments": {"city": "]}"}}]'
    assert read(text, several, size) == ("", "", [("other", {}), ("look_up", {"city": "]}"})])
