"""Finished runs against the simulator, for tests of what is shown of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.runs.run import Run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"

SCORE = {"mean": 0.8, "ci95": [0.7, 0.9], "n": 40}
CHECKS = {
    "retention": {
        "items": 40,
        "margin": 0.05,
        "kinds": ["facts", "sums"],
        "candidates": {
            "base": {"all": SCORE, "facts": SCORE, "sums": SCORE},
            "tuned": {"all": {**SCORE, "mean": 0.5}, "facts": SCORE, "sums": SCORE},
        },
        "baseline": "base",
        "verdicts": {
            "tuned": {
                "verdict": "worse",
                "difference": -0.3,
                "ci95": [-0.4, -0.2],
                "gained": 1,
                "lost": [
                    {"kind": "sums", "prompt": "2 + <b>2</b>?", "expected": "4", "before": "4", "after": "delivery"}
                ],
            }
        },
    },
    "classification": {
        "tuned": {
            "labels": ["refund", "<delivery>"],
            "confusion": [[18, 2], [0, 40]],
            "accuracy": 58 / 60,
            "macro_f1": 0.962,
            "per_label": {"refund": {"precision": 1.0, "recall": 0.9, "f1": 0.947, "support": 20}},
        }
    },
    "perplexity": {"base": 9.87, "tuned": 1.52},
}
"""What an evaluation may hold beside its scores."""


def lines(first: int, count: int) -> str:
    """Training lines about numbers."""
    messages = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in messages)


@contextmanager
def finished_run(folder: Path, right: str) -> Iterator[Run]:
    """A run of 60 test items whose tuned model is right where `right` matches, and whose base never is."""
    outputs = [
        {"model": "ft:*", "match": rf"Number ({right})\?", "reply": r"It is \1."},
        {"model": "*", "reply": "No idea."},
    ]
    with pytest.MonkeyPatch.context() as patch, simulating({"speed": 50, "answers": outputs}) as service:
        patch.setenv("FTBRIDGE_HOME", str(folder / "home"))
        patch.setenv("OPENAI_API_KEY", "sk-shown")
        patch.setenv("OPENAI_BASE_URL", service.base_url)
        patch.setenv("FTBRIDGE_WAIT_SCALE", "0")
        patch.setattr(drive, "POLL_SECONDS", 0.02)
        (folder / "train.jsonl").write_text(lines(0, 12))
        (folder / "test.jsonl").write_text(lines(100, 60))
        data = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")}
        created = create_run(SpecFile.of({"name": "numbers", "data": data, "model": {"openai": BASE}}), "openai")
        drive.drive(created)
        yield created


def judged_more(run: Run) -> None:
    """Add to a run's evaluation what `CHECKS` holds."""
    document = json.loads(run.evaluation_path.read_text())
    run.evaluation_path.write_text(json.dumps({**document, **CHECKS}))
