"""A small job for real runs, and the command line in child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from ftbridge.providers.local.process.job import Job

COLOURS = ["red", "blue", "green", "black", "white", "amber", "violet", "grey"]
THINGS = ["lamp", "chair", "rug", "kettle", "shelf", "mirror"]


def examples(start: int, count: int) -> list[dict[str, Any]]:
    """Short chats with a one-word answer; no two alike."""
    items = []
    for index in range(start, start + count):
        colour, thing = COLOURS[index % 8], THINGS[index // 8 % 6]
        request = f"Item {index}: the {colour} {thing} arrived today. Which colour?"
        items.append({"messages": [{"role": "user", "content": request}, {"role": "assistant", "content": colour}]})
    return items


def write_job(
    folder: Path, *, train: int = 24, test: int = 0, model: str | Path = "smollm2-135m-instruct", **changes: Any
) -> Path:
    """Write data and job.yaml; dotted keys in `changes` set spec fields. Returns the spec's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, start, count in (("train", 0, train), ("test", 1000, test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples(start, count)))
    spec: dict[str, Any] = {
        "name": "small",
        "data": {"train": "train.jsonl", "validation": 0.2},
        "model": {"local": str(model)},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 5},
        "seed": 7,
        "local": {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}, "max_length": 128, "evals_per_epoch": 2},
        "evaluation": {"max_completion_tokens": 6},
    }
    if test:
        spec["data"]["test"] = "test.jsonl"
    for dotted, value in changes.items():
        node = spec
        *parents, last = dotted.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    if spec.get("method", "supervised") == "supervised":  # the tests' multipliers are for these rates
        spec["local"].setdefault("base_learning_rate", 2e-5 if spec["local"].get("tuning") == "full" else 2e-4)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def submitted_job(folder: Path, model: Path, **changes: Any) -> Job:
    """A local job of 10 steps in a run folder of its own, as `submit` leaves it. No worker is started."""
    from ftbridge.data.replay import EXAMPLES, PROMPTS, replay_line
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.process.job import Job
    from ftbridge.runner.start import create_run
    from ftbridge.spec import SpecFile

    settings = {
        "local.quantization": "none",
        "local.precision": "fp32",
        "hyperparameters.learning_rate_multiplier": 1000,
    }
    spec = write_job(folder, model=model, **{**settings, **changes})
    run = create_run(SpecFile.of(spec), "local", lint=False, home=folder / "home")
    request = json.loads((run.path / "lowering.json").read_text())["request"]
    job = Job(run.path)
    job.own_folder.mkdir(parents=True, exist_ok=True)
    validation, replay = run.data / "validation.jsonl", None
    if (prompts := run.data / PROMPTS).exists():
        replay = run.data / EXAMPLES
        replayed = [replay_line(one, {"content": "Of course."}, cut=False) for one in lines(prompts)]
        replay.write_text("".join(f"{line}\n" for line in replayed))
    job.write(
        Submission(
            token="t",
            folder=run.path,
            request=request,
            train=run.data / "train.jsonl",
            validation=validation,
            replay=replay,
        )
    )
    return job


def ftbridge(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ftbridge", *args],
        cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def start(*args: str, cwd: Path) -> subprocess.Popen[str]:
    """Start the command and leave it running."""
    return subprocess.Popen(
        [sys.executable, "-m", "ftbridge", *args],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run_folder(home: Path) -> Path:
    """The only run there is."""
    (result,) = [path for path in (home / "runs").iterdir() if (path / "journal.jsonl").exists()]
    return result


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file, or none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def worker_events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Events of one type in the worker's journal."""
    return [event for event in lines(folder / "worker.jsonl") if event["type"] == kind]


def steps_done(home: Path) -> int:
    """Steps the worker has reported."""
    try:
        folder = run_folder(home)
    except (FileNotFoundError, ValueError):
        return 0
    return max((event["data"]["step"] for event in worker_events(folder, "metrics")), default=0)


def losses(folder: Path) -> dict[int, float]:
    """The last training loss reported for each step."""
    return {event["data"]["step"]: event["data"]["train_loss"] for event in worker_events(folder, "metrics")}


def kill_worker(folder: Path) -> int:
    """SIGKILL the training process; returns its process id."""
    pid = int(worker_events(folder, "started")[-1]["data"]["pid"])
    os.kill(pid, signal.SIGKILL)
    return pid
