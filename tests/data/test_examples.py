"""Typed examples: what is accepted, what is refused and in which words, and that nothing is added or lost."""

import json

import pytest

from ftbridge.data.examples import ExampleError, parse_example

QUESTION = {"role": "user", "content": "Where is my card?"}
ANSWER = {"role": "assistant", "content": "card_arrival"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id": 1}'}}


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [QUESTION, ANSWER]},
        {"messages": [QUESTION, {**ANSWER, "weight": 0}, QUESTION, {**ANSWER, "weight": 1}]},
        {"messages": [QUESTION, {**ANSWER, "name": "bot", "annotation": {"by": [1, 2.5, None]}}], "item_id": "é\u2028"},
        {"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "tools": [{"x": 1}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}],
                },
                {"role": "assistant", "content": None, "refusal": "No."},
            ],
            "parallel_tool_calls": False,
        },
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}, "content": ""}]},
    ],
)
def test_a_canonical_line_holds_what_was_given_and_reads_back_to_itself(document):
    line = parse_example(document).canonical()
    assert json.loads(line) == document
    assert "\n" not in line
    assert parse_example(json.loads(line)).canonical() == line


def test_the_order_of_known_keys_and_the_spacing_do_not_reach_the_canonical_line():
    one = json.loads(
        '{"messages": [{"content": "hi", "role": "user"}, {"content": "ho", "role": "assistant"}], "tag": 1}'
    )
    two = json.loads('{"tag":1,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}]}')
    assert parse_example(one).canonical() == parse_example(two).canonical()


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        ([QUESTION, ANSWER], "", "is a list"),
        ("text", "", "is text"),
        ({}, "messages", "is missing"),
        ({"prompt": "a", "completion": "b"}, "messages", "old prompt and completion format"),
        ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "messages", "method dpo"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [QUESTION, {"role": "asistant", "content": "x"}]}, "messages[1].role", "'assistant'"),
        ({"messages": [{"role": "user", "content": 3}, ANSWER]}, "messages[0].content", "not 3"),
        ({"messages": [{"role": "user", "content": "x", "name": 7}, ANSWER]}, "messages[0].name", "not 7"),
        ({"messages": [QUESTION, {"role": "assistant", "content": None}]}, "messages[1].content", "no tool_calls"),
        ({"messages": [{"role": "user"}, ANSWER]}, "messages[0].content", "is null"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": []}]}, "messages[1].tool_calls", "is empty"),
        ({"messages": [{"role": "tool", "content": "1"}, ANSWER]}, "messages[0].tool_call_id", "is missing"),
        ({"messages": [{**QUESTION, "weight": 1}, ANSWER]}, "messages[0].weight", "not to user"),
        ({"messages": [QUESTION, {**ANSWER, "weight": 0.5}]}, "messages[1].weight", "not 0.5"),
        ({"messages": [ANSWER, QUESTION]}, "messages[1].role", "is user"),
        ({"messages": [QUESTION, {**ANSWER, "weight": 0}]}, "messages", "nothing to train on"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]},
            "messages[0].content[0].text",
            "missing",
        ),
    ],
)
def test_a_bad_example_is_refused_by_field_and_reason(document, field, says):
    with pytest.raises(ExampleError) as caught:
        parse_example(document)
    assert any(at == field and says in text for at, text in caught.value.problems), caught.value.problems


def test_every_problem_of_an_example_is_told_at_once():
    with pytest.raises(ExampleError) as caught:
        parse_example({"messages": [{"role": "user"}, {"role": "tool", "content": "x"}]})
    assert [field for field, _ in caught.value.problems] == [
        "messages[0].content",
        "messages[1].tool_call_id",
        "messages[1].role",
    ]


def test_weight_decides_which_answers_are_trained():
    example = parse_example({"messages": [QUESTION, {**ANSWER, "weight": 0}, QUESTION, ANSWER]})
    assert [message.trained for message in example.messages] == [False, False, False, True]
    assert [message.role for message in example.prompt] == ["user", "assistant", "user"]
    assert example.answer.text == "card_arrival"


def test_the_fields_of_an_item_beside_messages_and_tools_are_its_extra():
    assert parse_example({"messages": [QUESTION, ANSWER], "tools": [], "reference": "x"}).extra == {"reference": "x"}
