"""Repaired copies: what is safe is mended, everything else is as it was, and nothing fixable is left."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.fix import fix, fix_files
from ftbridge.errors import UsageError

GOOD = '{"messages":  [{"role": "user", "content": "caf\\u00e9"}, {"role": "assistant", "content": "Hello"}]}'


def fixed(tmp_path: Path, content: bytes, **options: Any) -> tuple[bytes, list[str]]:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content)
    report = fix(str(source), out, Options(**options))
    assert source.read_bytes() == content, "the original is never touched"
    left = lint(out, Options(**options))
    assert [finding for finding in left.files[0].findings if finding.fix] == [], "nothing fixable is left"
    return out.read_bytes(), [change.code for change in report.changes]


def test_lines_that_need_nothing_are_copied_byte_for_byte(tmp_path: Path):
    content = f"{GOOD}\n".encode() * 3
    assert fixed(tmp_path, content) == (content, [])


@pytest.mark.parametrize(
    ("content", "wanted", "code"),
    [
        (b"\xef\xbb\xbf" + GOOD.encode() + b"\n", GOOD.encode() + b"\n", "FTB004"),
        (GOOD.encode() + b"\r\n", GOOD.encode() + b"\n", "FTB008"),
        (GOOD.encode() + b"\n\n  \n", GOOD.encode() + b"\n", "FTB007"),
        (GOOD.encode(), GOOD.encode() + b"\n", None),
        (GOOD.encode() * 2, (GOOD.encode() + b"\n") * 2, "FTB012"),
    ],
)
def test_the_file_is_mended_around_lines_that_stay_as_they_are(
    tmp_path: Path, content: bytes, wanted: bytes, code: str | None
):
    out, codes = fixed(tmp_path, content)
    assert out == wanted
    assert codes == [code] * len(codes)
    assert bool(codes) is (code is not None)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([json.loads(GOOD)] * 2),
        json.dumps([json.loads(GOOD)] * 2, indent=2),
        "\n".join([json.dumps(json.loads(GOOD), indent=2)] * 2),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_arrays_and_spread_objects_in_any_unicode_become_lines(tmp_path: Path, text: str, encoding: str):
    out, _ = fixed(tmp_path, text.encode(encoding))
    assert [json.loads(line) for line in out.splitlines()] == [json.loads(GOOD)] * 2


def test_azure_gets_its_byte_order_mark_once(tmp_path: Path):
    for content in (GOOD.encode(), b"\xef\xbb\xbf" + GOOD.encode()):
        out, _ = fixed(tmp_path, content + b"\n", target="azure")
        assert out == b"\xef\xbb\xbf" + GOOD.encode() + b"\n"


def test_each_change_says_where_it_was_and_is(tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_text(f"{GOOD}\n\n" + GOOD.replace("assistant", "Assistant") + "\n{broken\n")
    report = fix(str(source), tmp_path / "out.jsonl", Options())
    names = {(change.line, change.out_line, change.code) for change in report.changes}
    assert names == {(2, None, "FTB007"), (3, 2, "FTB029")}
    assert (report.lines, report.changed) == (3, 1)
    assert "FTB010" in report.left.rules, "what is left is told"


def test_what_a_rule_is_not_asked_for_is_not_mended(tmp_path: Path):
    content = GOOD.replace("assistant", "Assistant").encode() + b"\n"
    assert fixed(tmp_path, content, ignore=("FTB029",))[0] == content


@pytest.mark.parametrize(
    ("content", "ignore", "target"),
    [
        (b"\xef\xbb\xbf" + GOOD.encode() + b"\n", ("FTB004",), "openai"),
        (b"\xef\xbb\xbf" + GOOD.encode() + b"\n", (), "local"),
        (GOOD.encode() + b"\r\n", ("FTB008",), "openai"),
        (GOOD.encode() + b"\n\n" + GOOD.encode() + b"\n", ("FTB007",), "openai"),
        (GOOD.encode() * 2 + b"\n", ("FTB012",), "openai"),
    ],
)
def test_the_file_around_lines_too_is_left_where_its_rule_is_not_asked_for(
    tmp_path: Path, content: bytes, ignore: tuple[str, ...], target: str
):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content)
    report = fix(str(source), out, Options(target=target, ignore=ignore))
    assert out.read_bytes() == content
    assert report.changes == []


@pytest.mark.parametrize("layout", ["[\n%s\n]", "[%s,\n%s]", "%s\n\n%s"])
def test_values_over_several_lines_keep_their_spelling(tmp_path: Path, layout: str):
    value = '{"messages": [\n  {"role": "user",\n   "content": "a\\nb \\u00e9"},\n {"role": "assistant", "content": "é"}]\n}'
    lines = layout.count("%s")
    out, _ = fixed(tmp_path, (layout % ((value,) * lines)).encode())
    wanted = '{"messages": [{"role": "user", "content": "a\\nb \\u00e9"}, {"role": "assistant", "content": "é"}]}\n'
    assert out.decode() == wanted * lines


def test_keys_that_contradict_each_other_are_left_to_a_person_in_an_array_too(tmp_path: Path):
    value = GOOD.replace('"content": "Hello"', '"content": "Hello", "content": "Bye"')
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"[{value},\n{GOOD}]")
    report = fix(str(source), out, Options())
    assert out.read_text() == f"{value}\n{GOOD}\n"
    assert report.left.rules["FTB014"] == 1


def _answer(document: Any) -> Any:
    """The assistant's message, wherever damage has moved it."""
    return next(message for message in document["messages"] if message["role"].lower() == "assistant")


