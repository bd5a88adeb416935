"""SIGKILL at each step of an evaluation: completions, batches and judges are paid once, but for what was in flight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ftbridge.server import simulating

ITEMS, AT_ONCE = 5, 2
ANSWERS = [
    {"model": "gpt-4o-mini*", "reply": '{"steps": [], "result": 0.5}'},
    {"model": "*", "match": r"Number (\d+)\?", "reply": r"It is \1."},
]


def spec(folder: Path, base_url: str, batch: bool) -> Path:
    for name, first, count in (("train", 0, 12), ("test", 100, ITEMS)):
        chats = [
            [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]
            for n in range(first, first + count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    judge = {
        "type": "score_model", "name": "j", "model": "gpt-4o-mini-2024-07-18", "base_url": base_url,
        "input": [{"role": "user", "content": "{{item.reference}}: {{sample.output_text}} by {{sample.output_text}}"}],
    }  # fmt: skip
    document: dict[str, Any] = {
        "name": "kills", "data": {"train": "train.jsonl", "test": "test.jsonl"}, "model": {"openai": "gpt-4.1-mini-2025-04-14"},
        "hyperparameters": {"n_epochs": 1}, "openai": {"batch": batch},
        "evaluation": {"batch_size": AT_ONCE, "graders": [judge]},
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(document))
    return path


def command(folder: Path, base_url: str, *args: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-kills-0123456789", "FTBRIDGE_WAIT_SCALE": "0.01", "FTBRIDGE_JUDGE_API_KEY": "sk-kills-0123456789",
        "FTBRIDGE_HOME": str(folder / "home"),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "ftbridge", *args], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def killed_at(process: subprocess.Popen[str], folder: Path, lines: int) -> None:
    """Kill the process once its run's journal has so many lines, or let it end."""
    while process.poll() is None:
        journals = list(folder.glob("home/runs/*/journal.jsonl"))
        if journals and journals[0].read_bytes().count(b"\n") >= lines:
            process.kill()
        time.sleep(0.002)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("lines", [12])
@pytest.mark.parametrize("batch", [False, True], ids=["chat", "batch"])
def test_nothing_is_paid_twice_when_an_evaluation_is_killed(tmp_path: Path, lines: int, batch: bool) -> None:
    with simulating({"speed": 100, "answers": ANSWERS}) as service:
        path = spec(tmp_path, service.base_url, batch)
        killed_at(
            command(tmp_path, service.base_url, "run", str(path), "--provider", "openai", "--yes"), tmp_path, lines
        )
        [run] = [journal.parent for journal in tmp_path.glob("home/runs/*/journal.jsonl")]
        resumed = command(tmp_path, service.base_url, "resume", str(run))
        _, err = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, err
        request = 2 * ITEMS  # each answer is graded; the judge's questions go over chat in either case
        chats = request if batch else 2 * request
        assert service.requests["POST /chat/completions"] <= chats + AT_ONCE
        assert service.requests.get("POST /fine_tuning/jobs") == 1
        assert service.requests.get("POST /batches", 0) == (2 if batch else 0)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [evaluation["candidates"][name]["j"]["n"] for name in ("base", "tuned")] == [ITEMS, ITEMS]
    assert evaluation["candidates"]["tuned"]["j"]["missing"] == 0
