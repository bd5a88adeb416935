"""Reading sources: formats, line numbers, bad lines, missing files, downloads over real HTTP."""

import csv
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ftbridge.data.convert.formats import read_examples
from ftbridge.errors import DataError, FtbridgeError, UsageError


def _line(question="q", reply="a"):
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return json.dumps({"messages": chat}, ensure_ascii=False)


def _questions(examples):
    return [item.example.messages[0].text for item in examples]


def _problems(folder, content, name="t.jsonl", **options):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_examples(name, base=folder, **options)
    return list(caught.value.problems)


def test_blank_lines_crlf_and_a_byte_order_mark_do_not_shift_line_numbers(tmp_path):
    text = f"\r\n{_line('one')}\r\n\r\n  \r\n{_line('two')}"
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    examples = read_examples("t.jsonl", base=tmp_path)
    assert [(item.file, item.line) for item in examples] == [("t.jsonl", 2), ("t.jsonl", 5)]
    assert examples[1].origin == "t.jsonl:5"


def test_line_separators_inside_a_text_do_not_end_a_line(tmp_path):
    odd = "a\u2028b\u0085c"
    (tmp_path / "t.jsonl").write_bytes(f"{_line(odd)}\n{_line('two')}\n".encode())
    examples = read_examples("t.jsonl", base=tmp_path)
    assert _questions(examples) == [odd, "two"]
    assert [item.line for item in examples] == [1, 2]