damages = st.sampled_from(
    [
        lambda d: _answer(d).update(role="Assistant"),
        lambda d: _answer(d).update(weight=True),
        lambda d: _answer(d).update(weight="1"),
        lambda d: _answer(d).update(tool_calls=[]),
        lambda d: _answer(d).update(refusal=None),
        lambda d: d["messages"][0].update(timestamp=3),
        lambda d: d.update(id="a"),
        lambda d: d.update(tools=[]),
        lambda d: d.update(parallel_tool_calls="true"),
        lambda d: d["messages"][0].update(content=[{"type": "text", "text": "a"}]),
        lambda d: _answer(d).update(content=None),
        lambda d: d["messages"].insert(0, {"role": "system ", "content": "s"}),
        lambda d: d["messages"].append("text"),
        lambda d: _answer(d).update(
            tool_calls=[{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}], content=None
        ),
    ]
)


@given(
    damage=st.lists(st.lists(damages, max_size=4), min_size=1, max_size=4), target=st.sampled_from(["openai", "local"])
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_damaged_the_copy_has_nothing_fixable_and_no_new_error(tmp_path: Path, damage: Any, target: str):
    documents = []
    for changes in damage:
        document = copy.deepcopy(json.loads(GOOD))
        for change in changes:
            change(document)
        documents.append(document)
    content = _lines(documents)
    before = tmp_path / "before.jsonl"
    before.write_bytes(content)
    names = _errors(before, target)
    # What else is wrong with a message is told only when its role is known.
    for message in (message for document in documents for message in document["messages"] if message != "text"):
        message["role"] = message["role"].strip().lower()
    before.write_bytes(_lines(documents))
    names |= _errors(before, target)
    fixed(tmp_path, content, target=target, method="supervised")
    assert _errors(tmp_path / "out.jsonl", target) <= names


def _lines(documents: list[Any]) -> bytes:
    return "".join(f"{json.dumps(document)}\n" for document in documents).encode()


def _errors(path: Path, target: str) -> set[tuple[str, str | None]]:
    (file,) = lint(path, Options(target=target, method="supervised")).files
    return {(finding.code, finding.field) for finding in file.findings if finding.severity == "error"}


def test_the_original_is_never_the_copy(tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_text(GOOD)
    (tmp_path / "link.jsonl").symlink_to(source)
    for out in (source, tmp_path / "link.jsonl"):
        with pytest.raises(UsageError, match="is the input file"):
            fix(str(source), out, Options())


def test_several_files_go_to_a_folder(tmp_path: Path):
    paths = []
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(GOOD)
        paths.append(str(tmp_path / name))
    reports = fix_files(paths, str(tmp_path / "mended"), Options())
    assert [Path(report.out).name for report in reports] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(UsageError, match="is a file"):
        fix_files(paths, paths[0], Options())
    with pytest.raises(UsageError, match="are named a.jsonl"):
        fix_files([paths[0], paths[0]], str(tmp_path / "again"), Options())


@pytest.mark.parametrize("content", [b"PK\x03\x04zip", b"\x1f\x8bgzip", b"[1, 2", bytes(range(2)) * 200])
def test_what_cannot_be_repaired_is_said_and_nothing_is_written(tmp_path: Path, content: bytes):
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be repaired"):
        fix(str(source), tmp_path / "out.jsonl", Options())
    assert not (tmp_path / "out.jsonl").exists()
