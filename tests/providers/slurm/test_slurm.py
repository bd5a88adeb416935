"""Runs on a real Slurm cluster: whatever happens on the way, they end with the losses of an undisturbed local run."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.cluster_jobs import launches
from support.jobs import ftbridge, kill_worker, losses, run_folder, start, steps_done, worker_events, write_job
from support.slurm_cluster import SlurmCluster
from support.waiting import wait_for

pytestmark = pytest.mark.slow


def tiny_job(folder: Path, model: Path, **changes: Any) -> Path:
    """A job of 120 steps for the two-layer model, with a checkpoint after every step."""
    settings = {
        "hyperparameters.n_epochs": 24,
        "local.quantization": "none",
        "local.precision": "fp32",
        "local.evals_per_epoch": 1,
        "local.lr_schedule": "constant",
        "local.warmup_ratio": 0.0,
        # Masks of dropout follow the micro-batches, which several workers share out.
        "local.lora": {"r": 4, "dropout": 0.0},
        "local.checkpoint_minutes": 0.0001,
        "slurm": {"gpus": 0, "time": "10"},
    }
    return write_job(folder, model=model, test=3, **{**settings, **changes})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> dict[int, float]:
    """The losses of the job on this machine. At a constant rate a shorter job has those of its first steps."""
    folder = tmp_path_factory.mktemp("local")
    arguments = ["run", str(tiny_job(folder, tiny_model_dir)), "--provider", "local", "--set", "data.test=null"]
    done = ftbridge(*arguments, cwd=folder, FTBRIDGE_HOME=str(folder / "home"), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return losses(run_folder(folder / "home"))


def state(folder: Path) -> str:
    shown: dict[str, Any] = json.loads(ftbridge("show", "latest", "--json", cwd=folder).stdout)
    return str(shown["state"])


def wait_for_steps(home: Path, more: int) -> None:
    """Wait until this many steps more are done."""
    goal = steps_done(home) + more
    wait_for(lambda: steps_done(home) >= goal)


def test_a_run_that_is_queued_again_paused_killed_and_cancelled_ends_with_the_losses_of_a_local_one(
    tmp_path: Path, home: Path, cluster: SlurmCluster, tiny_model_dir: Path, expected: dict[int, float]
) -> None:
    spec = tiny_job(tmp_path, tiny_model_dir)
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

    os.kill(json.loads(done.stdout)["pid"], signal.SIGKILL)  # nobody drives the run any more, and its job goes on
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
    assert "ended without a record from its worker: FAILED (exit code 137:0)" in stderr
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
    assert losses(folder) == pytest.approx(expected, abs=1e-6)
    assert len(worker_events(folder, "succeeded")) == 1
    assert len(launches(folder, "submitted")) == 4

    exported = ftbridge("export", "latest", "--adapter", "weights", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "weights" / "adapter_model.safetensors").exists()


def test_two_nodes_train_one_job_to_the_losses_of_one_machine(
    tmp_path: Path, home: Path, cluster: SlurmCluster, tiny_model_dir: Path, expected: dict[int, float]
) -> None:
    interface = next(
        (
            (name, address.address)
            for name, addresses in psutil.net_if_addrs().items()
            for address in addresses
            if address.family == socket.AF_INET and not address.address.startswith("127.")
        ),
        None,
    )
    if interface is None:
        pytest.skip("this machine has a loopback address alone, at which two nodes cannot meet")
    name, address = interface
    setup = [f"export GLOO_SOCKET_IFNAME={name} MASTER_ADDR={address}"]
    slurm = {"gpus": 0, "nodes": 2, "cpus": 1, "setup": setup}
    changes = {"hyperparameters.n_epochs": 1, "slurm": slurm}
    spec = tiny_job(tmp_path, tiny_model_dir, **changes)
    done = ftbridge("run", str(spec), "--provider", "slurm", "--set", "data.test=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = run_folder(home)
    steps = losses(folder)
    assert len(steps) == 5
    of_one_machine = {step: expected[step] for step in steps}
    assert steps == pytest.approx(of_one_machine, abs=2e-4), "the journal has six digits of about 10.8"
    assert "2 workers" in " ".join(event["data"]["text"] for event in worker_events(folder, "message"))
