"""The command in random weather, killed: a short campaign. The long one: `cd tests && python -m support.faults.campaign --runs 500`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import TESTS


def campaign(first: int, runs: int) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which forks the lives of the command: a test process has threads."""
    return subprocess.run(
        [sys.executable, "-m", "support.faults.campaign", "--first", str(first), "--runs", str(runs)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=TESTS,
    )


def test_a_few_runs_in_random_weather_pay_once_and_leave_nothing(tmp_path: Path) -> None:
    played = campaign(4000, 4)
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.slow
def test_runs_in_random_weather_pay_once_and_leave_nothing(tmp_path: Path) -> None:
    played = campaign(5000, 16)
    assert played.returncode == 0, played.stdout + played.stderr
