"""The Ray provider against a real head: jobs that wait, are refused or fail, and one run to the losses of a local one."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import InDoubt, ProviderRefused, ServiceUnavailable
from ftbridge.providers import load
from ftbridge.providers.base import JobHandle, JobStatus, Submission
from ftbridge.providers.ray.provider import RayProvider
from support.cluster_jobs import launches, submission_of
from support.jobs import ftbridge, kill_worker, losses, run_folder, start, steps_done, worker_events, write_job
from support.kills import kill_at_each_step
from support.ray_cluster import RayCluster
from support.waiting import wait_for

pytestmark = pytest.mark.slow


def waiting(folder: Path, token: str = "token", **changes: Any) -> Submission:
    """A submission whose job stays in the queue: the cluster has no GPU."""
    return submission_of(folder, "ray", token, **{"ray": {"gpus": 1}, **changes})


def ended(handle: JobHandle) -> JobStatus:
    """The job's status once it is neither queued nor running."""
    provider = load("ray")
    return wait_for(
        lambda: status if (status := provider.poll(handle)).state not in ("queued", "running") else None, 120
    )


def test_a_client_killed_at_every_step_of_a_submission_submits_one_job(tmp_path: Path, cluster: RayCluster) -> None:
    submissions: dict[int, Submission] = {}

    def prepared(step: int) -> Any:
        submissions[step] = waiting(tmp_path / str(step), token=f"killed-{step}")
        return lambda: RayProvider().submit(submissions[step])

    def check(step: int) -> None:
        submission = submissions[step]
        last = launches(submission.folder, "submitted")[-1]["job"]
        assert [job for job in cluster.jobs() if job.startswith(submission.token)] == [last]
        assert RayProvider().find(submission) == RayProvider().submit(submission)

    assert kill_at_each_step(prepared, check) == 2, "the intent, and the id of the job"
    for submission in submissions.values():
        load("ray").cancel(JobHandle(provider="ray", id=submission.token, folder=submission.folder))


def test_a_job_in_the_queue_is_paused_resumed_and_cancelled(tmp_path: Path, cluster: RayCluster) -> None:
    submission = waiting(tmp_path, token="queued")
    provider = load("ray")
    handle = provider.submit(submission)
    assert provider.poll(handle).state == "queued"
    provider.pause(handle)
    assert ended(handle).state == "paused"
    provider.resume(handle)
    assert [one["job"] for one in launches(submission.folder, "submitted")] == ["queued.1", "queued.2"]
    assert provider.poll(handle).state == "queued"
    provider.cancel(handle)
    assert ended(handle).state == "cancelled"
    assert any("PENDING" in event.message for event in provider.events(handle, None))


def test_a_token_that_the_cluster_does_not_know_is_refused_and_named_by_its_variable(
    tmp_path: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = waiting(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-the-token-of-this-cluster")
    with pytest.raises(ProviderRefused, match="does not accept this client") as refused:
        load("ray").preflight(submission, lambda _: None)
    assert "RAY_AUTH_TOKEN" in str(refused.value)
    assert "not-the-token" not in str(refused.value)


def test_a_cluster_that_is_away_leaves_the_submission_in_doubt_until_it_answers(
    tmp_path: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", nobody)
    submission = waiting(tmp_path, token="away")
    provider = load("ray")
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        provider.submit(submission)
    assert "may have been submitted" in (provider.doubt(submission) or "")
    with pytest.raises(InDoubt):
        provider.find(submission)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster.address)
    assert provider.find(submission) is None
    handle = provider.submit(submission)
    assert [job for job in cluster.jobs() if job.startswith("away")] == ["away.2"]
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", nobody)
    assert provider.poll(handle).state == "queued"
    assert "Meanwhile the worker's own records are followed" in provider.events(handle, None)[-1].message
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster.address)
    provider.cancel(handle)


def test_a_command_that_fails_before_training_is_told_with_ray_s_own_log(tmp_path: Path, cluster: RayCluster) -> None:
    settings = {"ray": {"gpus": 0, "python": "/no/such/python"}}
    status = ended(load("ray").submit(submission_of(tmp_path, "ray", "broken", **settings)))
    assert status.error is not None
    assert "Ray job broken.1 ended before training began: FAILED (exit code 127)" in status.error.message
    assert "/no/such/python" in status.error.message


def test_a_run_that_is_paused_and_killed_ends_with_the_losses_of_a_local_one(
    tmp_path: Path, home: Path, cluster: RayCluster, tiny_model_dir: Path
) -> None:
    settings = {
        "hyperparameters.n_epochs": 16, "local.quantization": "none", "local.precision": "fp32", "local.evals_per_epoch": 1,
        "local.checkpoint_minutes": 0.0001, "ray": {"gpus": 0},
    }  # fmt: skip
    spec = write_job(tmp_path, model=tiny_model_dir, **settings)
    done = ftbridge("run", str(spec), "--provider", "local", cwd=tmp_path, FTBRIDGE_HOME=str(tmp_path / "local"))
    assert done.returncode == 0, done.stderr
    done = ftbridge("run", str(spec), "--provider", "ray", "--detach", "--json", cwd=tmp_path)
    folder = Path(json.loads(done.stdout)["path"])
    wait_for(lambda: steps_done(home) >= 3)
    paused = ftbridge("pause", "latest", cwd=tmp_path)
    assert paused.returncode == 0, paused.stderr
    assert worker_events(folder, "paused")
    run = start("resume", "latest", cwd=tmp_path)
    goal = steps_done(home) + 3
    wait_for(lambda: steps_done(home) >= goal)
    kill_worker(folder)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 1, stderr
    assert "ended without a record from its worker: FAILED (exit code 137)" in stderr
    done = ftbridge("resume", "latest", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert losses(folder) == pytest.approx(losses(run_folder(tmp_path / "local")), abs=1e-6)
    assert len(launches(folder, "submitted")) == 3
    written = "".join(path.read_text(errors="replace") for path in folder.rglob("*.json*") if path.is_file())
    assert cluster.token not in written
