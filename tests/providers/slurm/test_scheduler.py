"""The Slurm provider against real daemons, without training: jobs that wait, are refused, or end before their worker begins."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import InDoubt, ProviderRefused, ServiceUnavailable
from ftbridge.providers import load
from ftbridge.providers.base import JobHandle, JobStatus, Submission
from ftbridge.providers.slurm.provider import SlurmProvider
from support.cluster_jobs import launches, submission_of
from support.jobs import ftbridge, write_job
from support.kills import kill_at_each_step
from support.paths import TESTS
from support.slurm_cluster import SlurmCluster
from support.waiting import wait_for

pytestmark = pytest.mark.slow


def held(folder: Path, token: str = "token", **changes: Any) -> Submission:
    """A submission whose job stays in the queue."""
    settings = {"slurm": {"gpus": 0, "options": ["--hold"]}, **changes}
    return submission_of(folder, "slurm", token, **settings)


def ended(handle: JobHandle) -> JobStatus:
    """The job's status once it is neither queued nor running."""
    provider = load("slurm")
    return wait_for(
        lambda: status if (status := provider.poll(handle)).state not in ("queued", "running") else None, 60
    )


def test_a_client_killed_at_every_step_of_a_submission_submits_one_job(tmp_path: Path, cluster: SlurmCluster) -> None:
    submissions: dict[int, Submission] = {}

    def prepared(step: int) -> Any:
        submissions[step] = held(tmp_path / str(step), token=f"killed-{tmp_path.name}-{step}")
        return lambda: SlurmProvider().submit(submissions[step])

    def check(step: int) -> None:
        submission = submissions[step]
        (job,) = cluster.jobs(submission.token)
        assert [one["job"] for one in launches(submission.folder, "submitted")] == [job]
        assert SlurmProvider().find(submission) == SlurmProvider().submit(submission)

    steps = kill_at_each_step(prepared, check)
    assert steps == 2, "the intent, and the id of the job"
    for submission in submissions.values():
        cluster.slurm("scancel", *cluster.jobs(submission.token))


