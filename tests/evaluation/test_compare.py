"""`ftbridge compare`, on real runs against the simulator."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from ftbridge.errors import UsageError
from ftbridge.evaluation.compare import compare
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-compared")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.02)
    with simulating({"speed": 50}) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


def lines(first: int, count: int) -> str:
    messages = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in messages)


@pytest.fixture
def run(service, tmp_path):
    """A finished run whose tuned model is right on numbers that match."""

    def finished(right: str, *, test: tuple[int, int] = (100, 60), train: int = 12, **more):
        service.play(
            {
                "speed": 50,
                "answers": [
                    {"model": "ft:*", "match": rf"Number ({right})\?", "reply": r"It is \1."},
                    {"model": "*", "reply": "No idea."},
                ],
            }
        )
        (tmp_path / "train.jsonl").write_text(lines(0, train))
        (tmp_path / "test.jsonl").write_text(lines(*test))
        spec = {
            "name": "numbers",
            "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
            "model": {"openai": BASE},
            **more,
        }
        started = create_run(SpecFile.of(spec), "openai")
        drive.drive(started)
        return started

    return finished


ALL, HALF, MOST = r"\d+", r"\d+[02468]", r"\d*[0-8]"


def test_a_known_difference_and_none_get_the_right_verdicts(run):
    good, half, same = run(ALL), run(HALF), run(ALL)
    worse, better, equal = compare(good, half), compare(half, good), compare(good, same, margin=0.1)
    assert (worse.verdicts["exact"].verdict, better.verdicts["exact"].verdict) == ("worse", "better")
    assert worse.verdicts["exact"].difference == -0.5
    assert (equal.verdicts["exact"].verdict, equal.ok) == ("not_worse", True)
    assert compare(good, same, margin=0.01).ok is False
    assert len(worse.changed) == 30
    assert worse.changed[0].second == "No idea."
    assert worse.changed[0].reference == worse.changed[0].first


def test_a_margin_of_the_spec_words_the_verdict_and_is_no_gate(run):
    good, most = run(ALL), run(MOST, evaluation={"margin": 0.02})

    def ask(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ftbridge", "compare", good.id, most.id, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})

    result = ask("--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["margin"], document["verdicts"]["exact"]["margin_met"]) == (0.02, False)
    assert ask("--margin", "0.02").returncode == 4
    assert ask("--margin", "0.5").returncode == 0


def test_the_command_prints_in_every_shape_and_keeps_the_gate(run, tmp_path):
    good, most = run(ALL), run(MOST)

    def ask(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ftbridge", "compare", good.id, most.id, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})

    result = ask()
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("the first is better than the second on exact.\n")
    assert "the second is worse on exact (-" not in result.stdout
    assert "the second is worse on exact (-" in " ".join(ask("-v").stdout.split())
    assert "60 items show a difference of" in result.stdout
    document = json.loads(ask("--json").stdout)
    assert document["verdicts"]["exact"]["worse"] == 6
    gated = ask("--margin", "0.02", "--json")
    assert gated.returncode == 4
    assert json.loads(gated.stdout)["ok"] is False
    assert "margin of 0.02 is not met on exact" in gated.stderr
    assert ask("--margin", "0.5").returncode == 0
    assert ask("--margin", "2").returncode == 2
    (row,) = csv.DictReader(ask("--format", "csv").stdout.splitlines())
    assert row["verdict"] == "worse"
    suite = ElementTree.fromstring(ask("--format", "junit").stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "| exact | **100.0 %** | 90.0 % |" in ask("--format", "markdown").stdout


def test_other_items_are_refused_or_their_common_part_is_compared(run):
    first, second, apart = run(ALL), run(ALL, test=(130, 60)), run(ALL, test=(900, 20))
    with pytest.raises(UsageError, match=r"30 are shared, 30 only in"):
        compare(first, second)
    result = compare(first, second, common=True)
    assert (result.items, len(result.notes)) == (30, 1)
    with pytest.raises(UsageError, match="0 are shared"):
        compare(first, apart, common=True)


def test_candidates_of_one_run_are_compared_and_missing_ones_named(run):
    only = run(ALL)
    result = compare(only, only, candidates=("base", "tuned"))
    assert result.verdicts["exact"].verdict == "better"
    with pytest.raises(UsageError, match="same run"):
        compare(only, only)
    with pytest.raises(UsageError, match="no completions of 'few_shot'"):
        compare(only, only, candidates=("few_shot", "tuned"))


def test_other_training_bytes_are_told(run):
    assert compare(run(ALL), run(ALL, train=14)).notes == ["The runs were not trained on the same bytes."]


def test_runs_without_a_test_split_have_nothing_to_compare(run, tmp_path, service):
    (tmp_path / "only.jsonl").write_text(lines(0, 12))
    spec = {"name": "bare", "data": {"train": str(tmp_path / "only.jsonl")}, "model": {"openai": BASE}}
    bare = create_run(SpecFile.of(spec), "openai")
    drive.drive(bare)
    with pytest.raises(UsageError, match="no test split"):
        compare(bare, bare)