def test_a_json_array_is_read_with_the_line_each_element_begins_on(tmp_path):
    document = (
        f"\ufeff\n[\n  {_line('one')},\n\n  {json.dumps(json.loads(_line('two')), indent=2)},\n{_line('three')}]\n"
    )
    (tmp_path / "t.json").write_bytes(document.encode())
    for format in ("auto", "json"):
        examples = read_examples("t.json", base=tmp_path, format=format)
        assert [(item.line, question) for item, question in zip(examples, _questions(examples), strict=True)] == [
            (3, "one"),
            (5, "two"),
            (17, "three"),
        ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "t.jsonl is empty"),
        ("\n \r\n", "t.jsonl is empty"),
        ("[]", "t.jsonl is an empty list"),
        ('{"messages": 3', "t.jsonl:1 is not valid JSON at column 15: expecting ',' delimiter. The text ends there"),
        (
            f"{_line()}\n" + '{"messages": [{"role": "us',
            "t.jsonl:2 is not valid JSON at column 24: unterminated string",
        ),
        ('{"messages": [}\n', "t.jsonl:1 is not valid JSON at column 15: expecting value."),
        (f"{_line()}{_line()}\n", "t.jsonl:1 continues after its JSON ends, at column"),
        (b"\n\n" + _line("\xe9").encode("latin-1"), "t.jsonl:3 is not UTF-8 at byte 44 (0xe9)."),
        (_line().encode("utf-16"), "t.jsonl is UTF-16 text"),
        (b"PK\x03\x04rest", "t.jsonl is a zip archive"),
        (b"\x1f\x8b\x08\x00rest", "t.jsonl cannot be read to its end"),
        ('{"messages": [], "messages": []}', 't.jsonl:1 has the key "messages" twice'),
        (_line()[:-1] + ', "score": NaN}', "t.jsonl:1 holds NaN"),
        (_line()[:-1] + ', "score": 1e999}', "t.jsonl:1 holds 1e999"),
        (_line()[:-1] + ', "half": "\\ud83d"}', "t.jsonl:1 holds half of a \\u surrogate pair"),
        (_line()[:-1] + ', "deep": ' + "[" * 100_000, "t.jsonl:1 is nested too deeply"),
        (_line()[:-1] + ', "deep": ' + "[" * 400 + "]" * 400 + "}", "t.jsonl:1 is nested too deeply"),
        (json.dumps(json.loads(_line()), indent=1), "t.jsonl:1 opens an object over several lines"),
        ("3\n", "t.jsonl:1 is a number; each example is a JSON object"),
        ('{"messages":[{"role":"assistant","content":null}]}', "t.jsonl:1 messages[0].content is null but the message"),
        (f"[{_line()},\n{_line()[:30]}", "t.jsonl:2 is not valid JSON"),
        (f"[{_line()}\n{_line()}]", "t.jsonl:2 is not valid JSON at column 1: expecting ',' delimiter"),
        (f"[{_line()},\n]", "t.jsonl:1 is not valid JSON"),
        (f"[{_line()}]\n[]", "t.jsonl:2 continues after the end of the JSON array"),
        (b"[\n" + _line("\xe9").encode("latin-1") + b"]", "t.jsonl:2 is not UTF-8 at byte 44"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_line_and_reason(tmp_path, content, says):
    problems = _problems(tmp_path, content)
    assert len(problems) == 1
    assert problems[0].startswith(says)


def test_only_a_line_without_an_end_is_called_truncated(tmp_path):
    cut = _line()[:-5]
    assert "truncated" in _problems(tmp_path, f"{_line()}\n{cut}")[0]
    assert "truncated" not in _problems(tmp_path, f"{cut}\n{_line()}\n")[0]
    assert "truncated" in _problems(tmp_path, _line("é").encode()[: _line("é").encode().index(b"\xc3") + 1])[0]
    assert "truncated" in _problems(tmp_path, f"[{_line()},")[0]


def test_a_named_format_is_believed(tmp_path):
    assert "is not a JSON array" in _problems(tmp_path, _line(), format="json")[0]
    assert "is a list" in _problems(tmp_path, f"[{_line()}]", format="jsonl")[0]


def test_reading_an_array_goes_on_after_an_element_with_a_key_twice(tmp_path):
    problems = _problems(tmp_path, f'[{{"a": 1, "a": 2}},\n{_line()},\n{{"messages": 3}}]')
    assert [problem.split(" ")[0] for problem in problems] == ["t.jsonl:1", "t.jsonl:3"]


def test_all_problems_of_all_files_are_collected_and_twenty_are_shown(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"messages": 1}\n')
    (tmp_path / "a.jsonl").write_text(f"{_line()}\n" + '{"messages": 1}\n' * 22)
    with pytest.raises(DataError) as caught:
        read_examples(["a.jsonl", "b.jsonl"], base=tmp_path)
    assert caught.value.exit_code == 3
    assert len(caught.value.problems) == 23
    assert caught.value.problems[0].startswith("a.jsonl:2 messages ")
    assert caught.value.problems[-1].startswith("b.jsonl:1 ")
    assert str(caught.value).startswith("23 problems in the data:\n  a.jsonl:2 ")
    assert str(caught.value).count(".jsonl:") == 20
    assert str(caught.value).endswith("… and 3 more")


def test_globs_are_read_in_sorted_order_and_each_file_once(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.jsonl", "a.jsonl", "more/c.jsonl", "more/skip.txt"):
        (tmp_path / name).write_text(_line(name))
    assert _questions(read_examples("*.jsonl", base=tmp_path)) == ["a.jsonl", "b.jsonl"]
    assert _questions(read_examples("**/*.jsonl", base=tmp_path)) == ["a.jsonl", "b.jsonl", "more/c.jsonl"]
    assert _questions(read_examples(["b.jsonl", "./b.jsonl", "*.jsonl"], base=tmp_path)) == ["b.jsonl", "a.jsonl"]
    assert _questions(read_examples(str(tmp_path / "more" / "*.jsonl"), base=tmp_path / "more")) == ["more/c.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_read_as_named(tmp_path):
    (tmp_path / "data[1].jsonl").write_text(_line("brackets"))
    (tmp_path / "data1.jsonl").write_text(_line("matched"))
    assert _questions(read_examples("data[1].jsonl", base=tmp_path)) == ["brackets"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("trian.jsonl", "Did you mean train.jsonl?"),
        ("zzz", "contains train.jsonl."),
        ("nowhere/train.jsonl", "does not exist either"),
        ("*.json", "no file matches"),
        (".", "is a folder"),
        ("ftp://host/x.jsonl", "paths, globs, http(s) and hf://"),
        ("hf://OWNER/NAME", "hf://datasets/OWNER/NAME/path/to/file.jsonl"),
        ([], "names no file"),
    ],
)
def test_a_source_that_cannot_be_found_is_a_usage_error_that_helps(tmp_path, source, says):
    (tmp_path / "train.jsonl").write_text(_line())
    with pytest.raises(UsageError, match=says.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")) as caught:
        read_examples(source, base=tmp_path)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_named_by_the_path_that_was_tried(tmp_path):
    with pytest.raises(UsageError) as caught:
        read_examples("sub/../train.jsonl", base=tmp_path)
    assert str(tmp_path.resolve() / "train.jsonl") in str(caught.value)


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "q"}]},
    "preferred_output": [{"role": "assistant", "content": "a"}],
    "non_preferred_output": [{"role": "assistant", "content": "b"}],
}


