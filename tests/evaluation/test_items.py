"""Items: keys, prompts without the answer, and what graders see."""

import json

import pytest

from ftbridge.data.examples import parse_example
from ftbridge.errors import DataError, UsageError
from ftbridge.evaluation.items import load_items


def _call(name, arguments, id="call_1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _write(path, *documents):
    path.write_text("".join(parse_example(document).canonical() + "\n" for document in documents), encoding="utf-8")
    return path


def _chat(reply, **extra):
    last = reply if isinstance(reply, dict) else {"role": "assistant", "content": reply}
    return {"messages": [{"role": "user", "content": "q"}, last], **extra}


@pytest.mark.parametrize(
    ("reply", "reference"),
    [
        ("Paris", "Paris"),
        ({"role": "assistant", "content": [{"type": "text", "text": "Pa"}, {"type": "text", "text": "ris"}]}, "Paris"),
        ({"role": "assistant", "refusal": "No."}, "No."),
        (
            {
                "role": "assistant",
                "tool_calls": [_call("find", '{"city":"Köln","n":2}'), _call("stop", "{}", "call_2")],
            },
            '[{"name": "find", "arguments": {"city": "Köln", "n": 2}}, {"name": "stop", "arguments": {}}]',
        ),
        (
            {"role": "assistant", "content": "Looking.", "tool_calls": [_call("find", "not json")]},
            '[{"name": "find", "arguments": "not json"}]',
        ),
        (
            {"role": "assistant", "function_call": {"name": "find", "arguments": "{}"}},
            '[{"name": "find", "arguments": {}}]',
        ),
    ],
)
def test_the_reference_is_the_last_answer_as_text(tmp_path, reply, reference):
    [item] = load_items(_write(tmp_path / "test.jsonl", _chat(reply)))
    assert item.fields["reference"] == reference


def test_an_items_own_fields_are_seen_and_its_own_reference_wins(tmp_path):
    [item] = load_items(_write(tmp_path / "test.jsonl", _chat("long", reference="short", topic={"id": 3})))
    assert item.fields == {"reference": "short", "topic": {"id": 3}}


def test_the_prompt_is_all_but_the_answer_without_weights(tmp_path):
    tools = [{"type": "function", "function": {"name": "find"}}]
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c", "name": "ann"},
        {"role": "assistant", "content": "d"},
    ]
    [item] = load_items(_write(tmp_path / "test.jsonl", {"messages": messages, "tools": tools}))
    lines = [message.model_dump(exclude_unset=True) for message in item.prompt]
    assert lines == [messages[0], messages[1], {"role": "assistant", "content": "b"}, messages[3]]
    assert item.tools == tuple(tools)


def test_a_key_names_content_and_place(tmp_path):
    one, same, other = _chat("x"), _chat("x"), _chat("y")
    items = load_items(_write(tmp_path / "test.jsonl", one, same, other))
    again = load_items(_write(tmp_path / "again.jsonl", one, same, _chat("z")))
    assert len({item.key for item in items}) == 3
    assert [item.key for item in items[:2]] == [item.key for item in again[:2]]
    assert items[2].key != again[2].key
    assert [(item.index, item.line) for item in items] == [(0, 1), (1, 2), (2, 3)]


def test_characters_that_look_like_line_ends_do_not_cut_a_line(tmp_path):
    documents = [_chat("a\u2028b\u0085c\x1cd"), _chat("e\r\nf")]
    items = load_items(_write(tmp_path / "test.jsonl", *documents))
    assert [item.fields["reference"] for item in items] == ["a\u2028b\u0085c\x1cd", "e\r\nf"]


def test_an_empty_file_has_no_items_and_a_missing_one_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert load_items(tmp_path / "empty.jsonl") == []
    with pytest.raises(UsageError, match=r"none\.jsonl"):
        load_items(tmp_path / "none.jsonl")


@pytest.mark.parametrize("line", ["{", json.dumps({"messages": []}), json.dumps({"prompt": "x"})])
def test_a_bad_line_is_named(tmp_path, line):
    path = _write(tmp_path / "test.jsonl", _chat("x"))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"test\.jsonl:2 "):
        load_items(path)


def test_lines_of_one_conversation_belong_together(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    more = [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Now this."}]
    end = [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Bye."}]
    other = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good day."}, *more]
    lines = [
        {"messages": [*turns, *more, *end]},
        {"messages": end},
        {"messages": turns},
        {"messages": other},
        {"messages": [{"role": "user", "content": "a"}, end[1]], "cluster": "x"},
        {"messages": [{"role": "user", "content": "b"}, end[1]], "cluster": "x"},
        {"messages": [end[0], {"role": "assistant", "content": "See you."}]},
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [item.cluster for item in load_items(path)] == ["0", "1", "0", "3", "4", "4", "1"]
