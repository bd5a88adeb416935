"""Run folders that version 0.1.0 wrote still open: one trained on this machine, one on a hosted provider with a judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import FIXTURES

FOLDERS = FIXTURES / "runs-0.1.0"
LOCAL, HOSTED = "small-local-20261126-1c97", "numbers-openai-20261126-3fb8"


@pytest.fixture
def old_runs(home: Path) -> Path:
    shutil.copytree(FOLDERS, home / "runs")
    return home


def ftbridge(*words: str, home: Path, code: int = 0) -> str:
    """What the command printed, without any key and with every address out of reach."""
    dead = "http://127.0.0.1:9/v1"
    env = {"PATH": "/usr/bin:/bin", "FTBRIDGE_HOME": str(home), "OPENAI_BASE_URL": dead, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ftbridge", *words], cwd=home, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_they_are_listed_and_shown(old_runs: Path):
    listed = json.loads(ftbridge("list", "--json", home=old_runs))
    assert {run["run_id"]: run["state"] for run in listed} == {LOCAL: "succeeded", HOSTED: "succeeded"}
    for run in (LOCAL, HOSTED):
        assert run in ftbridge("show", run, home=old_runs)


@pytest.mark.parametrize("run", [LOCAL, HOSTED])
def test_their_report_opens_without_a_key_though_a_judge_had_failed(old_runs: Path, run: str):
    ftbridge("report", run, home=old_runs)
    page = (old_runs / "runs" / run / "report.html").read_text()
    assert "exact" in page
    assert len(page) > 10_000


def test_two_of_their_candidates_compare_from_what_is_recorded(old_runs: Path):
    words = ("compare", LOCAL, LOCAL, "--candidate", "base", "--candidate", "tuned", "--json")
    assert json.loads(ftbridge(*words, home=old_runs))["verdicts"]["exact"]["n"] == 8


def test_a_judge_that_had_failed_on_every_completion_is_named_and_not_asked_again(old_runs: Path):
    words = ("compare", HOSTED, HOSTED, "--candidate", "base", "--candidate", "tuned")
    assert "grader rubric are not recorded" in ftbridge(*words, home=old_runs, code=2)
