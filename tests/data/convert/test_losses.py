"""What converting may not do: lose a field, a type, a row or the end of a file without saying so."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbridge.data.convert.convert import Converted, convert
from ftbridge.data.convert.recipe import Recipe
from ftbridge.errors import DataError, UsageError


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


CHAT = {"messages": [user("Hi"), assistant("Hello")]}
PAIR = {
    "input": {"messages": [user("a")]},
    "preferred_output": [assistant("b")],
    "non_preferred_output": [assistant("c")],
}


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


def there(tmp_path: Path, content: bytes, out: str = "out.jsonl", name: str = "in.jsonl", **recipe: Any) -> Converted:
    (tmp_path / name).write_bytes(content)
    return convert(str(tmp_path / name), str(tmp_path / out), Recipe(**recipe), force=True)


def got(tmp_path: Path, content: bytes, **recipe: Any) -> list[Any]:
    there(tmp_path, content, **recipe)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]


def and_back(tmp_path: Path, content: bytes, out: str, **recipe: Any) -> tuple[Converted, list[Any]]:
    done = there(tmp_path, content, out, **{"keep": True, **recipe})
    convert(
        str(tmp_path / out),
        str(tmp_path / "back.jsonl"),
        Recipe(parsed=tuple(done.json_columns), keep=True),
        force=True,
    )
    return done, [json.loads(line) for line in (tmp_path / "back.jsonl").read_bytes().split(b"\n")[:-1]]


# Fields

TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("record", "recipe", "drops"),
    [
        ({"prompt": "a", "completion": "b", "id": 1, "text": ""}, {}, ["id", "text"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "score": 1}, {}, ["score"]),
        ({**CHAT, "tools": [TOOL], "parallel_tool_calls": True}, {"target": "sharegpt"}, ["tools", "parallel_tool_calls"]),
        ({"messages": [user("a"), assistant("b", weight=1, name="n")]}, {"target": "alpaca"}, ["messages[].weight", "messages[].name"]),
        ({**PAIR, "input": {**PAIR["input"], "tools": [TOOL]}}, {"target": "chosen_rejected"}, ["input.tools"]),
        (PAIR, {"target": "chat"}, ["non_preferred_output"]),
    ],
)  # fmt: skip
def test_fields_without_a_place_are_all_named_and_go_by_these_names(tmp_path, record, recipe, drops):
    with pytest.raises(DataError) as caught:
        there(tmp_path, lines(record), **recipe)
    for name in drops:
        assert f"--drop {name}" in caught.value.hint.replace("'", "")
    assert not (tmp_path / "out.jsonl").exists()
    done = there(tmp_path, lines(record), drop=tuple(drops), **recipe)
    assert done.dropped == dict.fromkeys(drops, 1)


def test_leaving_out_bad_records_does_not_leave_out_fields(tmp_path):
    content = lines({"prompt": "a", "completion": "b", "id": 1}) + b"{broken\n"
    with pytest.raises(DataError, match="id would be lost"):
        there(tmp_path, content, skip_bad=True)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"prompt": "a", "completion": "b", "system": 5}, "system is not text"),
        ({"instruction": "a", "output": "b", "history": 0}, "history is not a list"),
        ({"prompt": "a", "completion": "b", "tools": {"x": 1}}, "tools is not a list"),
        ({"messages": [user("a"), {"role": "usr", "content": "b"}]}, r"messages\[1\].role should be"),
        ({"messages": [user("a"), assistant(None)]}, r"messages\[1\].content is null"),
        ({**PAIR, "preferred_output": []}, "preferred_output has 0 messages"),
    ],
)
def test_what_is_no_example_is_not_written(tmp_path, record, says):
    with pytest.raises(DataError, match=says):
        there(tmp_path, lines(record))


def test_empty_optional_fields_are_as_good_as_absent(tmp_path):
    record = {"instruction": "a", "input": "", "output": "b", "system": None, "history": [], "tools": ""}
    assert got(tmp_path, lines(record)) == [{"messages": [user("a"), assistant("b")]}]


def test_a_file_does_not_change_its_method_in_the_middle(tmp_path):
    with pytest.raises(DataError, match=r"in.jsonl:2 is reinforcement by its fields and last message"):
        there(tmp_path, lines(CHAT, {"messages": [user("a")]}))


def test_lines_are_written_with_their_keys_in_one_order(tmp_path):
    there(tmp_path, lines({"id": 1.0, "messages": [{"content": "a", "role": "user"}, assistant("b")]}))
    expected = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"id":1.0}\n'
    assert (tmp_path / "out.jsonl").read_text() == expected


# From one method to another


def test_questions_become_reinforcement_items_with_their_answers_as_references(tmp_path):
    wanted = [{"messages": [{"role": "developer", "content": "s"}, user("a")], "reference": "b", "id": "1"}]
    content = b"question,answer,id\na,b,1\n"
    columns = (("prompt", "question"), ("completion", "answer"))
    recipe: dict[str, Any] = {"target": "reinforcement", "columns": columns, "system": "s", "keep": True}
    assert got(tmp_path, content, name="in.csv", **recipe) == wanted
    prompts = got(
        tmp_path,
        b"prompt,label\na,b\n",
        name="in.csv",
        target="reinforcement",
        columns=(("reference", "label"),),
        keep=True,
    )
    assert prompts == [{"messages": [user("a")], "reference": "b"}]
    assert got(tmp_path, lines(CHAT), target="reinforcement") == [{"messages": [user("Hi")], "reference": "Hello"}]


def test_the_better_answer_of_a_preference_becomes_a_chat_once_the_other_is_let_go(tmp_path):
    assert got(tmp_path, lines(PAIR), target="chat", drop=("non_preferred_output",)) == [
        {"messages": [user("a"), assistant("b")]}
    ]


def test_trl_preferences_are_read_whether_or_not_the_answers_repeat_the_prompt(tmp_path):
    before = [{"role": "system", "content": "s"}, user("a")]
    records = [
        {"prompt": before, "chosen": [assistant("b")], "rejected": [assistant("c")]},
        {"chosen": [*before, assistant("b")], "rejected": [*before, assistant("c")]},
        {"prompt": "a", "chosen": [*before, assistant("b")], "rejected": [*before, assistant("c")]},
        {"prompt": before, "chosen": [*before, assistant("b")], "rejected": [*before, assistant("c")]},
    ]
    wanted = {**PAIR, "input": {"messages": before}}
    assert got(tmp_path, lines(*records)) == [wanted] * 4
    same = {"chosen": [*before, assistant("b")], "rejected": [*before, assistant("b")]}
    assert got(tmp_path, lines(same)) == [{**wanted, "non_preferred_output": [assistant("b")]}]


# Tables

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(st.sampled_from(["id", "score", "note", "tags"]), values, max_size=4)
contents = texts | st.lists(st.builds(lambda text: {"type": "text", "text": text}, texts), min_size=1, max_size=2)
examples = st.builds(
    lambda question, reply, kind_keys, weight: {**kind_keys, "messages": [user(question), assistant(reply, **weight)]},
    contents, texts, fields, st.sampled_from([{}, {"weight": 1}]),
)  # fmt: skip


@pytest.mark.parametrize("out", ["t.csv", "t.tsv", "t.parquet", "t.json.gz"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(examples, min_size=1, max_size=4))
def test_every_field_and_type_comes_back_from_a_table(tmp_path, out, documents):
    _, back = and_back(tmp_path, lines(*documents), out)
    assert list(map(_exactly, back)) == list(map(_exactly, documents))


@pytest.mark.parametrize("out", ["t.csv", "t.parquet"])
def test_preferences_and_items_come_back_from_a_table(tmp_path, out):
    assert and_back(tmp_path, lines(PAIR, PAIR), out)[1] == [PAIR, PAIR]
    item = {"messages": [user("a")], "tools": [TOOL], "reference": {"x": [1.0]}}
    assert and_back(tmp_path, lines(item), out)[1] == [item]


def test_columns_that_come_late_and_cells_that_hold_json_are_told(tmp_path):
    done, back = and_back(tmp_path, lines(CHAT, {**CHAT, "id": "7"}, {**CHAT, "id": 7}), "t.csv")
    assert done.json_columns == ["id"]
    assert [one.get("id") for one in back] == [None, "7", 7]


def test_a_parquet_column_is_typed_where_all_values_are_alike(tmp_path):
    from pyarrow import parquet

    there(tmp_path, lines({**CHAT, "n": 1, "mixed": 1}, {**CHAT, "n": 2, "mixed": "1"}), "t.parquet", keep=True)
    types = {field.name: str(field.type) for field in parquet.read_schema(tmp_path / "t.parquet")}
    assert types["messages"].startswith("list<element: struct<role: string, content: string>")
    assert (types["n"], types["mixed"]) == ("int64", "string")


def test_own_fields_stay_beside_other_shapes_when_asked(tmp_path):
    _, back = and_back(tmp_path, lines({**CHAT, "id": 7}), "t.json", target="sharegpt", keep=True)
    assert back == [{**CHAT, "id": 7}]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b'prompt,completion\na,b\n"c\nd,e\n',
            "in.csv:3 cannot be read: a quote that opens in this row is never closed.",
        ),
        (b"prompt,completion\ra,b\r", "carriage return outside quotes"),
        (b"messages\n\"[{'role': 'user'}]\"\n", "looks like Python's notation"),
        (b"prompt,completion\n\na\n", "in.csv:3 has 1 cells; the header has 2"),
        (b"question,answer\na,b\n", "has the fields question, answer"),
        (b"prompt,completion\na,\n", "completion is missing"),
    ],
)
def test_damage_in_a_table_is_told_with_its_line(tmp_path, content, says):
    with pytest.raises(DataError) as caught:
        there(tmp_path, content, name="in.csv")
    assert says in str(caught.value)


def test_a_damaged_row_does_not_spoil_the_others(tmp_path):
    content = b'prompt,completion\na,b\nc\xff,d\n"e"x,f\ng,h\n'
    done = there(tmp_path, content, name="in.csv", skip_bad=True)
    assert done.examples == 2
    assert [problem.split(" ")[0].rpartition(":")[2] for problem in done.skipped] == ["3", "4"]


def test_cells_are_text_unless_told_and_other_delimiters_are_seen(tmp_path):
    content = b"prompt;completion;n\na;01;1.0\n"
    wanted = {"messages": [user("a"), assistant("01")]}
    assert got(tmp_path, content, name="in.csv", keep=True) == [{**wanted, "n": "1.0"}]
    assert got(tmp_path, content, name="in.csv", keep=True, parsed=("n",)) == [{**wanted, "n": 1.0}]
    with pytest.raises(UsageError, match="there is no column m"):
        there(tmp_path, content, name="in.csv", parsed=("m",))


# Files that end early


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_everything_before_a_cut_is_read_and_the_cut_is_told(tmp_path, kind):
    zstandard = pytest.importorskip("zstandard")
    content = lines(*({"messages": [user(f"{number * 7919}"), assistant("b")]} for number in range(60_000)))
    packed = gzip.compress(content) if kind == "gz" else zstandard.compress(content)
    assert there(tmp_path, packed, name=f"in.jsonl.{kind}").examples == 60_000
    half = packed[: len(packed) // 2]
    with pytest.raises(DataError, match="cannot be read to its end: its (gzip|zstd) data end early"):
        there(tmp_path, half, name=f"in.jsonl.{kind}")
    done = there(tmp_path, half, name=f"in.jsonl.{kind}", skip_bad=True)
    assert 10_000 < done.examples < 60_000
    assert "data end early" in done.skipped[-1]


def test_members_of_one_archive_are_read_one_after_the_other(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    for kind, pack in (("gz", gzip.compress), ("zst", zstandard.compress)):
        assert there(tmp_path, pack(lines(CHAT)) + pack(lines(CHAT)), name=f"in.jsonl.{kind}").examples == 2


def test_compressed_output_depends_on_the_content_alone(tmp_path):
    first = there(tmp_path, lines(CHAT), "a.jsonl.gz")
    assert there(tmp_path, lines(CHAT), "b.jsonl.gz").sha256 == first.sha256


def test_problems_are_counted_to_the_end_and_the_first_are_shown(tmp_path):
    with pytest.raises(DataError) as caught:
        there(tmp_path, b"{}\n" * 5_000)
    assert caught.value.message.startswith("5,000 problems")
    assert caught.value.message.count("in.jsonl:") == 20
    assert "… and 4,980 more" in caught.value.message


def _exactly(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _exactly(inner) for key, inner in value.items()}
    return [_exactly(inner) for inner in value] if isinstance(value, list) else (type(value), repr(value))
