"""A run with several completions of each item, from the service to the page, and compared with itself sampled again."""

from __future__ import annotations

import json

import pytest

import ftbridge
from ftbridge.evaluation.generate import read_predictions
from ftbridge.report.html import write_report
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile
from support.finished_run import BASE, lines


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of one spec with three samples, tuned right on most items."""
    monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobody")
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.02)
    outputs = [
        {"model": "ft:*", "match": r"Number (\d*[0-6])\?", "reply": r"It is \1."},
        {"model": "*", "reply": "No idea."},
    ]
    (tmp_path / "train.jsonl").write_text(lines(1000, 20))
    (tmp_path / "test.jsonl").write_text(lines(0, 30))
    items = []
    with simulating({"speed": 50, "answers": outputs}) as service:
        monkeypatch.setenv("OPENAI_BASE_URL", service.base_url)
        for _ in range(2):
            spec = {
                "name": "numbers",
                "model": {"openai": BASE},
                "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
                "evaluation": {"samples": 3, "temperature": 0.8, "margin": 0.1},
            }
            run = create_run(SpecFile.of(spec), "openai")
            drive.drive(run)
            items.append(run)
        yield items


@pytest.mark.slow
def test_a_run_with_several_samples_is_evaluated_shown_and_compared(runs, tmp_path):
    first, second = runs
    predictions = read_predictions(first.predictions("tuned"))
    assert [len(one.samples) for one in predictions] == [3] * 30
    evaluation = json.loads(first.evaluation_path.read_text())
    assert evaluation["candidates"]["tuned"]["exact"]["n"] == 30
    assert evaluation["answered"]["tuned"]["prompt_tokens"] == sum(
        one.prompt_tokens for each in predictions for one in each.samples
    )
    assert len(first.scores_path.read_text().splitlines()) == 2 * 3 * 30
    page = write_report([first], tmp_path / "page.html").read_text()
    assert page.count("the first of 3 completions; scores are the mean") == 60
    compared = ftbridge.compare(first.id, second.id)
    assert compared.verdicts["exact"].n == 30
    assert compared.first.scores["exact"].mean == pytest.approx(evaluation["candidates"]["tuned"]["exact"]["mean"])
