"""Commands that cannot do what they are asked say so, with the right exit code, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.cli import COMMANDS, main
from ftbridge.errors import Interrupted
from ftbridge.runner import control
from ftbridge.runs.run import Run
from support.jobs import write_job
from support.served_model import first_document

SPEC = "name: a\ndata: {train: t.jsonl}\nmodel: {local: m, openai: m}\n"
LINE = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(args))
    return int(left.value.code or 0)


def run_of(home: Path, provider: str = "local") -> Run:
    return Run.create(home, name="a", provider=provider, spec_text=SPEC, spec_suffix=".yaml")


# Folders that cannot be used


@pytest.mark.parametrize(
    "args",
    [
        ["list"],
        ["show", "latest"],
        ["report", "latest"],
        ["plan", "job.yaml"],
        ["run", "job.yaml", "--provider", "local"],
        ["eval", "job.yaml", "-c", "base"],
        ["lint", "train.jsonl", "--target", "local", "--model", "smollm2-135m-instruct"],
        ["serve", "--port", "0"],
        ["doctor"],
    ],
    ids=lambda args: args[0],
)
@pytest.mark.parametrize("home", ["/etc/passwd", "/etc/passwd/below", "circle"])
def test_a_home_that_is_no_folder_is_one_clear_error(
    args: list[str], home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path, test=4)
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTBRIDGE_HOME", home)
    assert call(*args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: the home folder "), captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("args", "home"),
    [
        (["serve", "--port", "0"], "/proc/none"),
        (["serve", "--port", "0", "--folder", "/proc/x"], "home"),
        (["simulate", "--port", "0", "--folder", "/proc/x"], "home"),
        (["simulate", "--port", "0", "--folder", "/proc"], "home"),
        (["simulate", "--port", "0", "--folder", "/etc/passwd"], "home"),
        (["lint", "train.jsonl", "--target", "local", "--model", "smollm2-135m-instruct"], "/proc/none"),
        (["plan", "job.yaml"], "/proc/none"),
        (["run", "job.yaml", "--provider", "local"], "/proc/none"),
        (["eval", "job.yaml", "-c", "base"], "/proc/none"),
    ],
    ids=str,
)
def test_a_folder_that_cannot_be_made_is_one_clear_error(
    args: list[str], home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path, test=4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTBRIDGE_HOME", home)
    assert call(*args) == 2
    text = capsys.readouterr().err
    assert "error: cannot write to " in text
    assert "Traceback" not in text


# Servers


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["serve", "--map", "a=nosuch"], "'nosuch' cannot be served"),
        (["serve", "--model", "nosuch"], "'nosuch' cannot be served"),
        (["serve", "--map", "a=smollm2-135m-instruct", "--model", "./nosuch"], "'./nosuch' cannot be served"),
        (["serve", "--allow-origin", "banana"], "'banana' is not the origin"),
        (["simulate", "--allow-origin", "banana"], "'banana' is not the origin"),
    ],
)
def test_a_server_that_could_not_serve_does_not_start(
    args: list[str], says: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*args, "--port", "0") == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("keeps", [False, True])
def test_a_simulator_that_is_ended_by_sigterm_leaves_no_temporary_folder(keeps: bool, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    folder = ["--folder", str(tmp_path / "kept")] if keeps else []
    running = subprocess.Popen(
        [sys.executable, "-m", "ftbridge", "simulate", "--port", "0", "--json", *folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    shown = Path(first_document(running)["folder"])
    assert shown.is_dir()
    running.terminate()
    assert running.wait(30) == 0
    assert "Traceback" not in running.stderr.read()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert shown.exists() == keeps


# Runs that ended


@pytest.mark.parametrize("args", [["retry"], ["resume", "--retry"]])
def test_a_run_that_succeeded_is_not_trained_again(
    args: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(home, "openai")
    run.append("succeeded")
    assert call(*args, run.id) == 2
    text = capsys.readouterr().err
    assert f"{run.id} has succeeded, so there is nothing to train again" in text
    assert "billed" not in text


@pytest.mark.parametrize(
    ("end", "says"), [("succeeded", "has succeeded already"), ("cancelled", "is cancelled already")]
)
def test_a_run_that_ended_is_not_cancelled_again(
    end: str, says: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(home)
    run.append(end)
    assert call("cancel", run.id) == 2
    assert f"{run.id} {says}." in capsys.readouterr().err


@pytest.mark.parametrize(("provider", "job", "hint"), [("local", True, "resume"), ("openai", False, "resume"), ("openai", True, "retry")])  # fmt: skip
def test_watching_a_cancelled_run_names_the_command_that_goes_on(
    provider: str, job: bool, hint: str, home: Path
) -> None:
    run = run_of(home, provider)
    if job:
        run.append("submitted", handle={"provider": provider, "id": "job-1", "folder": str(run.path)})
    run.append("cancelled")
    for follow in (control.watch, control.drive_on):
        with pytest.raises(Interrupted, match=f"is cancelled.*\n.*ftbridge {hint} {run.id}"):
            follow(run)
    assert "for good" not in COMMANDS["cancel"]


# Options that contradict each other, or mean nothing


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--provider", "local", "--allow", "banana"], "--allow banana: a spec has no such field"),
        (["--provider", "local", "--allow", "local.max_lenght"], "Did you mean local.max_length?"),
        (["--provider", "openai", "--fallback", "openai"], "--fallback openai is the provider that trains first"),
    ],
)
def test_a_run_does_not_start_with_options_that_mean_nothing(
    args: list[str], says: str, dry: list[str], tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path)
    assert call("run", str(tmp_path / "job.yaml"), *args, *dry) == 2
    assert says in capsys.readouterr().err
    assert not list((home / "runs").glob("*"))


def test_a_field_of_a_section_that_the_spec_leaves_out_may_be_allowed(tmp_path: Path, home: Path) -> None:
    write_job(tmp_path)
    allowed = ["--allow", "seed", "--allow", "local.early_stopping.patience"]
    assert call("run", str(tmp_path / "job.yaml"), "--provider", "local", "--dry-run", *allowed) == 0


@pytest.mark.parametrize(
    "args",
    [
        ["lint", "train.jsonl", "--format", "sarif"],
        ["lint", "train.jsonl", "--format", "text"],
        ["eval", "job.yaml", "-c", "base", "--format", "csv"],
        ["eval", "job.yaml", "-c", "base", "--format", "text"],
        ["compare", "a", "b", "--format", "junit"],
        ["report", "a", "--format", "markdown"],
    ],
    ids=lambda args: f"{args[0]} {args[-1]}",
)
def test_json_and_another_format_contradict_each_other(
    args: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*args, "--json") == 2
    assert f"--json and --format {args[-1]} contradict each other" in capsys.readouterr().err


@pytest.mark.parametrize("form", [["--json"], ["--format", "json"]])
def test_a_rule_and_statistics_are_one_document_too(
    form: list[str], tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("lint", "--explain", "ftb021", *form) == 0
    rule = json.loads(capsys.readouterr().out)
    assert rule["code"] == "FTB021"
    assert rule["reason"]
    assert call("lint", "--explain", "all", *form) == 0
    assert rule in json.loads(capsys.readouterr().out)
    (tmp_path / "t.jsonl").write_text(LINE)
    assert call("lint", str(tmp_path / "t.jsonl"), "--statistics", *form) == 3
    counted = json.loads(capsys.readouterr().out)
    assert (counted["ok"], counted["rules"]["FTB210"]) == (False, 1)
    assert "files" not in counted


@pytest.mark.parametrize("option", [["--explain", "FTB021"], ["--statistics", "t.jsonl"]])
def test_what_has_no_form_for_code_scanning_is_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("lint", *option, "--format", "sarif") == 2
    assert f"{option[0]} prints text or JSON, not sarif" in capsys.readouterr().err