def test_a_client_killed_while_sbatch_runs_finds_its_job_when_sbatch_is_done(
    tmp_path: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = held(tmp_path, token=f"orphan-{tmp_path.name}")
    sbatch = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    slow = tmp_path / "bin" / "sbatch"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ntouch {tmp_path}/called\nsleep 2\nexec {sbatch} "$@"\n')
    slow.chmod(slow.stat().st_mode | stat.S_IEXEC)
    child = os.fork()
    if child == 0:
        os.environ["PATH"] = f"{slow.parent}:{os.environ['PATH']}"
        SlurmProvider().submit(submission)
        os._exit(0)
    wait_for((tmp_path / "called").exists)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert cluster.jobs(submission.token) == []
    SlurmProvider().submit(submission)
    (job,) = cluster.jobs(submission.token)
    assert launches(submission.folder, "submitted")[0]["job"] == job
    cluster.slurm("scancel", job)


def test_a_job_in_the_queue_is_paused_resumed_and_cancelled(tmp_path: Path, cluster: SlurmCluster) -> None:
    submission = held(tmp_path, token=f"queued-{tmp_path.name}")
    provider = load("slurm")
    handle = provider.submit(submission)
    assert provider.poll(handle).state == "queued"
    provider.pause(handle)
    assert ended(handle).state == "paused"
    provider.resume(handle)
    assert provider.poll(handle).state == "queued"
    assert [one["name"] for one in launches(submission.folder, "intended")] == [
        f"{submission.token}.{n}" for n in (1, 2)
    ]
    provider.cancel(handle)
    assert ended(handle).state == "cancelled"
    assert "scheduler: PENDING (JobHeldUser)" in [event.message for event in provider.events(handle, None)]


def test_events_are_handed_out_once_and_in_order(tmp_path: Path, cluster: SlurmCluster) -> None:
    submission = held(tmp_path, token=f"events-{tmp_path.name}")
    provider = load("slurm")
    handle = provider.submit(submission)
    provider.poll(handle)
    first = provider.events(handle, None)
    assert provider.events(handle, first[-1].id) == []
    assert [event.id for event in provider.events(handle, first[0].id)] == [event.id for event in first[1:]]
    provider.cancel(handle)
    ended(handle)
    assert provider.events(handle, first[-1].id)


def test_what_slurm_would_not_take_is_refused_before_anything_starts(tmp_path: Path, cluster: SlurmCluster) -> None:
    refused = {"partition": "nope", "nodes": 3, "gpus": 2}
    for number, (field, value) in enumerate(refused.items()):
        settings = {"slurm": {"gpus": 0, field: value}}
        submission = submission_of(tmp_path / str(number), "slurm", f"refused-{number}", **settings)
        with pytest.raises(ProviderRefused, match="Slurm does not accept the job") as error:
            load("slurm").preflight(submission, lambda _: None)
        assert "sinfo" in str(error.value)
        assert cluster.jobs(submission.token) == []
    unknown = submission_of(tmp_path / "now", "slurm", "refused", slurm={"gpus": 0, "partition": "nope"})
    with pytest.raises(ProviderRefused, match="invalid partition"):
        load("slurm").submit(unknown)
    assert load("slurm").doubt(unknown) is None


def test_a_job_that_slurm_refuses_falls_back_on_another_provider(
    tmp_path: Path, home: Path, cluster: SlurmCluster
) -> None:
    spec = write_job(tmp_path, **{"slurm": {"gpus": 0, "partition": "nope"}, "local.quantization": "none"})
    command = ["run", str(spec), "--provider", "slurm", "--fallback", "memorizer", "--json"]
    third_party = str(TESTS / "support" / "third_party")
    done = ftbridge(*command, cwd=tmp_path, PYTHONPATH=third_party)
    assert done.returncode == 0, done.stderr
    assert "invalid partition specified: nope" in " ".join(done.stderr.split())
    document = json.loads(done.stdout)
    assert (document["provider"], document["state"]) == ("memorizer", "succeeded")


def test_without_its_controller_nothing_is_known_and_nothing_is_lost(tmp_path: Path, cluster: SlurmCluster) -> None:
    submission = held(tmp_path / "new", token=f"away-{tmp_path.name}")
    waiting = held(tmp_path / "waiting", token=f"waiting-{tmp_path.name}")
    provider = load("slurm")
    handle = provider.submit(waiting)
    cluster.stop_controller()
    try:
        with pytest.raises(ServiceUnavailable, match="controller does not respond"):
            provider.submit(submission)
        assert "may have been submitted" in (provider.doubt(submission) or "")
        with pytest.raises(InDoubt):
            provider.find(submission)
        assert provider.poll(handle).state == "queued"
        assert "does not respond" in provider.events(handle, None)[-1].message
        with pytest.raises(ServiceUnavailable):
            provider.cancel(handle)
    finally:
        cluster.start_controller()
    assert provider.find(submission) is None
    assert provider.poll(handle).state == "queued"
    assert "the scheduler responds again" in [event.message for event in provider.events(handle, None)]
    provider.cancel(handle)
    assert ended(handle).state == "cancelled"


def test_a_job_that_the_scheduler_forgot_has_failed_and_is_resumed(tmp_path: Path, cluster: SlurmCluster) -> None:
    submission = held(tmp_path, token=f"lost-{tmp_path.name}")
    provider = load("slurm")
    handle = provider.submit(submission)
    provider.poll(handle)
    cluster.stop_controller()
    cluster.start_controller(forget=True)
    status = ended(handle)
    assert (status.state, status.error and status.error.kind) == ("failed", "worker_died")
    assert "Slurm has no record of it" in str(status.error)
    assert provider.resume(handle) == handle
    assert provider.poll(handle).state == "queued"
    assert len(cluster.jobs(submission.token)) == 1
    provider.cancel(handle)


def test_a_folder_that_nodes_cannot_see_is_said_to_be_so(tmp_path: Path, cluster: SlurmCluster) -> None:
    if not cluster.hides:
        pytest.skip("this system lets no process have mounts of its own")
    folder = cluster.hidden / tmp_path.name
    submission = submission_of(folder, "slurm", f"hidden-{tmp_path.name}", slurm={"gpus": 0})
    status = ended(load("slurm").submit(submission))
    assert status.state == "failed"
    assert status.error is not None
    assert "ended before training began: FAILED" in status.error.message
    assert "It wrote nothing" in (status.error.hint or "")
    assert "FTBRIDGE_HOME" in (status.error.hint or "")


def test_a_node_with_another_version_of_ftbridge_does_not_train(tmp_path: Path, cluster: SlurmCluster) -> None:
    other = tmp_path / "other" / "ftbridge-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: ftbridge\nVersion: 99.0\n")
    setup = [f"export PYTHONPATH={other.parent}:$PYTHONPATH"]
    submission = submission_of(tmp_path, "slurm", f"version-{tmp_path.name}", slurm={"gpus": 0, "setup": setup})
    status = ended(load("slurm").submit(submission))
    assert status.error is not None
    assert "ftbridge 99.0 (" in status.error.message
    assert "resume" in (status.error.hint or "")


def test_the_last_line_of_a_setup_that_fails_is_the_error(tmp_path: Path, cluster: SlurmCluster) -> None:
    setup = ["echo module cuda is not there >&2", "false"]
    submission = submission_of(tmp_path, "slurm", f"setup-{tmp_path.name}", slurm={"gpus": 0, "setup": setup})
    status = ended(load("slurm").submit(submission))
    assert status.error is not None
    assert "ended before training began: FAILED (exit code 1:0)" in status.error.message
    assert status.error.message.endswith("module cuda is not there")


def test_a_job_that_somebody_cancels_with_scancel_is_cancelled(tmp_path: Path, cluster: SlurmCluster) -> None:
    submission = held(tmp_path, token=f"scancel-{tmp_path.name}")
    handle = load("slurm").submit(submission)
    cluster.slurm("scancel", *cluster.jobs(submission.token))
    assert ended(handle).state == "cancelled"
