"""The same job on both sides: `--provider local`, and `--provider openai` against `ftbridge serve`, over real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.served_model import MODEL, Served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]
COLOURS = ["RED", "GREEN", "BLUE"]


def lines(first: int, count: int) -> str:
    messages = [
        {
            "messages": [
                {"role": "user", "content": f"Lamp {n}: which colour?"},
                {"role": "assistant", "content": f"LAMP-{COLOURS[n % 3]}"},
            ]
        }
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in messages)


@pytest.fixture
def job(tmp_path, tiny_model_dir):
    (tmp_path / "train.jsonl").write_text(lines(0, 30))
    (tmp_path / "test.jsonl").write_text(lines(100, 9))
    spec = {
        "name": "lamps",
        "data": {"train": "train.jsonl", "validation": 0.2, "test": "test.jsonl"},
        "model": {"openai": MODEL, "local": str(tiny_model_dir)},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
        "local": {
            "quantization": "none",
            "precision": "fp32",
            "max_length": 128,
            "evals_per_epoch": 1,
            "base_learning_rate": 0.001,
        },
        "evaluation": {"max_completion_tokens": 12},
        "seed": 11,
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(spec))
    return path


def run(job: Path, provider: str, home: Path, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "ftbridge", "run", str(job), "--provider", provider, "--json"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "FTBRIDGE_HOME": str(home), **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outputs(summary: dict, candidate: str) -> list[str]:
    """A candidate's completions, in the order of the items."""
    predictions = Path(summary["path"], "predictions", f"{candidate}.jsonl").read_text().splitlines()
    return [one["output_text"] for one in sorted(map(json.loads, predictions), key=lambda one: one["index"])]


def losses(run_summary: dict) -> dict[int, float]:
    events = [json.loads(line) for line in (Path(run_summary["path"]) / "journal.jsonl").read_text().splitlines()]
    figures = [
        event["data"]["metrics"] for event in events if event["type"] == "job_event" and event["data"].get("metrics")
    ]
    return {figure["step"]: figure["train_loss"] for figure in figures}


def test_the_same_job_here_and_behind_the_api(job, tmp_path, tiny_model_dir):
    served = Served(tmp_path / "served", tiny_model_dir, "precision=fp32")
    served.folder.mkdir()
    try:
        served.start()
        url = str(served.client.base_url)
        there = run(job, "openai", tmp_path / "home", OPENAI_BASE_URL=url, OPENAI_API_KEY="any")
    finally:
        served.stop()
    result = run(job, "local", tmp_path / "home")

    for split in ("train", "validation", "test"):
        assert result["data"][split]["sha256"] == there["data"][split]["sha256"]
    assert there["model"]["tuned"].startswith(f"ft:{MODEL}:")
    mine, theirs = losses(result), losses(there)
    assert list(mine) == list(theirs) == list(range(1, 13))
    assert mine == pytest.approx(theirs, abs=1e-4)
    for candidate in ("base", "tuned"):
        completions = [outputs(side, candidate) for side in (result, there)]
        assert completions[0] == completions[1], candidate
    lowering = result["lowering"], there["lowering"]
    assert set(lowering[0]) == set(lowering[1])
