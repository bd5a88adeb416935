"""The tool_calls grader: names and arguments of calls, however they are written."""

import json

import pytest

from ftbridge.graders import grade
from ftbridge.spec.graders import ToolCallsGrader

PARIS, ROME = (
    {"name": "find", "arguments": {"city": "Paris", "days": 1}},
    {"name": "find", "arguments": {"city": "Rome"}},
)
BOOK = {"name": "book", "arguments": {}}


def _grader(**more):
    return ToolCallsGrader(type="tool_calls", name="calls", **more)


def _sample(calls):
    """As a chat completion has them: arguments are JSON text."""
    wrapped = [
        {"id": f"c{n}", "type": "function", "function": {**call, "arguments": json.dumps(call["arguments"])}}
        for n, call in enumerate(calls)
    ]
    return {"output_text": None, "output_tools": wrapped} if calls else {"output_text": "no calls"}


@pytest.mark.parametrize(
    ("created", "expected", "any_order", "in_order", "names"),
    [
        ([PARIS], [PARIS], 1, 1, 1),
        ([PARIS], [ROME], 0, 0, 1),
        ([PARIS], [{"name": "find", "arguments": {"days": 1.0, "city": "Paris"}}], 1, 1, 1),
        ([ROME, PARIS], [PARIS, ROME], 1, 1 / 2, 1),
        ([PARIS, ROME, BOOK], [PARIS, BOOK], 2 / 3, 2 / 3, 2 / 3),
        ([PARIS], [PARIS, PARIS], 1 / 2, 1 / 2, 1 / 2),
        ([PARIS, PARIS], [PARIS], 1 / 2, 1 / 2, 1 / 2),
        ([BOOK, PARIS, ROME], [PARIS, ROME, BOOK], 1, 2 / 3, 1),
        ([], [PARIS], 0, 0, 0),
        ([PARIS], [], 0, 0, 0),
        ([], [], 1, 1, 1),
    ],
)
def test_the_share_of_calls_made_as_expected(created, expected, any_order, in_order, names):
    item = {"reference": json.dumps(expected)}
    rewards = [
        grade(_grader(**more), item, _sample(created)).reward for more in ({}, {"ordered": True}, {"match": "name"})
    ]
    assert rewards == pytest.approx([any_order, in_order, names])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([PARIS]),
        json.dumps(PARIS),
        f"<tool_call>\n{json.dumps(PARIS)}\n</tool_call>",
        f"I will look.\n<tool_call>{json.dumps(PARIS)}</tool_call>",
    ],
)
def test_calls_that_a_model_wrote_as_text_are_read(text):
    assert grade(_grader(), {"reference": json.dumps([PARIS])}, {"output_text": text}).reward == 1


@pytest.mark.parametrize(
    "text", ["Paris", "", "[1, 2]", '{"city": "Paris"}', "<tool_call>{</tool_call>", '{"name": 1, "arguments": {}}']
)
def test_text_that_is_no_call_made_none(text):
    result = grade(_grader(), {"reference": json.dumps([PARIS])}, {"output_text": text})
    assert (result.reward, result.errors) == (0, {})
    assert grade(_grader(), {"reference": "It rains."}, {"output_text": text}).reward == 1


def test_a_reference_of_something_else_than_calls_is_an_error():
    result = grade(_grader(), {"reference": [PARIS, {"city": "Paris"}]}, _sample([PARIS]))
    assert "the reference holds what is not a tool call" in result.errors["other_error"]


def test_arguments_that_are_not_json_are_compared_as_text():
    broken = {"name": "find", "arguments": "{city"}
    calls = [{"function": broken}]
    assert grade(_grader(), {"reference": [broken]}, {"output_tools": calls}).reward == 1
    assert grade(_grader(), {"reference": [PARIS]}, {"output_tools": calls}).reward == 0


@pytest.mark.parametrize(
    ("reference", "text", "reward"),
    [
        ('{"answer": 5}', '{"answer": 5}', 1.0),
        ('[{"city": "Paris"}]', "[]", 1.0),
        ('{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 36}', 1.0),
        ('{"answer": 5}', '{"name": "find", "arguments": {}}', 0.0),
        ('[{"name": "find", "arguments": {"city": "Paris"}}]', '{"name": "find", "parameters": {"city": "Paris"}}', 1.0),
        ('[{"name": "find", "parameters": {"city": "Paris"}}]', '{"name": "find", "arguments": "{\\"city\\": \\"Paris\\"}"}', 1.0),
        ('[{"name": "find", "arguments": {"city": "Paris"}}]', '{"name": "find", "parameters": {"city": "Rome"}}', 0.0),
        ('{"name": "now"}', '{"name": "now", "arguments": {}}', 1.0),
    ],
)  # fmt: skip
def test_json_that_calls_nothing_expects_no_call_and_parameters_are_arguments(reference, text, reward):
    assert grade(_grader(), {"reference": reference}, {"output_text": text}).reward == reward
