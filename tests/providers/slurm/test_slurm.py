"""A run on a real Slurm cluster of one node: whatever happens to it on the way, it ends with the losses of an undisturbed local run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cluster_jobs import launches
from support.jobs import ftbridge, kill_worker, losses, run_folder, start, steps_done, worker_events, write_job
from support.slurm_cluster import SlurmCluster
from support.waiting import wait_for

pytestmark = pytest.mark.slow


def tiny_job(folder: Path, model: Path) -> Path:
    """A job of 120 steps for the two-layer model, with a checkpoint after every step."""
    settings = {
        "hyperparameters.n_epochs": 24,
        "local.quantization": "none",
        "local.precision": "fp32",
        "local.evals_per_epoch": 1,
        "local.checkpoint_minutes": 0.0001,
        "slurm": {"gpus": 0, "time": "10"},
    }
    return write_job(folder, model=model, test=3, **settings)


def state(folder: Path) -> str:
    shown: dict[str, Any] = json.loads(ftbridge("show", "latest", "--json", cwd=folder).stdout)
    return str(shown["state"])


def wait_for_steps(home: Path, more: int) -> None:
    """Wait until this many steps more are done."""
    goal = steps_done(home) + more
    wait_for(lambda: steps_done(home) >= goal)


def test_a_run_that_is_queued_again_paused_killed_and_cancelled_ends_with_the_losses_of_a_local_one(
    tmp_path: Path, home: Path, cluster: SlurmCluster, tiny_model_dir: Path
) -> None:
    spec = tiny_job(tmp_path, tiny_model_dir)
    local_home = tmp_path / "local"
    arguments = ["run", str(spec), "--provider", "local", "--set", "data.test=null"]
    done = ftbridge(*arguments, cwd=tmp_path, FTBRIDGE_HOME=str(local_home))
    assert done.returncode == 0, done.stderr

    done = ftbridge("run", str(spec), "--provider", "slurm", "--detach", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["path"])
    wait_for_steps(home, 3)
    (job,) = [one["job"] for one in launches(folder, "submitted")]

    cluster.slurm("scancel", "--signal=USR1", "--batch", job)  # what Slurm sends before the time limit
    wait_for(lambda: "PENDING" in cluster.slurm("squeue", "-h", "-j", job, "-o", "%T"))
    assert worker_events(folder, "paused")
    wait_for(lambda: state(tmp_path) == "queued")
    cluster.slurm(
        "scontrol", "update", f"JobId={job}", "StartTime=now"
    )  # Slurm holds a requeued job back for two minutes
    wait_for_steps(home, 3)
    assert [event["data"]["restart"] for event in worker_events(folder, "attempt")] == [0, 1]

    paused = ftbridge("pause", "latest", cwd=tmp_path)
    assert paused.returncode == 0, paused.stderr
    assert state(tmp_path) == "paused"

    run = start("resume", "latest", cwd=tmp_path)
    wait_for_steps(home, 3)
    cluster.stop_controller()
    try:
        wait_for_steps(home, 3)  # training goes on without it
        kill_worker(folder)
    finally:
        cluster.start_controller()
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 1, stderr
    assert "recorded no end: FAILED (exit code 0:9)" in stderr
    assert "ftbridge resume" in stderr

    run = start("resume", "latest", cwd=tmp_path)
    wait_for_steps(home, 3)
    cancelled = ftbridge("cancel", "latest", cwd=tmp_path)
    assert cancelled.returncode == 0, cancelled.stderr
    run.communicate(timeout=120)
    assert state(tmp_path) == "cancelled"

    done = ftbridge("resume", "latest", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["provider"], summary["state"]) == ("slurm", "succeeded")
    assert set(summary["evaluation"]["candidates"]) == {"base", "tuned"}
    assert losses(folder) == pytest.approx(losses(run_folder(local_home)), abs=1e-6)
    assert len(worker_events(folder, "succeeded")) == 1
    assert len(launches(folder, "submitted")) == 4

    exported = ftbridge("export", "latest", "--adapter", "weights", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "weights" / "adapter_model.safetensors").exists()