@pytest.mark.parametrize(
    ("method", "record", "example"),
    [
        ("supervised", {"prompt": "q", "completion": "a"}, CHAT),
        ("supervised", {"instruction": "q", "input": "", "output": "a", "id": 7}, {**CHAT, "id": 7}),
        ("supervised", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, CHAT),
        ("dpo", PAIR, PAIR),
        ("dpo", {"prompt": "q", "chosen": "a", "rejected": "b"}, PAIR),
        (
            "reinforcement",
            {"messages": CHAT["messages"][:1], "reference": "a"},
            {"messages": CHAT["messages"][:1], "reference": "a"},
        ),
    ],
)
def test_records_of_every_shape_become_examples_of_the_method(tmp_path, method, record, example):
    (tmp_path / "t.jsonl").write_text(f"\n{json.dumps(record)}\n")
    (read,) = read_examples("t.jsonl", base=tmp_path, method=method)
    assert json.loads(read.example.canonical()) == example
    assert read.origin == "t.jsonl:2"


def test_tables_and_compressed_files_are_read_like_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"prompt": f"q{number},\nmore", "completion": f"a{number}"} for number in range(3)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    read = {name: read_examples(name, base=tmp_path) for name in ("t.csv", "t.parquet", "t.jsonl.gz")}
    lines = {name: [item.example.canonical() for item in items] for name, items in read.items()}
    assert lines["t.csv"] == lines["t.parquet"] == lines["t.jsonl.gz"]
    assert [item.line for item in read["t.csv"]] == [2, 4, 6]
    assert _questions(read["t.csv"])[0] == "q0,\nmore"


def test_bad_rows_of_a_table_are_named_by_their_line(tmp_path):
    problems = _problems(tmp_path, "prompt,completion\nq,a\nq\n,a\n", name="t.csv")
    assert [problem.split(" ")[0] for problem in problems] == ["t.csv:3", "t.csv:4"]


def test_a_field_of_a_record_that_a_preference_cannot_hold_is_refused_by_name(tmp_path):
    record = {"prompt": "q", "chosen": "a", "rejected": "b", "score": 3}
    problems = _problems(tmp_path, json.dumps(record), method="dpo")
    assert problems == ["t.jsonl:1 score cannot be in a preference. Convert the file: ftbridge convert … --drop score."]


@pytest.mark.parametrize(
    ("record", "method", "says"),
    [
        (PAIR, "supervised", "t.jsonl holds preferences, which are not data for method supervised.\nSet method: dpo"),
        (PAIR, "reinforcement", "Set method: dpo"),
        (CHAT, "dpo", "t.jsonl holds chats, which are not data for method dpo.\nSet method: supervised"),
    ],
)
def test_a_file_for_another_method_is_one_error_about_the_method(tmp_path, record, method, says):
    (tmp_path / "t.jsonl").write_text(f"{json.dumps(record)}\n" * 3)
    with pytest.raises(UsageError) as caught:
        read_examples("t.jsonl", base=tmp_path, method=method)
    assert says in str(caught.value)


