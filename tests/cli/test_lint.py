"""`ftbridge lint` as people and programs use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ftbridge
from ftbridge.spec import schemas

GOOD = '{"messages": [{"role": "user", "content": "Question %d"}, {"role": "assistant", "content": "Answer %d"}]}'
NULL = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null}]}'
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string", "format": "uri"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool"],
                "additionalProperties": False,
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "additionalProperties": False,
                                "properties": {
                                    "name": {"type": "string"},
                                    "semanticVersion": {"type": "string"},
                                    "rules": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/rule"}},
                                },
                            }
                        },
                    },
                    "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
                },
            },
        },
    },
    "$defs": {
        "rule": {
            "type": "object",
            "required": ["id"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "string"},
                "name": {"type": "string"},
                "shortDescription": TEXT,
                "fullDescription": TEXT,
                "help": TEXT,
                "defaultConfiguration": {"properties": {"level": {"enum": ["none", "note", "warning", "error"]}}},
            },
        },
        "result": {
            "type": "object",
            "required": ["message"],
            "additionalProperties": False,
            "properties": {
                "ruleId": {"type": "string"},
                "ruleIndex": {"type": "integer", "minimum": -1},
                "level": {"enum": ["none", "note", "warning", "error"]},
                "message": TEXT,
                "partialFingerprints": {"additionalProperties": {"type": "string"}},
                "locations": {"type": "array", "items": {"$ref": "#/$defs/location"}},
            },
        },
        "location": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "physicalLocation": {
                    "type": "object",
                    "required": ["artifactLocation"],
                    "additionalProperties": False,
                    "properties": {
                        "artifactLocation": {"properties": {"uri": {"type": "string", "pattern": "^[^ ]+$"}}},
                        "region": {
                            "type": "object",
                            "required": ["startLine"],
                            "additionalProperties": False,
                            "properties": {
                                name: {"type": "integer", "minimum": 1}
                                for name in ("startLine", "startColumn", "endColumn")
                            },
                        },
                    },
                }
            },
        },
    },
}
"""What is used here of the OASIS standard's sarif-schema-2.1.0.json."""

KEY = "sk-proj-" + "Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe" * 2


def run(*args: str, cwd: Path, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ftbridge", "lint", *args], input=stdin, capture_output=True, cwd=cwd, check=False,
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **env},
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def write(folder: Path, name: str = "train.jsonl", *bad: str, good: int = 12) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in [*[GOOD % (i, i) for i in range(good)], *bad]))
    return path


@pytest.mark.parametrize(
    ("args", "code"), [(["train.jsonl"], 0), (["bad.jsonl"], 3), (["no.jsonl"], 2), ([], 2), (["."], 2),
                       (["train.jsonl", "--select", "FTB99"], 2), (["train.jsonl", "--target", "aws"], 2),
                       (["train.jsonl", "bad.jsonl", "--ignore", "FTB021"], 0), (["--explain", "FTB021"], 0),
                       (["--explain", "missing-content"], 0), (["--explain", "FTB777"], 2)]
)  # fmt: skip
def test_exit_codes(tmp_path: Path, args: list[str], code: int):
    write(tmp_path)
    write(tmp_path, "bad.jsonl", NULL)
    done = run(*args, cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_finding_is_shown_with_its_line_its_field_and_the_piece_underlined(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL)
    shown = run("train.jsonl", cwd=tmp_path).stdout.splitlines()
    at = shown.index("error FTB021 missing-content")
    assert shown[at + 1].split()[:3] == ["train.jsonl:13", "messages[1].content", "is"]
    below = next(index for index, line in enumerate(shown) if "‾" in line)
    start, length = shown[below].index("‾"), shown[below].count("‾")
    assert shown[below - 1][start : start + length] == "null"
    assert all(len(line) <= 80 and line == line.rstrip() for line in shown[:-1])
    assert shown[-1].startswith("1 error")


def test_in_a_pipe_a_sentence_stays_on_one_line(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL)
    command = [sys.executable, "-m", "ftbridge", "lint", "train.jsonl"]
    without = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=without).stdout
    assert "train.jsonl:13 messages[1].content is null but the message has no tool_calls. Give it text, or" in shown


