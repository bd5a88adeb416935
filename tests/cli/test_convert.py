"""`ftbridge convert` as people and programs call it: pipes, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ftbridge
from support.paths import REPOSITORY

RECORD = {"prompt": "a", "completion": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def run(*args: str, cwd: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ftbridge", "convert", *args], cwd=cwd, input=stdin, capture_output=True, timeout=120, check=False
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_summary_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({**RECORD, "id": 1}) + "\n{broken\n")
    done = run("in.jsonl", "out.jsonl", "--drop", "id", "--skip-invalid", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["source"], document["out"], document["to"], document["examples"]) == (
        "in.jsonl",
        "out.jsonl",
        "chat",
        1,
    )
    assert (document["shapes"], document["dropped"], document["skipped_count"]) == (
        {"prompt_completion": 1},
        {"id": 1},
        1,
    )
    assert document["skipped"][0].startswith("in.jsonl:2 is not valid JSON")
    assert len(document["sha256"]) == 64


def test_people_are_told_what_was_left_out_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(RECORD) + "\n{broken\n")
    done = run("in.jsonl", "-", "--skip-invalid", cwd=tmp_path)
    assert json.loads(done.stdout) == CHAT
    assert "left out: in.jsonl:2 is not valid JSON" in done.stderr
    assert "-: 1 example from prompt_completion to chat" in done.stderr


@pytest.mark.parametrize(
    ("args", "content", "code", "says"),
    [
        (["in.jsonl", "out.jsonl"], "{}\n", 3, "in.jsonl:1 has the fields"),
        (["in.jsonl", "out.jsonl"], "", 3, "in.jsonl is empty"),
        (["in.jsonl", "out.jsonl"], "[]", 3, "in.jsonl is an empty list"),
        (["in.jsonl", "out.jsonl"], json.dumps({**RECORD, "id": 1}), 3, "--drop id drops them; --keep keeps them"),
        (["in.jsonl", "in.jsonl", "--force"], json.dumps(RECORD), 2, "is the input file"),
        (["in.jsonl", "out.docx"], json.dumps(RECORD), 2, "ftbridge writes no format with this file extension"),
        (["in.jsonl", "in.jsonl/x.jsonl"], json.dumps(RECORD), 2, "cannot be written"),
        (["in.jsonl", "."], json.dumps(RECORD), 2, "is a folder"),
        ([".", "out.jsonl"], "", 2, "is a folder"),
        (["on.jsonl", "out.jsonl"], "", 2, "Did you mean in.jsonl?"),
        (["in.jsonl", "-", "--json"], "", 2, "standard output"),
        (["in.jsonl", "out.jsonl", "--map", "prompt"], "", 2, "NAME=COLUMN"),
        (["in.jsonl", "out.jsonl", "--delimiter", "ab"], "", 2, "one character"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_says_what_to_do(
    tmp_path: Path, args: list[str], content: str, code: int, says: str
) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    done = run(*args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["in.jsonl"]


def test_pipes_of_the_shell_are_read_and_a_device_is_written(tmp_path: Path) -> None:
    line = json.dumps(RECORD)
    program = f"{sys.executable} -m ftbridge convert <(echo '{line}') /dev/null --json"
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 1
    assert not Path("/dev/null").is_file()


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text((json.dumps({"prompt": "a" * 200, "completion": "b"}) + "\n") * 20_000)
    program = f"{sys.executable} -m ftbridge convert in.jsonl - | head -1"
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(RECORD))
    (tmp_path / "in.jsonl").chmod(0)
    assert "cannot be read" in run("in.jsonl", "out.jsonl", cwd=tmp_path).stderr


def test_several_files_become_one(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps({"prompt": name, "completion": "x"}))
    done = run("*.jsonl", "all.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    requests = [example["messages"][0]["content"] for example in json.loads((tmp_path / "all.json").read_text())]
    assert requests == ["a.jsonl", "b.jsonl"]


def test_the_commands_of_the_examples_run_as_written(tmp_path: Path) -> None:
    folder = REPOSITORY / "examples" / "convert"
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    commands = re.findall(r"^    (ftbridge convert .*)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        program = command.replace("ftbridge", f"{sys.executable} -m ftbridge", 1)
        done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_python_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,answer,id\na,b,1\n")
    columns = {"prompt": "question", "completion": "answer"}
    with pytest.raises(ftbridge.FtbridgeError, match="id would be lost") as caught:
        ftbridge.convert(tmp_path / "in.csv", tmp_path / "out.jsonl", columns=columns)
    assert caught.value.exit_code == 3
    done = ftbridge.convert(tmp_path / "in.csv", tmp_path / "out.jsonl", columns=columns, drop=["id"])
    assert (done.examples, done.dropped) == (1, {"id": 1})
    assert json.loads((tmp_path / "out.jsonl").read_text()) == CHAT
