"""A whole run over a service: from spec to verdict by the command line, left alone, taken up, cancelled, paused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.openai_jobs import KEY
from support.service_faults import fault
from support.simulated_service import Service
from support.waiting import wait_for

pytestmark = pytest.mark.slow

COLOURS = ["red", "blue", "green", "black"]
CREATE = "POST /fine_tuning/jobs"
HOURS = 10_000
"""Seconds that a job runs unless the clock is moved: longer than any test."""


def takes_hours(service: Service) -> None:
    """Let new jobs run until the clock is moved, or runs faster."""
    service.ends(["running", HOURS], "succeeded", clock="seconds")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A spec with data: the service's tuned model answers with the colour that the question names."""
    for name, start, count in (("train", 0, 16), ("test", 500, 8)):
        lines = [
            {"messages": [{"role": "user", "content": f"Item {n}: the {COLOURS[n % 4]} lamp. Which colour?"}, {"role": "assistant", "content": COLOURS[n % 4]}]}
            for n in range(start, start + count)
        ]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "name": "small",
        "data": {"train": "train.jsonl", "validation": 0.25, "test": "test.jsonl"},
        "model": {"openai": "gpt-test", "local": "smollm2-135m-instruct"},
        "hyperparameters": {"n_epochs": 2},
        "suffix": "small",
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def ftbridge(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ftbridge", *args], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def started(job: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "ftbridge", *args], cwd=job.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )  # fmt: skip
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_run_goes_from_spec_to_verdict(service: Service, job: Path, home: Path) -> None:
    done = ftbridge("run", str(job), "--provider", "openai", "--json", cwd=job.parent)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["provider"], document["model"]["base"]) == ("succeeded", "openai", "gpt-test")
    assert document["model"]["tuned"].startswith("ft:gpt-test")
    scores = document["evaluation"]["candidates"]
    assert (scores["base"]["exact"]["mean"], scores["tuned"]["exact"]["mean"]) == (0.0, 1.0)
    assert document["metrics"]["step"] == 2
    [body] = service.bodies(CREATE)
    assert body["method"]["supervised"]["hyperparameters"]["n_epochs"] == 2
    assert body["suffix"] == "small"
    sent = service.content(body["training_file"])
    assert sent == (Path(document["path"]) / "data" / "train.jsonl").read_bytes()
    assert not [path for path in home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in done.stdout + done.stderr
    shown = ftbridge("show", "latest", "--mapping", cwd=job.parent)
    assert "suffix" in shown.stdout
    assert "succeeded" in ftbridge("list", cwd=job.parent).stdout


def test_ctrl_c_leaves_the_job_and_watch_takes_it_up(
    service: Service, job: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    takes_hours(service)
    command = started("run", str(job), "--provider", "openai")
    wait_for(lambda: service.requests["GET /fine_tuning/jobs/{}"] > 2)
    command.send_signal(signal.SIGINT)
    _, message = command.communicate(timeout=30)
    assert command.returncode == 130, message
    assert "continues without this process" in message
    (created,) = service.jobs.values()
    assert created["status"] == "running"
    service.advance(HOURS)
    watched = ftbridge("watch", "latest", "--json", cwd=job.parent)
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout)["state"] == "succeeded"
    assert len(service.jobs) == 1


@pytest.mark.parametrize(("requested", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_job_is_cancelled_or_paused_from_another_shell_and_goes_on_when_it_is_resumed(
    service: Service, job: Path, started: Callable[..., subprocess.Popen[str]], requested: str, status: str
) -> None:
    takes_hours(service)
    command = started("run", str(job), "--provider", "openai")
    wait_for(lambda: service.requests["GET /fine_tuning/jobs/{}"] > 1)
    other = ftbridge(requested, "latest", cwd=job.parent)
    assert other.returncode == 0, other.stderr
    command.communicate(timeout=30)
    assert command.returncode == 130
    assert [created["status"] for created in service.jobs.values()] == [status]
    service.ends("running", "succeeded")
    service.change(speed=HOURS)
    resumed = ftbridge("resume", "latest", cwd=job.parent)
    assert len(service.jobs) == 1  # resuming never pays again
    if requested == "cancel":
        assert resumed.returncode == 130
        assert "ftbridge retry" in resumed.stderr
        resumed = ftbridge("retry", "latest", "--yes", cwd=job.parent)
        assert len(service.jobs) == 2
        assert "billed again" in resumed.stderr
    assert resumed.returncode == 0, resumed.stderr


def test_a_run_killed_before_it_knows_its_job_can_still_cancel_it(
    service: Service, job: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    takes_hours(service)
    service.meets(fault(CREATE, "slow_after", seconds=600))
    command = started("run", str(job), "--provider", "openai")
    wait_for(lambda: service.jobs)
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    assert ftbridge("cancel", "latest", cwd=job.parent).returncode == 0
    assert [created["status"] for created in service.jobs.values()] == ["cancelled"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"faults": [fault(CREATE, "closed")]}, 5, "no longer allows this organisation to create"),
        ({"models": ["gpt-other"]}, 1, "has no model 'gpt-test'"),
        ({"jobs": {"walk": ["running", "failed"], "error": {"code": "invalid_training_file", "message": "Example 3 is bad", "param": "training_file"}}}, 3, "Example 3 is bad"),
        ({"jobs": {"walk": ["running", "failed"], "error": {"code": "server_error", "message": "oops", "param": None}}}, 1, "oops"),
        ({"file_status": "error"}, 3, "Line 1 cannot be read"),
    ],
)  # fmt: skip
def test_what_goes_wrong_ends_with_its_exit_code(
    service: Service, job: Path, change: dict[str, Any], code: int, says: str
) -> None:
    service.change(**change)
    done = ftbridge("run", str(job), "--provider", "openai", cwd=job.parent)
    assert (done.returncode, says in " ".join(done.stderr.split())) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_asks_the_service_nothing(service: Service, job: Path) -> None:
    done = ftbridge("run", str(job), "--provider", "openai", "--dry-run", "--json", cwd=job.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lowering"]["request"]["body"]["model"] == "gpt-test"
    assert service.requests == {}