class _Server(ThreadingHTTPServer):
    """Answers from `script`, a list of (status, headers, body) for each path; the last one repeats."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.script = {}
        self.seen = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def tries(self, path):
        return [seen for seen, _ in self.seen].count(path)


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        responses = self.server.script.get(self.path, [(404, {}, b"")])
        status, headers, body = responses.pop(0) if len(responses) > 1 else responses[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_url_is_downloaded_through_redirects(server, tmp_path):
    server.script = {
        "/old": [(302, {"Location": "/new/t.jsonl"}, b"")],
        "/new/t.jsonl": [(200, {}, f"{_line('far')}\n".encode())],
    }
    assert _questions(read_examples(f"{server.address}/old", base=tmp_path)) == ["far"]


def test_secrets_in_a_url_reach_neither_origins_nor_errors(server, tmp_path):
    server.script = {"/t.jsonl?sig=SECRET": [(200, {}, _line().encode())]}
    url = f"{server.address}/t.jsonl?sig=SECRET".replace("http://", "http://me:PASSWORD@")
    assert read_examples(url, base=tmp_path)[0].origin == f"{server.address}/t.jsonl:1"
    with pytest.raises(UsageError) as caught:
        read_examples(url.replace("sig", "gone"), base=tmp_path)
    assert "404" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "PASSWORD" not in str(caught.value)


def test_a_lost_connection_and_a_busy_server_are_tried_again(server, tmp_path):
    body = f"{_line('one')}\n{_line('two')}\n".encode()
    cut = (200, {"Content-Length": "1000000"}, body * 3)
    server.script = {"/flaky": [(503, {}, b"busy"), cut, (200, {}, body)]}
    assert _questions(read_examples(f"{server.address}/flaky", base=tmp_path)) == ["one", "two"]
    assert server.tries("/flaky") == 3


def test_a_server_that_stays_down_is_given_up_after_three_tries(server, tmp_path):
    server.script = {"/down": [(500, {}, b"")]}
    with pytest.raises(FtbridgeError, match="in 3 tries: the server answered 500") as caught:
        read_examples(f"{server.address}/down", base=tmp_path)
    assert caught.value.exit_code == 1
    assert server.tries("/down") == 3


def test_a_wrong_address_is_tried_once(server, tmp_path):
    with pytest.raises(UsageError, match="answered 404"):
        read_examples(f"{server.address}/gone", base=tmp_path)
    assert server.tries("/gone") == 1


def test_a_download_of_more_than_a_gigabyte_is_refused(server, tmp_path):
    server.script = {"/big": [(200, {"Content-Length": "1000000001"}, b"")]}
    with pytest.raises(UsageError, match="larger than 1 GB"):
        read_examples(f"{server.address}/big", base=tmp_path)


def test_hub_datasets_are_fetched_from_the_endpoint_with_the_token(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{server.address}/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    main = "/datasets/own/set/resolve/main/data/train.jsonl"
    server.script = {
        main: [(200, {}, _line("main").encode())],
        "/datasets/own/set/resolve/refs%2Fpr%2F1/train.jsonl": [(200, {}, _line("pull").encode())],
        "/datasets/own/closed/resolve/main/t.jsonl": [(401, {}, b"")],
    }
    examples = read_examples("hf://datasets/own/set/data/train.jsonl", base=tmp_path)
    assert examples[0].origin == "hf://datasets/own/set/data/train.jsonl:1"
    assert server.seen == [(main, "Bearer hf_secret")]
    assert _questions(read_examples("hf://datasets/own/set/train.jsonl@refs/pr/1", base=tmp_path)) == ["pull"]
    with pytest.raises(UsageError, match="HF_TOKEN") as caught:
        read_examples("hf://datasets/own/closed/t.jsonl", base=tmp_path)
    assert "hf_secret" not in str(caught.value)


def test_the_hub_token_is_sent_to_no_other_address(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.script = {"/t.jsonl": [(200, {}, _line().encode())]}
    read_examples(f"{server.address}/t.jsonl", base=tmp_path)
    assert server.seen == [("/t.jsonl", None)]
