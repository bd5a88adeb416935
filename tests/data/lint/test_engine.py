"""Linting as a whole: the same findings however the work is cut and shared, in order, counted, with true places."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbridge.data.lint import Linting, Options, lint
from ftbridge.data.lint import engine as engine_module
from ftbridge.data.lint import source as source_module
from ftbridge.errors import FtbridgeError, UsageError
from support.lint_inputs import damaged, written

GOOD = b'{"messages": [{"role": "user", "content": "Why %d?"}, {"role": "assistant", "content": "Because of %d."}]}\n'
NULL = b'{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "b"}]}\n'


def good(count: int) -> bytes:
    return b"".join(GOOD % (number, number) for number in range(count))


def findings(path: Path, **options):
    return [
        finding.model_dump() | {"start": finding.start} for finding in lint(path, Options(**options)).files[0].findings
    ]


AWKWARD = {
    "no line feed at the end": good(3) + NULL[:-1],
    "a byte order mark": b"\xef\xbb\xbf" + good(2) + NULL,
    "carriage returns": (good(2) + NULL).replace(b"\n", b"\r\n"),
    "carriage returns alone": (good(2) + NULL).replace(b"\n", b"\r"),
    "blank lines": b"\n\n" + good(2) + b"\n \n" + NULL + b"\n",
    "Latin-1 between": good(1) + '{"messages": "é"}\n'.encode("latin-1") + "{'é'}\n".encode() + good(1),
    "a line longer than pieces": good(1) + GOOD % (0, 10**200) + NULL + good(1),
    "a line cut at the end": good(2) + NULL[:40],
    "nothing but a line feed": b"\n",
}


@pytest.mark.parametrize("piece", [1, 7, 64, 1_000])
@pytest.mark.parametrize("raw", AWKWARD.values(), ids=AWKWARD)
def test_findings_do_not_depend_on_how_a_file_is_cut(raw, piece, tmp_path, monkeypatch):
    path = tmp_path / "train.jsonl"
    path.write_bytes(raw)
    result = lint(path)
    monkeypatch.setattr(source_module, "PIECE", piece)

    assert lint(path) == result


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(damaged() | written(), max_size=8), piece=st.integers(1, 200), end=st.sampled_from([b"", b"\n"]))
def test_any_file_is_judged_the_same_however_it_is_cut(lines, piece, end, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join(lines) + end)
    result = lint(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "PIECE", piece)
        assert lint(path) == result


@pytest.mark.parametrize("jobs", [2, 3])
def test_several_processes_find_what_one_finds_in_the_same_order(jobs, tmp_path, monkeypatch):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(good(40) + NULL + b"{\n" for _ in range(60)))
    alone = findings(path, jobs=1)
    monkeypatch.setattr(source_module, "PIECE", 5_000)
    monkeypatch.setattr(engine_module, "_SMALL", 0)

    assert findings(path, jobs=jobs) == alone
    assert [result["line"] for result in alone if result["code"] == "FTB021"] == list(range(41, 60 * 42, 42))


def test_a_process_with_threads_starts_its_workers_anew(tmp_path, monkeypatch):
    path = tmp_path / "train.jsonl"
    path.write_bytes(good(2_000) + NULL)
    alone = findings(path, jobs=1)
    monkeypatch.setattr(source_module, "PIECE", 5_000)
    monkeypatch.setattr(engine_module, "_SMALL", 0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert findings(path, jobs=2) == alone
    finally:
        stop.set()
        thread.join()


def test_places_are_bytes_from_the_beginning_of_the_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good(3) + NULL + good(3))
    with Linting([str(path)], Options()) as linting:
        [(_, result)] = [(name, one) for name, one in linting if one.code == "FTB021"]

        assert result.line == 4
        assert linting.line_at(str(path), result) == NULL[:-1]


def test_findings_are_kept_to_a_bound_and_counted_without(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(NULL * 50)
    [file] = lint(path, Options(select=("FTB021",), keep=5)).files

    assert len(file.findings) == 5
    assert file.errors == file.rules["FTB021"] == 50


def test_a_first_finding_does_not_wait_for_the_rest_of_the_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(good(50) + NULL + good(400_000))
    began = time.perf_counter()
    with Linting([str(path)], Options(jobs=1)) as linting:
        result = next(one for _, one in linting if one.code == "FTB021")

        first = time.perf_counter() - began
        assert result.line == 51
        assert not linting.report().complete
        for _ in linting:
            pass
    assert first < (time.perf_counter() - began) / 3


def test_an_interrupted_report_tells_what_was_found_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "PIECE", 2_000)
    path = tmp_path / "train.jsonl"
    path.write_bytes(NULL + good(1_000))
    with Linting([str(path)], Options()) as linting:
        next(iter(linting))
        report = linting.report()

    assert not report.complete
    assert not report.ok
    assert report.files[0].examples < 1_001


def test_the_method_is_told_by_a_first_line_longer_than_the_first_look(tmp_path):
    path = tmp_path / "train.jsonl"
    request = {"messages": [{"role": "user", "content": "why " * 200_000}]}
    completion = [{"role": "assistant", "content": "b"}]
    path.write_text(
        json.dumps({"input": request, "preferred_output": completion, "non_preferred_output": completion}) + "\n"
    )

    assert lint(path).files[0].method == "dpo"


def test_text_that_is_half_a_character_can_be_reported(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "a", "k\\ud83d": 1}, {"role": "assistant", "content": "b"}]}\n'
    )
    report = lint(path)

    assert any("\\ud83d" in (finding.field or "") for finding in report.files[0].findings)
    assert json.loads(report.model_dump_json())


def test_a_file_whose_name_is_no_utf8_can_be_reported(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    Path(path).write_bytes(NULL)
    report = lint(path)

    assert "caf\ufffd.jsonl" in report.model_dump_json()
    assert not report.ok


def _open_files():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_missing_file_closes_those_that_were_opened(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(good(2))
    before = _open_files()
    with pytest.raises(UsageError, match="no such file"):
        Linting([str(tmp_path / "train.jsonl"), str(tmp_path / "absent.jsonl")], Options())
    assert _open_files() == before


@pytest.mark.parametrize(
    "change", [lambda file: file.truncate(60_000), lambda file: file.write(good(1))], ids=["shorter", "longer"]
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_that_changes_while_it_is_read_is_an_error_that_says_so(change, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "PIECE", 5_000)
    monkeypatch.setattr(engine_module, "_SMALL", 0)
    path = tmp_path / "train.jsonl"
    path.write_bytes(NULL + good(20_000))
    with Linting([str(path)], Options(jobs=jobs)) as linting, path.open("r+b") as file:
        following = iter(linting)
        next(one for _, one in following if one.line == 1)
        file.seek(0, os.SEEK_END)
        change(file)
        file.flush()
        with pytest.raises(FtbridgeError, match="was changed while it was linted") as raised:
            list(following)
    assert raised.value.exit_code == 1
    assert raised.value.hint


_LIGHT = """
import sys
from ftbridge.data.lint import lint, Options
lint(sys.argv[1], Options(select=("FTB0",)))
print([name for name in ("numpy", "rensa", "toktok", "bpe_openai", "torch", "httpx") if name in sys.modules])
"""


def test_rules_of_structure_load_no_library_that_they_do_not_need(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(good(20) + NULL)
    result = subprocess.run([sys.executable, "-c", _LIGHT, path], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
