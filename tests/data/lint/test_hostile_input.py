"""No input makes the linter crash or hang: each ends with findings, or one clear error, and leaves no process behind."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ftbridge.data.lint import Options, lint

GOOD = b'{"messages": [{"role": "user", "content": "Why %d?"}, {"role": "assistant", "content": "Because."}]}\n'
BIG = b"".join(GOOD % number for number in range(120_000))
COMMAND = [sys.executable, "-m", "ftbridge", "lint"]


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, timeout=60, **options)


def started(*arguments, **options):
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def children_of(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.005)
    return condition()


def processor_seconds():
    """Of this process and of children that have ended: a bound on these holds on a busy machine too."""
    return sum(os.times()[:4])


def around(text):
    return b'{"messages": [{"role": "user", "content": ' + text + b'}, {"role": "assistant", "content": "b"}]}\n'


_random = random.Random(7)
FILES = {
    "nothing": (b"", "FTB003"),
    "a blank line": (b"\n", "FTB003"),
    "blank lines, more than a first look": (b" \n" * 100_000, "FTB003"),
    "random bytes": (_random.randbytes(300_000), None),
    "random bytes without zeros": (_random.randbytes(300_000).replace(b"\0", b"") + b"\n", None),
    "zeros": (bytes(10_000), "FTB001"),
    "zeros in lines": (b'{"a": "\0"}\n' * 5, "FTB010"),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000 + b"\n", None),
    "deep objects": (around(b'{"a":' * 5_000 + b"1" + b"}" * 5_000), "FTB010"),
    "deeper than rules go": (around(b'[{"type": ' * 300 + b"1" + b"}]" * 300), "FTB010"),
    "a nested tool": (around(b'"a"')[:-2] + b', "tools": ' + b"[" * 190 + b"]" * 190 + b"}\n", None),
    "a long integer": (around(b"9" * 100_000), "FTB010"),
    "an integer no float holds": (around(b"9" * 4_000), "FTB0"),
    "a weight no float holds": (around(b'"a", "weight": ' + b"9" * 4_000), "FTB0"),
    "a large float": (around(b"1e999"), "FTB010"),
    "a small float": (around(b"1e-999"), "FTB0"),
    "not a number": (around(b"NaN"), "FTB010"),
    "a cut character": (around('"é"'.encode()[:-2]), "FTB011"),
    "surrogates": (around(b'"\\ud83d"'), None),
    "an object over lines": (b'{\n "messages": []\n}\n' * 3, "FTB001"),
    "an object that begins on the first line": (b'{ "messages": [\n ]\n}\n', "FTB001"),
    "an array": (b"[" + GOOD.strip() + b"]", "FTB001"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "FTB002"),
    "gzip": (b"\x1f\x8b\x08" + _random.randbytes(100), "FTB001"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_gets_findings_in_a_moment(name, tmp_path):
    raw, code = FILES[name]
    path = tmp_path / "train.jsonl"
    path.write_bytes(raw)
    began = processor_seconds()
    report = lint(path)

    assert processor_seconds() - began < 5
    assert not report.ok or code is None
    assert code is None or any(finding.code.startswith(code) for finding in report.files[0].findings)
    assert json.loads(report.model_dump_json())


LONG = {
    "one text": b'"' + b"a" * 100_000_000 + b'"',
    "one text of words": b'"' + b"word " * 20_000_000 + b'"',
    "lists": b"[" + b"[]," * 33_000_000 + b"1]",
    "escapes": b'"' + b"\\u0041" * 16_000_000 + b'"',
    "half of it": b'"' + b"\\n" * 50_000_000,
    "parts": b"[" + b",".join([b'{"type":"text","text":"a"}'] * 1_000_000) + b"]",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_line_of_100_mb_is_linted_in_bounded_time(name, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD % 1 + around(LONG[name]) + GOOD % 2)
    began = processor_seconds()
    report = lint(path, Options(jobs=2))

    assert processor_seconds() - began < 120
    assert report.files[0].lines == 3


def test_a_line_of_many_problems_tells_some_of_them(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(around(b"[" + b"[]," * 200_000 + b"1]"))
    began = processor_seconds()
    [file] = lint(path, Options(keep=10**9)).files

    assert processor_seconds() - began < 10
    assert file.rules["FTB033"] == 1_000


def test_a_line_longer_than_any_service_reads_is_told_without_reading_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ftbridge.data.lint.source.LONGEST_LINE", 5_000)
    monkeypatch.setattr("ftbridge.data.lint.source.PIECE", 1_000)
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD % 1 + around(b'"' + b"a" * 6_000 + b'"') + GOOD % 2 * 30)
    matches = [finding for finding in lint(path).files[0].findings if finding.severity == "error"]

    assert [(finding.line, finding.code) for finding in matches] == [(2, "FTB010")]


def test_a_folder_and_files_that_cannot_be_read_are_misuse(tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(GOOD % 1)
    secret.chmod(0)
    paths = [tmp_path, tmp_path / "absent.jsonl", "/dev/zero", "a\0b"] + ([secret] if os.geteuid() else [])
    for path in paths:
        done = run(path) if path != "a\0b" else run("a" * 5_000)
        assert done.returncode == 2, path
        assert b"Traceback" not in done.stderr


def test_a_pipe_and_standard_input_are_read_like_files(tmp_path):
    fifo = tmp_path / "train.jsonl"
    os.mkfifo(fifo)
    raw = GOOD % 1 * 12 + around(b"null")
    writer = threading.Thread(target=fifo.write_bytes, args=(raw,))
    writer.start()
    by_pipe = json.loads(run("--json", fifo).stdout)
    writer.join()
    by_input = json.loads(run("--json", "-", input=raw).stdout)

    for report in (by_pipe, by_input):
        assert [f["line"] for f in report["files"][0]["findings"] if f["code"] == "FTB021"] == [13]


def test_standard_input_is_checked_by_several_processes_too(tmp_path):
    done = run("--json", "--jobs", "2", "-", input=BIG)
    assert json.loads(done.stdout)["files"][0]["examples"] == 120_000


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(around(b"null") * 20_000)
    process = started("--max-findings", "0", path)
    process.stdout.readline()
    process.stdout.close()
    message = process.stderr.read()

    assert process.wait(30) in (0, 1, 3)
    assert b"Traceback" not in message


def test_a_killed_worker_is_a_clear_error_and_leaves_no_process(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(BIG * 4)
    process = started("--jobs", "3", path)
    children = until(lambda: children_of(process.pid) if len(children_of(process.pid)) == 2 else None)
    os.kill(children[0], signal.SIGKILL)
    message = process.communicate(timeout=60)[1].decode()

    assert process.returncode == 1
    assert "died" in message
    assert "--jobs 1" in message
    assert "Traceback" not in message
    assert until(lambda: not any(map(alive, children)))


@pytest.mark.parametrize("stage", ["click", "ftbridge.cli.options", "ftbridge.data.lint.engine", "the first finding"])
def test_ctrl_c_ends_all_processes_and_tells_what_was_found(stage, tmp_path):
    """At a stage that the command has reached, not after a time: Python itself, interrupted at its start, exits with 1."""
    path = tmp_path / "train.jsonl"
    path.write_bytes(around(b"null") + BIG * 8)
    finds = stage == "the first finding"
    imports = {} if finds else {"PYTHONPROFILEIMPORTTIME": "1"}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **imports}
    process = started("--jobs", "2", path, start_new_session=True, env=environment)
    for line in process.stdout if finds else process.stderr:
        if (b"FTB021" in line) if finds else (line.split(b"|")[-1].strip() == stage.encode()):
            break
    else:
        pytest.fail(f"the command ended and never came to {stage}")
    children = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    rest, errors = process.communicate(timeout=30)

    assert process.returncode in (130, -signal.SIGINT)
    assert not finds or b"so far" in rest
    assert not children or b"Traceback" not in errors
    assert until(lambda: not any(map(alive, children)))


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(BIG * 4)
    process = started("--jobs", "3", path)
    children = until(lambda: children_of(process.pid) if len(children_of(process.pid)) == 2 else None)
    process.kill()
    process.communicate()

    assert until(lambda: not any(map(alive, children)))
