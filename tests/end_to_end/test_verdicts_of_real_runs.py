"""Verdicts on real runs: two that differ in more than luck, and two that differ in their seed alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.jobs import ftbridge, write_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run folders by what was special about them: the seed, or a rate at which nothing is learnt."""
    folder = tmp_path_factory.mktemp("verdicts")
    changes = {
        "seed 7": {"seed": 7},
        "seed 8": {"seed": 8},
        "hardly trained": {"seed": 7, "hyperparameters.learning_rate_multiplier": 0.01},
    }
    by_name = {}
    for name, change in changes.items():
        spec = write_job(folder / name.replace(" ", "-"), train=48, test=40, **change)
        done = ftbridge(
            "run", str(spec), "--provider", "local", "--json", cwd=folder, FTBRIDGE_HOME=str(folder / "home")
        )
        assert done.returncode == 0, done.stderr
        by_name[name] = json.loads(done.stdout)["path"]
    return by_name


def compare(first: str, second: str, margin: str, folder: Path) -> tuple[int, dict[str, object]]:
    done = ftbridge("compare", first, second, "--margin", margin, "--json", cwd=folder)
    return done.returncode, json.loads(done.stdout)["verdicts"]["exact"]


def test_a_run_that_learnt_is_better_than_one_that_did_not(runs: dict[str, str], tmp_path: Path) -> None:
    code, result = compare(runs["hardly trained"], runs["seed 7"], "0.02", tmp_path)
    assert (code, result["verdict"]) == (0, "better")
    code, result = compare(runs["seed 7"], runs["hardly trained"], "0.02", tmp_path)
    assert (code, result["verdict"]) == (4, "worse")


def test_runs_that_differ_in_their_seed_are_not_told_apart(runs: dict[str, str], tmp_path: Path) -> None:
    for first, second in (("seed 7", "seed 8"), ("seed 8", "seed 7")):
        code, result = compare(runs[first], runs[second], "0.2", tmp_path)
        assert (code, result["verdict"]) == (0, "not_worse"), result
