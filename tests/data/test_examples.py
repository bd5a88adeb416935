"""Typed examples: what is accepted, what is refused and in which words, and that nothing is added or lost."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ({"messages": [QUESTION, {**ANSWER, "weight": 1.0}]}, "messages[1].weight", "not 1.0"),
        ({"messages": [QUESTION, {**ANSWER, "weight": True}]}, "messages[1].weight", "not true"),
        ({"messages": [QUESTION, {**ANSWER, "weight": 2}]}, "messages[1].weight", "not 2"),
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
    assert [message.has_loss for message in example.messages] == [False, False, False, True]
    assert [message.role for message in example.prompt] == ["user", "assistant", "user"]
    assert example.completion.text == "card_arrival"


def test_the_fields_of_an_item_beside_messages_and_tools_are_its_extra():
    assert parse_example({"messages": [QUESTION, ANSWER], "tools": [], "reference": "x"}).extra == {"reference": "x"}


PREFERENCE = {"input": {"messages": [QUESTION]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}


@pytest.mark.parametrize(
    ("method", "document"),
    [
        ("dpo", PREFERENCE),
        ("dpo", {**PREFERENCE, "input": {"messages": [QUESTION], "tools": [{"x": 1}], "parallel_tool_calls": True}}),
        ("dpo", {**PREFERENCE, "preferred_output": [{"role": "assistant", "tool_calls": [CALL]}], "id": 1}),
        ("reinforcement", {"messages": [{"role": "developer", "content": "Be brief."}, QUESTION]}),
        (
            "reinforcement",
            {"messages": [QUESTION], "tools": [], "reference": {"a": [1.0, 2]}, "parallel_tool_calls": "x"},
        ),
    ],
)
def test_preferences_and_reinforcement_items_are_read_and_written_without_loss(method, document):
    line = parse_example(document, method).canonical()
    assert json.loads(line) == document
    assert parse_example(json.loads(line), method).canonical() == line


@pytest.mark.parametrize(
    ("method", "document", "field", "says"),
    [
        ("dpo", [], "", "JSON object with input, preferred_output and non_preferred_output"),
        ("dpo", {"messages": [QUESTION, ANSWER]}, "input", "looks like chat data"),
        (
            "dpo",
            {"input": {"messages": [QUESTION]}, "preferred_output": [ANSWER]},
            "non_preferred_output",
            "is missing",
        ),
        ("dpo", {**PREFERENCE, "input": {}}, "input.messages", "is missing"),
        ("dpo", {**PREFERENCE, "input": {"messages": []}}, "input.messages", "at least 1"),
        ("dpo", {**PREFERENCE, "input": {"messages": [{"role": "user"}]}}, "input.messages[0].content", "is null"),
        ("dpo", {**PREFERENCE, "preferred_output": []}, "preferred_output", "has 0 messages"),
        (
            "dpo",
            {**PREFERENCE, "preferred_output": [ANSWER, ANSWER]},
            "preferred_output",
            "has 2 messages; an output must be one",
        ),
        ("dpo", {**PREFERENCE, "preferred_output": "Paris"}, "preferred_output", "valid list"),
        ("dpo", {**PREFERENCE, "non_preferred_output": [QUESTION]}, "non_preferred_output[0].role", "is user"),
        ("dpo", {**PREFERENCE, "preferred_output": [{"role": "assistant"}]}, "preferred_output[0].content", "is null"),
        (
            "reinforcement",
            {"messages": [QUESTION, ANSWER]},
            "messages[1].role",
            "is assistant; the last message must be the user's",
        ),
        ("reinforcement", PREFERENCE, "messages", "method dpo"),
        ("reinforcement", {"messages": []}, "messages", "at least 1"),
    ],
)
def test_a_bad_preference_or_item_is_refused_by_field_and_reason(method, document, field, says):
    with pytest.raises(ExampleError) as caught:
        parse_example(document, method)
    assert any(at == field and says in text for at, text in caught.value.problems), caught.value.problems


def test_each_method_tells_what_is_asked_and_what_is_answered():
    preference = parse_example({**PREFERENCE, "non_preferred_output": [{**ANSWER, "content": "no"}]}, "dpo")
    assert [message.text for message in preference.prompt] == ["Where is my card?"]
    assert (preference.preferred.text, preference.non_preferred.text) == ("card_arrival", "no")
    item = parse_example({"messages": [QUESTION], "reference": 3}, "reinforcement")
    assert ([message.text for message in item.prompt], item.extra) == (["Where is my card?"], {"reference": 3})


def test_images_and_deprecated_functions_can_be_seen():
    image = {"type": "image_url", "image_url": {"detail": "low", "url": "https://host/a.png"}}
    function = {"name": "find", "parameters": {}}
    document = {"messages": [{"role": "user", "content": [image]}, ANSWER], "functions": [function]}
    example = parse_example(document)
    assert example.messages[0].content[0].model_extra["image_url"]["url"] == "https://host/a.png"
    assert example.functions == [function]


# Nothing is lost: any JSON in any place that may hold more

numbers = st.integers() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def more(*keys):
    return st.dictionaries(texts.filter(lambda key: key not in keys), values, max_size=3)


MESSAGE_KEYS = ("role", "content", "name", "weight", "refusal", "tool_calls", "tool_call_id", "function_call")
parts = st.builds(lambda text, extra: {**extra, "type": "text", "text": text}, texts, more("type", "text", "refusal"))
images = st.builds(lambda extra: {"type": "image_url", **extra}, more("type", "text", "refusal"))
calls = st.builds(
    lambda extra, inside, arguments: {
        **extra,
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": arguments, **inside},
    },
    more("id", "type", "function"),
    more("name", "arguments"),
    texts | st.dictionaries(texts, values, max_size=3),
)
questions = st.builds(
    lambda content, extra: {**extra, "role": "user", "content": content},
    texts | st.lists(parts | images, max_size=3),
    more(*MESSAGE_KEYS),
)
replies = st.builds(
    lambda extra, content, rest: {**extra, "content": content, **rest, "role": "assistant"},
    more(*MESSAGE_KEYS),
    texts,
    st.fixed_dictionaries(
        {},
        optional={
            "weight": st.just(1) | st.none(),
            "name": texts,
            "tool_calls": st.lists(calls, min_size=1, max_size=2),
        },
    ),
)
tools = st.fixed_dictionaries(
    {}, optional={"tools": st.lists(more(), max_size=2), "parallel_tool_calls": st.booleans()}
)
HOLDER_KEYS = ("messages", "tools", "parallel_tool_calls")
chats = st.builds(
    lambda before, question, reply, extra, held: {**extra, **held, "messages": [*before, question, reply]},
    st.lists(questions | replies, max_size=2), questions, replies, more(*HOLDER_KEYS), tools,
)  # fmt: skip
preferences = st.builds(
    lambda messages, inside, held, good, bad, extra: {
        "non_preferred_output": [bad],
        **extra,
        "input": {**inside, **held, "messages": messages},
        "preferred_output": [good],
    },
    st.lists(questions, min_size=1, max_size=2), more(*HOLDER_KEYS), tools, replies, replies,
    more("input", "preferred_output", "non_preferred_output"),
)  # fmt: skip
items = st.builds(
    lambda messages, extra: {**extra, "messages": messages},
    st.lists(questions, min_size=1, max_size=2),
    more(*HOLDER_KEYS),
)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.just("supervised"), chats)
    | st.tuples(st.just("dpo"), preferences)
    | st.tuples(st.just("reinforcement"), items)
)
def test_any_example_is_written_as_the_same_json_value(case):
    method, document = case
    line = parse_example(document, method).canonical()
    assert _exactly(json.loads(line)) == _exactly(document)
    assert "\n" not in line
    assert parse_example(json.loads(line), method).canonical() == line


def test_keys_that_are_not_known_keep_their_order():
    line = parse_example(
        {"zeta": {"b": 1, "a": 2}, "messages": [QUESTION, {"x": 1, **ANSWER, "b": 2}], "alpha": 0}
    ).canonical()
    assert line.index('"zeta":{"b":1,"a":2}') < line.index('"alpha"')
    assert line.index('"x":1') < line.index('"b":2')


def _exactly(value):
    """A value in which 1, 1.0 and true differ, and the order of keys does not matter."""
    if isinstance(value, dict):
        return {key: _exactly(inner) for key, inner in value.items()}
    return [_exactly(inner) for inner in value] if isinstance(value, list) else (type(value), repr(value))