def test_the_json_document_is_as_promised(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL)
    done = run("train.jsonl", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    jsonschema.validate(document, schemas.schema("lint-report"))
    assert document["ok"] is False
    (file,) = document["files"]
    assert {"path", "examples", "tokens", "errors", "warnings", "findings"} <= file.keys()
    assert (file["path"], file["examples"], file["errors"]) == ("train.jsonl", 13, 1)
    assert file["tokens"] > 100
    finding = next(finding for finding in file["findings"] if finding["severity"] == "error")
    assert finding.keys() == {"code", "severity", "line", "field", "message", "fix"}
    assert (finding["code"], finding["line"], finding["field"]) == ("FTB021", 13, "messages[1].content")


def test_standard_input_is_a_file_like_others(tmp_path: Path):
    done = run("-", "--json", cwd=tmp_path, stdin=write(tmp_path).read_bytes())
    assert json.loads(done.stdout)["files"][0]["examples"] == 12


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
def test_a_secret_is_masked_in_every_form_also_beside_another_finding(tmp_path: Path, form: str):
    line = json.dumps(
        {"messages": [{"role": "user", "content": f"use {KEY} ok"}, {"role": "Assistant", "content": "x"}]}
    )
    write(tmp_path, "train.jsonl", line)
    done = run("train.jsonl", "--format", form, cwd=tmp_path)
    assert "FTB400" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert KEY[10:40] not in done.stdout + done.stderr


def test_github_annotations_are_escaped(tmp_path: Path):
    write(tmp_path, "a,b:c%.jsonl", NULL)
    line = next(
        line for line in run("a,b:c%.jsonl", "--format", "github", cwd=tmp_path).stdout.splitlines() if "FTB021" in line
    )
    assert line.startswith(
        "::error file=a%2Cb%3Ac%25.jsonl,title=FTB021 missing-content,line=13,col=83,endColumn=87::"
        "messages[1].content is null"
    )


def test_sarif_points_at_the_piece_and_describes_its_rules(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL.replace("Hi", "😀"))
    write(tmp_path, "a file.jsonl", "{broken")
    done = run("train.jsonl", "a file.jsonl", "--format", "sarif", cwd=tmp_path)
    log: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(log, SARIF)
    (match,) = log["runs"]
    rules = match["tool"]["driver"]["rules"]
    for result in match["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
    error = next(result for result in match["results"] if result["ruleId"] == "FTB021")
    region = error["locations"][0]["physicalLocation"]["region"]
    line = NULL.replace("Hi", "😀")
    units = line.encode("utf-16-le")
    piece = units[2 * (region["startColumn"] - 1) : 2 * (region["endColumn"] - 1)].decode("utf-16-le")
    assert (region["startLine"], piece) == (13, "null")


def test_many_findings_of_a_rule_are_folded_unless_all_are_wanted(tmp_path: Path):
    write(tmp_path, "train.jsonl", *[NULL] * 30)
    folded, complete = (
        run("train.jsonl", cwd=tmp_path).stdout,
        run("train.jsonl", "--max-findings", "0", cwd=tmp_path).stdout,
    )
    assert folded.count("error FTB021") == 5
    assert "and 25 more FTB021" in folded
    assert complete.count("error FTB021") == 30
    assert "more FTB021" not in complete
    assert "30 errors" in folded.replace("\n", " ")


def test_statistics_count_by_rule(tmp_path: Path):
    write(tmp_path, "train.jsonl", *[NULL] * 3)
    assert ["3", "FTB021"] in [
        line.split()[:2] for line in run("train.jsonl", "--statistics", cwd=tmp_path).stdout.splitlines()
    ]


def test_leakage_is_looked_for_between_the_files_of_a_job(tmp_path: Path):
    write(tmp_path)
    write(tmp_path, "held.jsonl", good=3)
    alone = json.loads(run("held.jsonl", "--json", cwd=tmp_path).stdout)
    both = json.loads(run("train.jsonl", "--test", "held.jsonl", "--json", cwd=tmp_path).stdout)
    assert not any(code.startswith("FTB35") or "leak" in code for code in alone["files"][0]["rules"])
    codes = {finding["code"] for finding in both["files"][1]["findings"] if "train.jsonl" in finding["message"]}
    assert codes


def test_settings_of_the_project_hold_and_the_command_line_wins(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL)
    (tmp_path / "pyproject.toml").write_text('[tool.ftbridge.lint]\nignore = ["FTB021"]\ntarget = "local"\n')
    assert run("train.jsonl", cwd=tmp_path).returncode == 0
    assert json.loads(run("train.jsonl", "--json", "--target", "azure", cwd=tmp_path).stdout)["target"] == "azure"
    (tmp_path / "pyproject.toml").write_text('[tool.ftbridge.lint.per-file-ignores]\n"train*" = ["FTB021"]\n')
    assert run("train.jsonl", cwd=tmp_path).returncode == 0


def test_fix_writes_a_copy_and_says_what_it_did_and_what_is_left(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL, (GOOD % (99, 99)).replace("assistant", "Assistant"))
    done = run("train.jsonl", "--fix", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 3
    assert "train.jsonl:14 messages[1].role" in done.stdout
    assert "14 lines, 1 of them fixed. Not fixed:  1 error (ftbridge lint out.jsonl)." in done.stdout
    assert (tmp_path / "out.jsonl").read_text().count('"assistant"') == 14


def test_fix_shows_the_first_changes_of_each_rule_and_counts_them_all(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(
        "".join(GOOD % (n, n) + "\n" for n in range(12)).replace("assistant", "Assistant")
    )
    done = run("train.jsonl", "--fix", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(FTB029)") == 5
    assert "12 FTB029 unknown-role" in done.stdout
    assert "Nothing is left to fix." in done.stdout
    assert run("train.jsonl", "--fix", "all.jsonl", "--max-findings", "0", cwd=tmp_path).stdout.count("(FTB029)") == 12
    assert "(FTB029)" not in run("train.jsonl", "--fix", "quiet.jsonl", "-q", cwd=tmp_path).stdout


def test_a_glob_that_the_shell_left_alone_is_opened(tmp_path: Path):
    (tmp_path / "data" / "more").mkdir(parents=True)
    for name in ("data/a.jsonl", "data/b [1].jsonl", "data/more/c.jsonl"):
        (tmp_path / name).write_text("".join(GOOD % (n, n) + "\n" for n in range(12)))

    def linted(*names: str) -> list[str]:
        report = json.loads(run(*names, "--json", cwd=tmp_path).stdout)
        return [file["path"] for file in report["files"]]

    assert linted("data/*.jsonl") == ["data/a.jsonl", "data/b [1].jsonl"]
    assert linted("data/**/*.jsonl") == ["data/a.jsonl", "data/b [1].jsonl", "data/more/c.jsonl"]
    assert linted("data/b [1].jsonl") == ["data/b [1].jsonl"]
    missing = run("data/*.csv", cwd=tmp_path)
    assert missing.returncode == 2
    assert "data/*.csv: no file matches" in missing.stderr


def test_what_whole_lines_share_is_shown_once(tmp_path: Path):
    rows = [json.dumps({"question": f"{n}?", "answer": f"{n}!"}) for n in range(12)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    done = run("train.jsonl", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout.count("is in another format") == 1
    assert "and 11 more FTB023 other-format" in done.stdout


def test_output_for_a_terminal_that_knows_only_ascii_is_ascii(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL.replace("Hi", "é" * 90))
    done = run("train.jsonl", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 3, done.stderr
    assert done.stdout.isascii()
    assert "^^^^" in done.stdout
    assert "####" in done.stdout


def test_colour_is_for_terminals_that_want_it(tmp_path: Path):
    write(tmp_path, "train.jsonl", NULL)
    assert "\x1b[1;31merror" in on_a_terminal(tmp_path, "train.jsonl")
    assert "\x1b[1;31m" not in on_a_terminal(tmp_path, "train.jsonl", NO_COLOR="1")
    assert "\x1b" not in run("train.jsonl", cwd=tmp_path).stdout


def on_a_terminal(folder: Path, *args: str, **env: str) -> str:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "ftbridge", "lint", *args]
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM")}
    settings = {**inherited, "TERM": "xterm", "COLUMNS": "80", **env}
    with subprocess.Popen(command, cwd=folder, stdout=slave, stderr=subprocess.DEVNULL, env=settings) as process:
        os.close(slave)
        to_end = read_to_end(master)
        process.wait(timeout=60)
    return to_end


def read_to_end(descriptor: int) -> str:
    message = b""
    while True:
        try:
            more = os.read(descriptor, 1 << 16)
        except OSError:  # Linux's way to say that nobody holds the other end of a terminal
            more = b""
        if not more:
            os.close(descriptor)
            return message.decode()
        message += more


def test_files_of_a_job_are_told_apart_by_their_names_and_it_is_said(tmp_path: Path):
    write(tmp_path)
    write(tmp_path, "dev.jsonl", good=3)
    done = run("train.jsonl", "dev.jsonl", "--json", cwd=tmp_path)
    assert "FTB350" in json.loads(done.stdout)["files"][1]["rules"]
    assert done.stderr.startswith("dev.jsonl is taken for validation data because of its name")


@pytest.mark.parametrize("form", ["json", "github", "sarif"])
def test_programs_get_no_more_findings_than_asked_for(tmp_path: Path, form: str):
    write(tmp_path, "train.jsonl", *[NULL] * 30, (GOOD % (9, 9)).replace("assistant", "Assistant"))
    done = run("train.jsonl", "--format", form, "--max-findings", "7", cwd=tmp_path)
    output = {
        "json": lambda: [f for file in json.loads(done.stdout)["files"] for f in file["findings"]],
        "github": lambda: done.stdout.splitlines(),
        "sarif": lambda: json.loads(done.stdout)["runs"][0]["results"],
    }[form]()
    assert len(output) == 7
    assert done.returncode == 3


def test_fix_tells_programs_each_change(tmp_path: Path):
    write(tmp_path, "train.jsonl", "", (GOOD % (99, 99)).replace("assistant", "Assistant"))
    done = run("train.jsonl", "--fix", "out.jsonl", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    assert [(change["line"], change["out_line"], change["code"]) for change in document["files"][0]["changes"]] == [
        (13, None, "FTB007"),
        (14, 13, "FTB029"),
    ]


def test_a_pipe_that_closes_is_quiet(tmp_path: Path):
    write(tmp_path, "train.jsonl", *[NULL] * 5_000)
    command = [sys.executable, "-m", "ftbridge", "lint", "train.jsonl", "--max-findings", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=60)
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_ctrl_c_prints_what_was_found_so_far_after_a_bar_told_how_far_it_was(tmp_path: Path):
    lines = [NULL, *[GOOD % (index, index) for index in range(400_000)]]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    master, slave = os.openpty()
    command = [sys.executable, "-m", "ftbridge", "lint", "train.jsonl", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        result = b""
        while b"%" not in result:
            result += os.read(master, 1024)
        process.send_signal(signal.SIGINT)
        assert process.stdout
        document = json.loads(process.stdout.read())
        assert process.wait(timeout=60) == 130
    os.close(master)
    assert document["complete"] is False
    assert document["files"][0]["findings"][0]["code"] == "FTB021"
    assert document["files"][0]["lines"] < 400_001


@pytest.mark.slow
def test_the_first_finding_of_a_large_file_is_told_long_before_the_last(tmp_path: Path):
    lines = [NULL, *[GOOD % (index, index) for index in range(600_000)]]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "ftbridge", "lint", "train.jsonl"]
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdout.readline() == b"error FTB021 missing-content\n"
        first = time.monotonic() - begun
        process.stdout.read()
        last = time.monotonic() - begun
    assert first < 0.8 * last  # a third of it on a quiet machine


def test_the_sdk_lints(tmp_path: Path):
    path = write(tmp_path, "train.jsonl", NULL)
    report = ftbridge.lint(path)
    assert not report.ok
    assert report.rules["FTB021"] == 1
    assert ftbridge.lint(path, ignore=["FTB021"]).ok
