"""Arguments of calls against the parameters of their tool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ftbridge.data.lint.rule import look
from ftbridge.data.lint.rules import Context
from ftbridge.data.lint.rules.arguments import arguments_unlike_schema
from ftbridge.data.lint.rules.specimens import call, calling, chat, preference, tool, user

PARAMETERS = {
    "type": "object",
    "properties": {
        "order_id": {"type": "string"},
        "count": {"type": "integer"},
        "price": {"type": ["number", "null"]},
        "unit": {"enum": ["kg", "piece"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    "required": ["order_id"],
}


def message_of(arguments: Any, parameters: Any = PARAMETERS, **more: Any) -> str:
    """What is told of a call's arguments; empty where they fit."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    line = chat(user(), calling(call(arguments=text)), tools=[tool(parameters=parameters)], **more)
    return " ".join(problem.message for problem in arguments_unlike_schema(look(json.loads(line), Context())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "order_id is missing"),
        ({"orderid": "7"}, "order_id is missing; orderid is not a parameter (is it order_id?)"),
        ({"order_id": "7", "colour": "red"}, "colour is not a parameter"),
        ({"order_id": 7}, "order_id is a number, not text"),
        ({"order_id": None}, "order_id is null, not text"),
        ({"order_id": "7", "count": "3"}, "count is text, not a whole number"),
        ({"order_id": "7", "count": 3.5}, "count is a number, not a whole number"),
        ({"order_id": "7", "count": True}, "count is true or false, not a whole number"),
        ({"order_id": "7", "price": "9"}, "price is text, not a number or null"),
        ({"order_id": "7", "unit": "g"}, 'unit is "g", which is not among ["kg", "piece"]'),
        ({"order_id": "7", "tags": "a"}, "tags is text, not a list"),
        ({"order_id": "7", "tags": ["a", 2]}, "tags[1] is a number, not text"),
        ({"order_id": "7", "address": {}}, "address.city is missing"),
        ({"order_id": "7", "address": {"city": "Oslo", "zip": "1"}}, "address.zip is not a parameter"),
    ],
)
def test_what_does_not_fit_is_named(arguments: Any, message: str) -> None:
    assert message in message_of(arguments)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"order_id": "7"}, PARAMETERS),
        (
            {"order_id": "7", "count": 3.0, "price": None, "unit": "kg", "tags": [], "address": {"city": "Oslo"}},
            PARAMETERS,
        ),
        ({"anything": 1}, {"type": "object"}),
        ({"anything": 1}, {"type": "object", "properties": {}}),
        ({"other": 1}, {"type": "object", "properties": {"a": {}}, "additionalProperties": True}),
        ({"other": 1}, {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}}),
        ({"x_1": 1}, {"type": "object", "properties": {"a": {}}, "patternProperties": {"^x_": {}}}),
        ({"a": 1}, {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}),
        ({"a": 1}, {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}),
        ({"a": None}, {"type": "object", "properties": {"a": {"type": "string", "nullable": True}}}),
        ({"a": 1}, {"type": "object", "properties": {"a": {"type": "a type nobody knows"}}}),
        ({"a": 1}, {"type": "object", "properties": {"a": True}, "required": "a"}),
        ("not json", PARAMETERS),
        ("[]", PARAMETERS),
    ],
)
def test_what_fits_or_cannot_be_judged_is_passed_over(arguments: Any, parameters: Any) -> None:
    assert message_of(arguments, parameters) == ""


def test_arguments_that_are_an_object_and_calls_of_preferences_are_judged_too() -> None:
    line = json.loads(chat(user(), calling(call(arguments={"town": "Rome"})), tools=[tool()]))
    [problem] = arguments_unlike_schema(look(line, Context()))
    assert problem.field == "messages[1].tool_calls[0].function.arguments"

    pair = json.loads(preference(better=[calling(call(arguments='{"town": "Rome"}'))]))
    pair["input"]["tools"] = [tool()]
    [problem] = arguments_unlike_schema(look(pair, Context(method="dpo")))
    assert problem.field == "preferred_output[0].tool_calls[0].function.arguments"


def test_tools_that_are_not_there_or_stand_twice_are_for_other_rules() -> None:
    for tools in ([], [tool("other")], [tool(), tool()], "text", [None]):
        line = {"messages": [user(), calling(call(arguments="{}"))], "tools": tools}
        assert list(arguments_unlike_schema(look(line, Context()))) == []
