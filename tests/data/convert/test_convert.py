"""Any format to canonical JSON Lines and back: nothing lost in silence, nothing half-written."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbridge.data.convert.convert import convert
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.convert.shapes import SHAPES, ShapeError, read, write
from ftbridge.data.reading.containers import read_records
from ftbridge.errors import DataError, UsageError

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "preferred_output": [{"role": "assistant", "content": "Hello"}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


def converted(
    tmp_path: Path, content: bytes, name: str = "in.jsonl", out: str = "out.jsonl", **recipe: Any
) -> list[Any]:
    (tmp_path / name).write_bytes(content)
    convert(str(tmp_path / name), str(tmp_path / out), Recipe(**recipe), force=True)
    return [json.loads(line) for line in (tmp_path / out).read_text("utf-8").splitlines()]


# What records mean


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TOOL = {"name": "f", "parameters": {"type": "object", "properties": {}}}
READ = {
    "prompt and completion": (
        {"prompt": "a", "completion": "b"},
        {"messages": [user("a"), assistant("b")]},
    ),
    "TRL's conversations": (
        {"prompt": [{"role": "system", "content": "s"}, user("a")], "completion": [assistant("b")]},
        {"messages": [{"role": "system", "content": "s"}, user("a"), assistant("b")]},
    ),
    "alpaca with input": (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"messages": [user("Add.\n\n1 2"), assistant("3")]},
    ),
    "alpaca with history and system": (
        {"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]},
        {"messages": [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c"), assistant("d")]},
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
            ]
        },
        {"messages": [{"role": "system", "content": "s"}, user("a"), assistant("b")]},
    ),
    "ShareGPT with tools": (
        {
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "b"},
            ],
            "tools": json.dumps([TOOL]),
        },
        {
            "messages": [
                user("a"),
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "2"},
                assistant("b"),
            ],
            "tools": [{"type": "function", "function": TOOL}],
        },
    ),
    "chosen and rejected": (
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {
            "input": {"messages": [user("a")]},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [assistant("c")],
        },
    ),
    "an implicit prompt": (
        {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]},
        {
            "input": {"messages": [user("a")]},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [assistant("c")],
        },
    ),
    "OpenAI's preference": (PAIR, PAIR),
    "reinforcement": (
        {"messages": [user("2+2?")], "answer": {"value": 4}},
        {"messages": [user("2+2?")], "answer": {"value": 4}},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_each_format_is_recognised_and_read(tmp_path: Path, name: str):
    record, example = READ[name]
    assert converted(tmp_path, lines(record, record)) == [example, example]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"prompt": "a", "completion": "b", "id": 7}, "id would be lost"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "score": 1}, "score would be lost"),
        ({"conversations": [{"from": "human", "value": "a", "mood": 1}]}, r"conversations\[0\].mood"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "'robot', which is not a known role"),
        ({"conversations": [{"from": "observation", "value": "a"}]}, "without a call before it"),
        ({"instruction": 3, "output": "a"}, "instruction is missing or is not text"),
        ({"question": "a", "answer": "b"}, "which belong to no known format"),
        ({"chosen": [user("a")], "rejected": [user("b")]}, "do not have the same beginning"),
        ({"prompt": "a", "completion": None}, "completion is missing"),
    ],
)
def test_what_cannot_be_read_or_would_be_lost_is_named_with_its_line(tmp_path: Path, record: Any, problem: str):
    before = READ["chosen and rejected" if "chosen" in record else "prompt and completion"][0]
    with pytest.raises(DataError, match=rf"in.jsonl:2 .*{problem}"):
        converted(tmp_path, lines(before, record))
    assert not (tmp_path / "out.jsonl").exists()


def test_fields_go_by_name_or_stay_beside_the_messages(tmp_path: Path):
    content = lines({"prompt": "a", "completion": "b", "id": 7})
    assert converted(tmp_path, content, drop=("id",)) == [{"messages": [user("a"), assistant("b")]}]
    assert converted(tmp_path, content, keep=True) == [{"messages": [user("a"), assistant("b")], "id": 7}]


def test_columns_are_mapped_and_a_system_message_is_put_where_there_is_none(tmp_path: Path):
    content = b"question,answer\na,b\n"
    recipe = {"columns": (("prompt", "question"), ("completion", "answer")), "system": "Be brief."}
    wanted = [{"role": "system", "content": "Be brief."}, user("a"), assistant("b")]
    assert converted(tmp_path, content, name="in.csv", **recipe) == [{"messages": wanted}]
    assert converted(tmp_path, lines({"messages": wanted}), system="Other.") == [{"messages": wanted}]


def test_bad_records_can_be_left_out_and_are_told(tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_bytes(lines(CHAT) + b"{broken\n" + lines(CHAT))
    done = convert(str(source), str(tmp_path / "out.jsonl"), Recipe(skip_bad=True))
    assert done.examples == 2
    assert len(done.skipped) == 1
    assert "in.jsonl:2" in done.skipped[0]


# Round trips

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@st.composite
def chats(draw: st.DrawFn, turns: int) -> dict[str, Any]:
    system = draw(st.none() | texts)
    messages = [{"role": "system", "content": system}] if system is not None else []
    for _ in range(draw(st.integers(1, turns))):
        messages += [user(draw(texts)), assistant(draw(texts))]
    return {"messages": messages}


@pytest.mark.parametrize(("shape", "turns"), [("prompt_completion", 1), ("alpaca", 3), ("sharegpt", 3), ("chat", 3)])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_chat_comes_back_from_every_shape_that_can_hold_it(shape: Any, turns: int, data: st.DataObject):
    example = data.draw(chats(turns))
    back = read(write(example, shape), shape)
    assert back.example == example
    assert back.left == {}


@pytest.mark.parametrize("out", ["x.csv", "x.tsv", "x.json", "x.parquet", "x.jsonl.gz", "x.json.zst", "x.csv.gz"])
@pytest.mark.parametrize("shape", ["chat", "prompt_completion", "sharegpt"])
@given(examples=st.lists(chats(1), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_chat_comes_back_from_every_container(tmp_path: Path, out: str, shape: Any, examples: list[dict[str, Any]]):
    if shape == "prompt_completion" or (shape == "sharegpt" and out != "x.json"):
        examples = [{"messages": [m for m in one["messages"] if m["role"] != "system"]} for one in examples]
    source, middle, back = (str(tmp_path / name) for name in ("in.jsonl", out, "back.jsonl"))
    Path(source).write_bytes(lines(*examples))
    convert(source, middle, Recipe(target=shape), force=True)
    convert(middle, back, Recipe(), force=True)
    assert [json.loads(line) for line in Path(back).read_bytes().decode().split("\n") if line] == examples


@pytest.mark.parametrize(
    ("example", "shape", "field"),
    [
        ({**CHAT, "tools": [{"type": "function"}]}, "sharegpt", "tools"),
        ({"messages": [user("a"), {**assistant("b"), "weight": 0}]}, "alpaca", r"messages\[1\].weight"),
        ({"messages": [user("a"), assistant("b"), user("c"), assistant("d")]}, "prompt_completion", "more than one"),
        ({"messages": [assistant("a"), user("b")]}, "alpaca", "user, assistant"),
        ({"messages": [user("a"), {"role": "tool", "content": "b"}]}, "sharegpt", "role tool"),
        (PAIR, "alpaca", "preference"),
        (CHAT, "chosen_rejected", "rejected"),
    ],
)
def test_what_a_shape_cannot_hold_is_refused_by_name(example: Any, shape: Any, field: str):
    with pytest.raises(ShapeError, match=field):
        write(example, shape)


def test_every_shape_is_in_the_table_of_shapes():
    from ftbridge.data.convert import shapes

    assert all(shape in (shapes.__doc__ or "") for shape in SHAPES)


# Containers


def test_a_json_array_is_read_element_by_element_with_its_lines(tmp_path: Path):
    text = "[\n" + ",\n".join(json.dumps(CHAT) for _ in range(3)) + "\n]\n"
    (tmp_path / "in.json").write_text(text)
    with (tmp_path / "in.json").open("rb") as stream:
        assert [record.line for record in read_records(stream, "in.json")] == [2, 3, 4]


def test_a_large_array_takes_the_memory_of_its_elements(tmp_path: Path):
    import tracemalloc

    big = json.dumps({"messages": [user("x" * 10_000), assistant("y")]})
    with (tmp_path / "in.json").open("w") as target:
        target.write("[" + ",".join([big] * 4_000) + "]")
    tracemalloc.start()
    with (tmp_path / "in.json").open("rb") as stream:
        assert sum(record.value is not None for record in read_records(stream, "in.json")) == 4_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000 < (tmp_path / "in.json").stat().st_size


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a,a\n1,2\n", "names the column a twice"),
        (b"a,\n1,2\n", "a column without a name"),
        (b"prompt,completion\na,b,c\n", "in.csv:2 has 3 cells; the header has 2"),
        (b'prompt,completion\n"a\nb",c\n"d,e\n', "in.csv:4 cannot be read"),
        (b"prompt,completion\ncaf\xe9,b\n", "in.csv:2 prompt is not UTF-8"),
    ],
)
def test_tables_that_are_damaged_are_told_with_their_line(tmp_path: Path, content: bytes, problem: str):
    with pytest.raises((DataError, UsageError), match=problem):
        converted(tmp_path, content, name="in.csv")


def test_cells_may_hold_line_breaks_quotes_and_a_byte_order_mark(tmp_path: Path):
    content = b'\xef\xbb\xbfprompt,completion\n"say ""hi""\nplease",hi\n'
    assert converted(tmp_path, content, name="in.csv") == [{"messages": [user('say "hi"\nplease'), assistant("hi")]}]


@pytest.mark.parametrize("cut", [10, 60, -8, -1])
def test_a_truncated_archive_is_said_and_nothing_is_written(tmp_path: Path, cut: int):
    complete = gzip.compress(lines(*[{"messages": [user(os.urandom(20).hex()), assistant("b")]} for _ in range(50)]))
    with pytest.raises(DataError):
        converted(tmp_path, complete[:cut], name="in.jsonl.gz")
    assert not (tmp_path / "out.jsonl").exists()


def test_an_archive_that_unpacks_without_end_is_stopped_unless_it_is_trusted(tmp_path: Path):
    bomb = gzip.compress((b" " * 9_999 + b"\n") * 30_000 + lines(CHAT))
    with pytest.raises(UsageError, match="unpacks to more than 250 times its size"):
        converted(tmp_path, bomb, name="in.jsonl.gz")
    assert converted(tmp_path, bomb, name="in.jsonl.gz", max_ratio=0) == [CHAT]


@given(content=st.binary(max_size=300))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_an_error_that_says_so_or_data(tmp_path: Path, content: bytes):
    with contextlib.suppress(DataError, UsageError):
        converted(tmp_path, content, name="in.dat")


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"NaN",
        b'{"messages": [], "messages": []}',
        b'{"prompt": NaN, "completion": "a"}',
    ],
)
def test_json_that_no_one_may_write_is_told(tmp_path: Path, raw: bytes):
    with pytest.raises((DataError, UsageError)):
        converted(tmp_path, raw + b"\n", source="chat")


# Files


def test_the_input_is_never_replaced_and_other_files_only_by_force(tmp_path: Path):
    source, link, other = tmp_path / "in.jsonl", tmp_path / "link.jsonl", tmp_path / "other.jsonl"
    source.write_bytes(lines(CHAT))
    link.symlink_to(source)
    other.write_text("mine")
    for out in (source, link):
        with pytest.raises(UsageError, match="is the input file"):
            convert(str(source), str(out), Recipe(), force=True)
    with pytest.raises(UsageError, match="exists"):
        convert(str(source), str(other), Recipe())
    assert other.read_text() == "mine"
    done = convert(str(source), str(other), Recipe(), force=True)
    assert done.sha256 == hashlib.sha256(other.read_bytes()).hexdigest()


def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ftbridge", "convert", *args], input=stdin, capture_output=True, check=False
    )


def test_the_command_works_in_a_pipe_and_exits_with_3_for_bad_records(tmp_path: Path):
    done = run("-", "-", stdin=lines({"prompt": "a", "completion": "b"}))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"messages": [user("a"), assistant("b")]})
    assert run("-", str(tmp_path / "out.jsonl"), stdin=b"{}\n").returncode == 3
    assert run("-", str(tmp_path / "out.xyz"), stdin=b"{}\n").returncode == 2
    assert run(str(tmp_path), str(tmp_path / "out.jsonl")).returncode == 2
    summary = run("-", str(tmp_path / "out.jsonl"), "--json", stdin=lines(CHAT))
    assert json.loads(summary.stdout)["examples"] == 1


class Cutting(BaseHTTPRequestHandler):
    """Breaks off the first answer in the middle, and knows ranges."""

    content = lines(*[{"prompt": f"question {i}", "completion": str(i)} for i in range(20_000)])
    requests: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        start = (
            int(wanted.removeprefix("bytes=").removesuffix("-"))
            if wanted and self.headers.get("If-Range") == '"v1"'
            else 0
        )
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        stop = len(self.content) // 2 if len(self.requests) == 1 else len(self.content)
        self.wfile.write(self.content[start:stop])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def cutting() -> Iterator[str]:
    Cutting.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/data.jsonl"
        server.shutdown()


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path, cutting: str):
    done = convert(cutting, str(tmp_path / "out.jsonl"), Recipe())
    assert done.examples == 20_000
    assert len(Cutting.requests) == 2
    assert Cutting.requests[1] is not None
    assert int(Cutting.requests[1].removeprefix("bytes=").removesuffix("-")) > 0
