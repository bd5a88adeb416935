"""Files that are not JSON Lines are named once, with what to do; those that only need lines can be mended."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.findings import FileReport
from ftbridge.data.lint.fix import fix
from ftbridge.errors import UsageError

TALKS = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]} for n in range(12)
]
LINES = "".join(json.dumps(talk) + "\n" for talk in TALKS)


def _zip(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


def looked_at(tmp_path: Path, name: str, content: bytes, target: str = "openai") -> FileReport:
    path = tmp_path / name
    path.write_bytes(content)
    return lint(path, Options(target=target, ignore=("FTB211",))).files[0]


@pytest.mark.parametrize(
    ("name", "content", "named", "advised"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer", "git lfs pull"),
        ("a.jsonl", b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page", "Download the file itself"),
        ("a.jsonl", b"\n\n<html lang='en'>", "a web page", "Download the file itself"),
        ("a.jsonl", b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "web page or XML", "Download"),
        ("a.jsonl", b"%PDF-1.7\n", "a PDF document", ""),
        ("a.zip", _zip("train.jsonl"), "a zip archive", "Unpack it"),
        ("a.xlsx", _zip("xl/workbook.xml"), "an Excel workbook", "`ftbridge convert"),
        ("a.csv", b"Question,Answer\nRain?,Yes\n", "a table (CSV)", "--map prompt=Question --map completion=Answer` reads it"),
        ("a.jsonl", b"prompt,completion\nRain?,Yes\n", "a table (CSV)", "`ftbridge convert"),
        ("a.txt", b"query;reply\nRain?;Yes\n", "CSV with semicolons", "--map prompt=query --map completion=reply`"),
        ("a.tsv", b"instruction\toutput\nRain?\tYes\n", "a table (TSV)", "`ftbridge convert"),
        ("a.csv", b"utterance,act\nHi,greet\nBye,leave\n", "a table (CSV)", "--map prompt=COLUMN --map completion=COLUMN"),
        ("a.txt", b"first,second\n1,2\n3,4\n", "a table (CSV)", "for its columns"),
        ("a.csv", "prompt;completion\nCafé?;Ja\n".encode("cp1252"), "CSV with semicolons", "out.jsonl --encoding cp1252` reads it"),
        ("a.gz", b"\x1f\x8b\x08\0", "gzip data", "`ftbridge convert"),
        ("a.parquet", b"PAR1", "a Parquet file", "`ftbridge convert"),
        ("a.csv", "Question;Answer\nRain?;Yes\n".encode("utf-16"), "UTF-16 text and a table", "--map prompt=Question"),
        ("a.json", json.dumps({"version": 1, "data": TALKS}, indent=1).encode(), 'whose "data" holds', ""),
        ("a.json", json.dumps({"name": "x", "examples": TALKS}).encode(), 'whose "examples" holds', ""),
        ("a.json", json.dumps({"train": [{"question": "Rain?", "answer": "Yes"}]}).encode(), 'whose "train" holds', ""),
    ],
)  # fmt: skip
def test_a_file_that_is_no_json_lines_has_one_error_that_says_what_it_is(
    name: str, content: bytes, named: str, advised: str, tmp_path: Path
) -> None:
    [finding] = looked_at(tmp_path, name, content).findings

    assert (finding.severity, finding.line) == ("error", None)
    assert named in finding.message
    assert advised in finding.message


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        json.dumps({"messages": TALKS[0]["messages"], "tools": [{"type": "function", "function": {"name": "f"}}]}),
        json.dumps({"data": [1, 2], "x": {"a": [{"b": 1}]}}),
        json.dumps({"conversations": [{"from": "human", "value": "Rain, snow, hail"}]}),
        '"one, two"\n"three, four"\n"five, six"\n',
        "Hello, world\nand, well, goodbye\nbye\n",
        "{'a': 1, 'b': 2}\n{'a': 1, 'b': 2}\n{'a': 1, 'b': 2}\n",
        json.dumps({"data": TALKS}) + "\n" + json.dumps({"data": TALKS}) + "\n",
    ],
)
def test_what_has_examples_or_slips_on_its_lines_is_looked_at_line_by_line(text: str, tmp_path: Path) -> None:
    assert "FTB001" not in looked_at(tmp_path, "a.jsonl", text.encode()).rules


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"version": "1.0", "data": TALKS}),
        json.dumps({"data": TALKS, "created": "2024-05-01", "count": 12}, indent=2),
        json.dumps(TALKS, indent=2).replace("\n]", ",\n]"),
        json.dumps(TALKS, indent=1).replace("[\n", "[ // all\n", 1),
        str(TALKS),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_examples_in_one_object_or_a_sloppy_array_become_lines(text: str, encoding: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_bytes(text.encode(encoding))
    fix(str(source), out, Options())

    assert [json.loads(line) for line in out.read_text().splitlines()] == TALKS


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"data": TALKS, "system": "Be brief."}, "beside the examples it has system"),
        ({"train": TALKS, "test": TALKS}, "under train and test"),
        ({"data": TALKS, "tools": [{"type": "function"}]}, "beside the examples it has tools"),
    ],
)
def test_what_stands_beside_the_examples_is_not_thrown_away(
    document: dict[str, object], message: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=message):
        fix(str(source), tmp_path / "out.jsonl", Options())
    assert not (tmp_path / "out.jsonl").exists()
    for target in ("openai", "local"):
        [finding] = lint(source, Options(target=target)).files[0].findings
        assert (finding.severity, finding.fix) == ("error", None)
        assert message in finding.message


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("a.csv", "Question;Answer\nRain?;Yes\n".encode("utf-16"), "CSV with semicolons", "ftbridge convert"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        ("a.zip", _zip("train.jsonl"), "a zip archive", "Unpack"),
        ("a.csv", b"Question,Answer\nRain?,Yes\n", "it is CSV", "--map prompt=Question"),
    ],
)
def test_fix_says_what_it_cannot_repair(name: str, content: bytes, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        fix(str(path), tmp_path / "out.jsonl", Options())
    assert hint in str(caught.value.hint)


# Arrays, which runs on this machine read


def test_the_examples_of_an_array_are_linted_for_this_machine_by_their_lines(tmp_path: Path) -> None:
    talks = [*TALKS, TALKS[0], {"messages": []}]
    text = "[\n" + ",\n".join(json.dumps(talk) for talk in talks) + "\n]\n"
    report = looked_at(tmp_path, "train.json", text.encode(), target="local")

    by_name = {finding.code: finding for finding in report.findings}
    assert report.examples == 14
    assert by_name["FTB001"].severity == "info"
    assert by_name["FTB022"].line == 15
    assert (by_name["FTB300"].line, by_name["FTB300"].message) == (2, "is repeated in line 14. Keep one of them.")
    assert {code for code, finding in by_name.items() if finding.severity == "error"} == {"FTB022"}


def test_an_array_on_one_line_numbers_its_examples(tmp_path: Path) -> None:
    report = looked_at(tmp_path, "train.json", json.dumps([*TALKS, {"messages": []}]).encode(), target="local")

    assert [finding.line for finding in report.findings if finding.code == "FTB022"] == [13]


def test_the_examples_of_one_object_are_linted_here_too(tmp_path: Path) -> None:
    document = {"version": "1.0", "data": [*TALKS, {"messages": []}]}
    report = looked_at(tmp_path, "train.json", json.dumps(document).encode(), target="local")

    assert {(finding.code, finding.severity, finding.line) for finding in report.findings} == {
        ("FTB001", "info", None),
        ("FTB022", "error", 13),
    }


def test_a_broken_array_is_an_error_here_too(tmp_path: Path) -> None:
    report = looked_at(tmp_path, "train.json", json.dumps(TALKS)[:-5].encode() + b"\n", target="local")

    [finding] = report.findings
    assert (finding.code, finding.severity) == ("FTB001", "error")
    assert "cannot be read" in finding.message


def test_an_array_larger_than_a_piece_is_linted_whole(tmp_path: Path) -> None:
    talks = [
        {"messages": [{"role": "user", "content": f"{n} " + "x" * 900}, {"role": "assistant", "content": f"{n}"}]}
        for n in range(4_000)
    ]
    talks.append({"messages": []})
    report = looked_at(tmp_path, "train.json", json.dumps(talks, indent=1).encode(), target="local")

    assert report.examples == len(talks)
    assert report.errors == 1


# What `convert` does not read


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"prompt,completion\nRain?,Yes,No\n", "line 2 has 3 cells; the header has 2 columns."),
        ("a.csv", b"prompt,prompt\nRain?,Yes\n", "the header names the column prompt twice."),
        ("a.tar.gz", gzip.compress(b"train.jsonl\0\0\0"), "its first line does not look like any known format."),
    ],
)
def test_a_file_that_convert_does_not_read_is_not_said_to_be_read(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    [finding] = looked_at(tmp_path, name, content).findings

    assert f"does not read it as it is: {reason}" in finding.message
    assert "reads it" not in finding.message


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}},
        {"prompt": ["a", "b"], "completion": ["c", "d"]},
        {"messages": {"0": [{"role": "user", "content": "a"}]}},
    ],
)
def test_a_table_by_columns_is_named_and_not_said_to_be_read(record: dict[str, object], tmp_path: Path) -> None:
    [finding] = [f for f in looked_at(tmp_path, "a.jsonl", json.dumps(record).encode()).findings if f.line]

    assert "one object per row (pandas: to_json(path, orient='records', lines=True))" in finding.message
    assert "reads it" not in finding.message


def test_a_table_for_excel_needs_no_map(tmp_path: Path) -> None:
    [finding] = looked_at(tmp_path, "a.csv", b"sep=;\nprompt;completion\nRain?;Yes, lightly\n").findings

    assert "CSV with semicolons" in finding.message
    assert "--map" not in finding.message


def test_lines_that_are_encoded_twice_are_lines_of_text(tmp_path: Path) -> None:
    report = looked_at(tmp_path, "a.jsonl", "".join(json.dumps(json.dumps(talk)) + "\n" for talk in TALKS).encode())

    assert report.rules["FTB020"] == 12
    assert "FTB001" not in report.rules
    assert any("encoded twice" in finding.message for finding in report.findings)


def test_an_empty_list_has_no_example(tmp_path: Path) -> None:
    [finding] = looked_at(tmp_path, "a.jsonl", b"[]\n").findings

    assert (finding.code, finding.message) == ("FTB003", "is an empty list.")


# What is more than the line's messages


@pytest.mark.parametrize("target", ["openai", "local"])
def test_a_stored_completion_with_a_list_of_messages_is_another_format(target: str, tmp_path: Path) -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}]
    stored = [
        {
            "id": f"c{n}",
            "object": "chat.completion",
            "messages": [{"role": "user", "content": f"{n}?"}],
            "choices": choices,
        }
        for n in range(12)
    ]
    report = looked_at(tmp_path, "a.jsonl", "".join(json.dumps(one) + "\n" for one in stored).encode(), target=target)

    assert report.method == "supervised"
    assert report.rules["FTB023"] == 12
    assert (report.errors > 0) == (target == "openai")
    assert any("stored completions" in finding.message for finding in report.findings)


@pytest.mark.parametrize(
    ("model", "is_known"),
    [("gpt-9", False), ("llama", False), ("gpt-4.1-mini", True), ("ft:gpt-4o:org::x", True), (None, True)],
)
def test_a_model_that_is_not_known_is_noted(model: str | None, is_known: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)

    assert ("FTB206" not in lint(path, Options(model=model)).files[0].rules) == is_known
