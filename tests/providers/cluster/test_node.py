"""The node's part of a launch, and what the provider makes of records that differ from what it expects. No scheduler is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import ServiceUnavailable
from ftbridge.providers.base import JobHandle, Submission
from ftbridge.providers.cluster.launches import Launches
from ftbridge.providers.cluster.node import NO_FOLDER
from ftbridge.providers.cluster.provider import ClusterProvider
from ftbridge.providers.cluster.scheduler import Order, View
from ftbridge.providers.local.process.job import Job
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Outcome
from support.cluster_jobs import submission_of
from support.jobs import lines


class Processes:
    """A scheduler that starts jobs as processes of this machine at once; `view` is what it shows of them."""

    title = "The scheduler"

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.view: View | None = View(state="running")

    def check(self, order: Order, progress: Callable[[str], None]) -> None:
        progress("checking")

    def find(self, order: Order) -> str | None:
        if self.view is None:
            raise ServiceUnavailable("the scheduler does not answer.")
        return order.name if order.name in self.started else None

    def submit(self, order: Order) -> str:
        if self.view is None:
            raise ServiceUnavailable("the scheduler does not answer.")
        self.started.append(order.name)
        return order.name

    def look(self, order: Order, job: str) -> View:
        if self.view is None:
            raise ServiceUnavailable("the scheduler does not answer.")
        return self.view

    def log_tail(self, job: str) -> list[str]:
        return []

    def attached(self, module: str, name: str) -> None:
        del module, name

    def stop(self, job: str) -> None:
        self.stopped.append(job)


class ProcessProvider(ClusterProvider):
    """The cluster provider with that scheduler; it takes the section `slurm` of the spec."""

    name = "slurm"

    def __init__(self) -> None:
        super().__init__()
        self.processes = Processes()

    def scheduler(self, launch: dict[str, Any]) -> Processes:
        return self.processes

    def machines(self, spec: JobSpec) -> tuple[int, int]:
        return 1, 0

    def notes(self, spec: JobSpec) -> dict[str, tuple[Outcome, Any, str]]:
        return {}


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return submission_of(tmp_path, "slurm")


def run_node(folder: Path, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftbridge.providers.cluster.node", "run", str(folder), name, "7", "0", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def records(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(event["type"], event["data"]) for event in lines(folder / "worker.jsonl")]


def test_a_node_that_cannot_see_the_folder_says_which(tmp_path: Path) -> None:
    done = run_node(tmp_path / "elsewhere", "token.1")
    assert done.returncode == NO_FOLDER
    assert f"there is no run in {tmp_path / 'elsewhere'}" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_launch_that_was_replaced_does_nothing(submission: Submission) -> None:
    provider = ProcessProvider()
    handle = provider.submit(submission)
    provider.processes.view = View(state="ended", ending="lost")
    provider.resume(handle)
    assert provider.processes.started == ["token.1", "token.2"]
    assert run_node(submission.folder, "token.1").returncode == 0
    assert records(submission.folder) == []


def test_a_node_whose_clock_is_behind_says_so_and_one_that_is_ahead_is_noticed(submission: Submission) -> None:
    provider = ProcessProvider()
    handle = provider.submit(submission)
    path = submission.folder / "cluster" / "launches.jsonl"
    intended, submitted = lines(path)
    intended["data"]["time"] += 3600  # the submitter's clock is an hour ahead of this one
    intended["data"]["versions"] = {"ftbridge": "99.0"}  # so that nothing is trained
    path.write_text("".join(json.dumps(event) + "\n" for event in (intended, submitted)))
    assert run_node(submission.folder, "token.1").returncode == 1
    assert records(submission.folder)[-1][0] == "failed"
    messages = [data["text"] for kind, data in records(submission.folder) if kind == "message"]
    assert any("clock" in text and "behind" in text for text in messages)

    worker = submission.folder / "worker.jsonl"
    event = {"seq": len(lines(worker)) + 1, "time": time.time() + 3600, "type": "attempt"}
    event["data"] = {"launch": "token.1", "job": "7", "host": "node9"}
    with worker.open("a") as stream:
        stream.write(json.dumps(event) + "\n")
    provider.poll(handle)
    provider.poll(handle)
    ahead = [event.message for event in provider.events(handle, None) if "ahead of this machine's" in event.message]
    assert len(ahead) == 1
    assert "node9" in ahead[0]


def test_the_worker_s_records_are_believed_before_the_scheduler(submission: Submission) -> None:
    provider = ProcessProvider()
    handle = provider.submit(submission)
    journal = Job(submission.folder).journal
    assert provider.poll(handle).state == "running", "the scheduler runs it, and its worker has not begun"
    journal.append("attempt", launch="token.1", job="7", restart=0, host="node1")
    journal.append("started", pid=1)
    provider.processes.view = None
    assert provider.poll(handle).state == "running", "the scheduler is away"
    provider.processes.view = View(state="queued", word="PENDING")
    assert provider.poll(handle).state == "queued", "it was queued again"
    journal.append("attempt", launch="token.1", job="7", restart=1, host="node1")
    journal.append("started", pid=1)
    journal.append("succeeded")
    provider.processes.view = View(state="ended", ending="failed")
    assert provider.poll(handle).state == "succeeded"


@pytest.mark.parametrize(
    ("ending", "checkpoint", "state", "kind"),
    [
        ("out_of_memory", False, "failed", "out_of_memory"),
        ("time_limit", False, "failed", "training_failed"),
        ("time_limit", True, "paused", "training_failed"),
        ("node_failed", True, "failed", "worker_died"),
        ("lost", False, "failed", "worker_died"),
        ("cancelled", False, "cancelled", None),
    ],
)  # fmt: skip
def test_a_job_that_is_gone_ended_as_its_scheduler_says(
    submission: Submission, ending: Any, checkpoint: bool, state: str, kind: str | None
) -> None:
    provider = ProcessProvider()
    handle = provider.submit(submission)
    journal = Job(submission.folder).journal
    journal.append("attempt", launch="token.1", job="7", restart=0, host="node1")
    journal.append("started", pid=1)
    if checkpoint:
        (submission.folder / "checkpoints" / "step-000001").mkdir(parents=True)
    provider.processes.view = View(
        state="ended", ending=ending, word=ending.upper(), detail="exit code 1:0", node="node1"
    )
    status = provider.poll(handle)
    assert (status.state, status.error and status.error.kind) == (state, kind)
    if status.error is not None:
        assert "token.1" in status.error.message
        assert "exit code 1:0" in status.error.message


def test_a_submission_in_doubt_is_settled_by_its_name_or_counts_no_more(submission: Submission) -> None:
    provider = ProcessProvider()
    Job(submission.folder).own_folder.mkdir(parents=True)
    Job(submission.folder).write(submission)
    launches = Launches(submission.folder)
    launches.intend(submission.token, submission.folder / "worker.log")
    assert "token.1" in (provider.doubt(submission) or "")
    provider.processes.started.append("token.1")
    assert provider.find(submission) == JobHandle(provider="slurm", id="token", folder=submission.folder)
    assert provider.doubt(submission) is None
    provider.submit(submission)
    assert provider.processes.started == ["token.1"]


def test_a_job_that_ended_before_it_could_be_looked_for_is_known_by_its_worker_s_record(submission: Submission) -> None:
    provider = ProcessProvider()
    Job(submission.folder).own_folder.mkdir(parents=True)
    Job(submission.folder).write(submission)
    Launches(submission.folder).intend(submission.token, submission.folder / "worker.log")
    Job(submission.folder).journal.append("attempt", launch="token.1", job="77", restart=0, host="node1")
    provider.submit(submission)
    assert provider.processes.started == []
    last = Launches(submission.folder).last()
    assert last is not None
    assert last.job == "77"


def test_a_doubt_that_the_user_takes_away_lets_another_job_be_submitted(submission: Submission) -> None:
    provider = ProcessProvider()
    Job(submission.folder).own_folder.mkdir(parents=True)
    Job(submission.folder).write(submission)
    Launches(submission.folder).intend(submission.token, submission.folder / "worker.log")
    provider.forget(submission)
    assert provider.doubt(submission) is None
    provider.submit(submission)
    assert provider.processes.started == ["token.2"]
    assert run_node(submission.folder, "token.1").returncode == 0
    assert records(submission.folder) == []


def test_a_job_that_could_not_be_submitted_again_is_when_the_scheduler_answers(submission: Submission) -> None:
    provider = ProcessProvider()
    handle = provider.submit(submission)
    journal = Job(submission.folder).journal
    journal.append("attempt", launch="token.1", job="7", restart=0, host="node1")
    journal.append("paused")
    provider.processes.view = None
    with pytest.raises(ServiceUnavailable):
        provider.resume(handle)
    assert provider.poll(handle).state == "queued", "it may have been submitted"
    provider.processes.view = View(state="running")
    assert provider.poll(handle).state == "paused", "it was not"
    provider.resume(handle)
    assert provider.processes.started == ["token.1", "token.3"]
    assert provider.poll(handle).state == "running"
