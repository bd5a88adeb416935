"""Runs on a real Slurm cluster of one node: real daemons, real jobs, the same losses as on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.jobs import ftbridge, kill_worker, lines, losses, run_folder, start, steps_done, worker_events, write_job
from support.slurm_cluster import SlurmCluster
from support.waiting import wait_for

pytestmark = pytest.mark.slow

EPOCHS = 12


def tiny_job(folder: Path, model: Path, **changes: Any) -> Path:
    """A job of 60 steps for the two-layer model, with a checkpoint after every step."""
    settings = {
        "hyperparameters.n_epochs": EPOCHS,
        "local.quantization": "none",
        "local.precision": "fp32",
        "local.evals_per_epoch": 1,
        "local.checkpoint_minutes": 0.0001,
        "slurm": {"gpus": 0, "time": "10"},
    }
    return write_job(folder, model=model, **{**settings, **changes})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> dict[int, float]:
    """The losses of the same job on this machine."""
    folder = tmp_path_factory.mktemp("local")
    spec = tiny_job(folder, tiny_model_dir)
    settings = {"FTBRIDGE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = ftbridge("run", str(spec), "--provider", "local", cwd=folder, **settings)
    assert done.returncode == 0, done.stderr
    return losses(run_folder(folder / "home"))


def show(folder: Path) -> dict[str, Any]:
    return json.loads(ftbridge("show", "latest", "--json", cwd=folder).stdout)


def launches(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in lines(folder / "cluster" / "launches.jsonl") if event["type"] == kind]


def test_a_run_trains_on_the_cluster_and_is_evaluated_here(
    tmp_path: Path, home: Path, cluster: SlurmCluster, tiny_model_dir: Path, expected: dict[int, float]
) -> None:
    spec = tiny_job(tmp_path, tiny_model_dir)
    document = spec.read_text()
    spec.write_text(document.replace("train: train.jsonl", "train: train.jsonl\n  test: test.jsonl"))
    (tmp_path / "test.jsonl").write_text((tmp_path / "train.jsonl").read_text().replace("Item", "Thing"))
    done = ftbridge("run", str(spec), "--provider", "slurm", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["provider"], summary["state"]) == ("slurm", "succeeded")
    assert set(summary["evaluation"]["candidates"]) == {"base", "tuned"}
    folder = run_folder(home)
    assert losses(folder) == pytest.approx(expected, abs=1e-6)
    (job,) = launches(folder, "submitted")
    assert worker_events(folder, "attempt")[0]["data"]["job"] == job["job"]
    assert f"submitted as job {job['job']}" in done.stderr
    assert show(tmp_path)["lowering"]["slurm.time"] == "exact"
    export = ftbridge("export", "latest", "--adapter", "weights", cwd=tmp_path)
    assert export.returncode == 0, export.stderr
    assert (tmp_path / "weights" / "adapter_model.safetensors").exists()
