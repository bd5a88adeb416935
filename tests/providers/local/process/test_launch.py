"""Several workers as real processes: started by the provider, killed, stopped, resumed by another number of them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftbridge.errors import DiskFull, OutOfMemory, UsageError, WorkerDied, document
from ftbridge.files import write_json
from ftbridge.providers.base import JobHandle
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.launch import Rendezvous, first_cause, require_reachable, workers_here
from ftbridge.providers.local.process.provider import LocalProvider
from ftbridge.providers.local.process.run_training import run_training
from support import ranks, training_requests
from support.jobs import submitted_job


@pytest.mark.parametrize("address", ["node1", "node1:", ":29400", "node1:0", "node1:70000", "node1:http"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Rendezvous.parse(address, 2)


def test_machines_cannot_meet_at_a_loopback_address() -> None:
    with pytest.raises(UsageError, match="cannot meet there"):
        Rendezvous.parse("localhost:29400", 2)
    assert Rendezvous.parse("localhost:29400", 1).port == 29400
    assert Rendezvous.parse("[fe80::1]:29400", 2).host == "fe80::1"


def test_a_machine_whose_name_is_its_loopback_is_refused_unless_the_interface_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    require_reachable(1)
    with pytest.raises(UsageError, match="GLOO_SOCKET_IFNAME|loopback"):
        require_reachable(2)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    require_reachable(2)


def test_one_worker_trains_on_a_cpu_unless_more_are_named() -> None:
    assert workers_here(training_requests.request(workers="auto", device="cpu")) == 1
    assert workers_here(training_requests.request(workers=3, device="cpu")) == 3


def test_the_first_cause_is_reported_and_not_what_it_led_to(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.own_folder.mkdir()
    killed = first_cause(job, {0: -15, 1: -9})
    write_json(job.error_path(1), document(DiskFull("no room left on the disk.")))
    time.sleep(0.01)
    write_json(job.error_path(0), document(OutOfMemory("memory ran out.")))
    cause = first_cause(job, {0: 1, 1: 1, 2: -9})
    assert isinstance(cause, DiskFull)
    assert cause.message == "worker 1: no room left on the disk."
    job.error_path(1).unlink()
    assert "worker 0: memory ran out" in first_cause(job, {0: 1}).message
    assert isinstance(killed, WorkerDied)
    assert "worker 1 was killed by signal 9" in killed.message


def test_workers_that_do_not_end_are_killed_soon_after_one_left_its_error(tmp_path: Path) -> None:
    """Alone in a process: what it kills are children of the process that it runs in."""
    job = Job(tmp_path)
    job.own_folder.mkdir()
    program = f"""
import subprocess, sys
from pathlib import Path
from ftbridge.providers.local.process import launch
from ftbridge.providers.local.process.job import Job
launch.GRACE_SECONDS = 0.2
start = lambda: subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
job, other = Job(Path({str(tmp_path)!r})), start()
with launch._ended_soon(job):
    worker = start()
    try:
        print("no error:", worker.wait(2.5))
    except subprocess.TimeoutExpired:
        job.error_path(1).write_text("{{}}")
        print("killed by", -worker.wait(20))
print("the other goes on:", other.poll() is None)
other.kill()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["killed by 9", "the other goes on: True"], done.stderr


# Real processes

EPOCHS = 24
"""120 steps, of which a fast machine does fifty in a second: the job has to be at work when it is interrupted."""
ENDLESS = 2000
"""For a job that is stopped and not resumed."""
LONG_EPOCH = 80
"""Steps of an epoch of which few are beside a checkpoint."""


def handle_of(job: Job) -> JobHandle:
    return JobHandle(provider="local", id="t", folder=job.folder)


def workers_of(job: Job) -> dict[int, psutil.Process]:
    """The training processes of a job by rank."""
    processes = {}
    for process in psutil.process_iter():
        try:
            if str(job.folder) in process.cmdline() and "RANK" in (environment := process.environ()):
                processes[int(environment["RANK"])] = process
        except psutil.Error:
            continue
    return processes


def steps_of(job: Job) -> list[dict[str, Any]]:
    return [event.data for event in job.journal.read() if event.type == "metrics"]


def wait(what: Any, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "it took too long"
        time.sleep(0.1)


def change(job: Job, **changes: Any) -> None:
    path = job.own_folder / "request.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def start_job(tmp_path: Path, tiny_model_dir: Path) -> Iterator[Callable[..., Job]]:
    """Submits a job of two workers; what is left of its workers is killed."""
    jobs = []

    def submit(sharding: str, **changes: Any) -> Job:
        settings = {"local.workers": 2, "local.sharding": sharding, "local.lora.dropout": 0.0, "local.device": "cpu",
                    "hyperparameters.learning_rate_multiplier": 5}  # fmt: skip
        jobs.append(submitted_job(tmp_path / "several", tiny_model_dir, **{**settings, **changes}))
        return jobs[-1]

    yield submit
    for job in jobs:
        for process in workers_of(job).values():
            process.kill()


@pytest.fixture
def job(request: pytest.FixtureRequest, start_job: Callable[..., Job]) -> Job:
    return start_job(getattr(request, "param", "ddp"), **{"hyperparameters.n_epochs": EPOCHS})


@pytest.mark.slow
@pytest.mark.parametrize(("job", "victim", "then"), [("ddp", 1, 1), ("fsdp2", 0, 3)], indirect=["job"])
def test_a_killed_worker_ends_the_job_which_another_number_resumes_to_the_same_losses(
    job: Job, victim: int, then: int, tmp_path: Path, tiny_model_dir: Path
) -> None:
    undisturbed = submitted_job(
        tmp_path / "one", tiny_model_dir, **{"hyperparameters.n_epochs": EPOCHS, "local.lora.dropout": 0.0,
                                             "hyperparameters.learning_rate_multiplier": 5},
    )  # fmt: skip
    alone = ranks.Written()
    run_training(undisturbed, alone)
    provider, handle = LocalProvider(), handle_of(job)
    provider.resume(handle)
    wait(lambda: len(steps_of(job)) >= 8, 200)
    assert provider.poll(handle).state == "running"
    os.kill(workers_of(job)[victim].pid, signal.SIGKILL)
    wait(lambda: provider.poll(handle).state == "failed", 60)
    error = provider.poll(handle).error
    assert error is not None
    assert error.kind == "worker_died"
    assert f"worker {victim} was killed by signal 9" in error.message
    wait(lambda: not workers_of(job), 60)
    change(job, workers=then)
    provider.resume(handle)
    wait(lambda: provider.poll(handle).state == "succeeded", 200)
    seen = {step["step"]: step for step in steps_of(job)}
    assert sorted(seen) == list(range(1, len(alone.figures) + 1))
    for figures, other in zip(ranks.losses(alone.figures), ranks.losses([seen[n] for n in sorted(seen)]), strict=True):
        assert other == pytest.approx(figures, rel=1e-5, abs=2e-5)


@pytest.mark.slow
def test_a_worker_that_stands_still_ends_the_job_within_a_minute(job: Job) -> None:
    provider, handle = LocalProvider(), handle_of(job)
    change(job, n_epochs=ENDLESS)
    provider.resume(handle)
    wait(lambda: len(steps_of(job)) >= 2, 200)
    os.kill(workers_of(job)[1].pid, signal.SIGSTOP)
    wait(lambda: provider.poll(handle).state == "failed", 60)
    error = provider.poll(handle).error
    assert error is not None
    assert "worker 1 has not reported" in error.message
    assert "worker 1 has not reported" in job.log_path.read_text()
    wait(lambda: not workers_of(job), 30)


STUCK = "(has not reported|has done nothing|has done anything) for [0-9]+ s"


@pytest.mark.slow
@pytest.mark.parametrize(("sharding", "victim"), [("ddp", 1), ("ddp", 0), ("fsdp2", 1)])
def test_a_worker_that_lives_but_gets_stuck_ends_the_job_within_a_minute(
    sharding: str, victim: int, start_job: Callable[..., Job]
) -> None:
    """Its main thread alone is stopped: its heartbeat goes on, as beside a hung call, unless that holds Python's lock."""
    job = start_job(sharding, train=LONG_EPOCH * 5, **{"local.evals_per_epoch": 1})
    provider, handle = LocalProvider(), handle_of(job)
    change(job, n_epochs=ENDLESS)
    provider.resume(handle)
    wait(lambda: len(steps_of(job)) >= 2, 200)
    with stopped_between_checkpoints(job, workers_of(job)[victim].pid):
        wait(lambda: re.search(STUCK, job.log_path.read_text()), 50)
    wait(lambda: provider.poll(handle).state == "failed", 25)
    error = provider.poll(handle).error
    assert error is not None
    assert error.kind == "worker_died"
    assert re.search(STUCK, error.message)
    wait(lambda: not workers_of(job), 30)


@contextlib.contextmanager
def stopped_between_checkpoints(job: Job, thread: int) -> Iterator[None]:
    """A worker's main thread stopped in the middle of an epoch: one that saves may wait for its disk for any time."""
    for _ in range(50):
        with stopped_thread(thread):
            time.sleep(1.0)  # what the others have to report is in the journal
            if 5 < steps_of(job)[-1]["step"] % LONG_EPOCH < LONG_EPOCH - 5:
                yield
                return
        time.sleep(0.2)
    pytest.fail("each time it was beside a checkpoint")


@contextlib.contextmanager
def stopped_thread(thread: int) -> Iterator[None]:
    """One thread of another process stopped, as a debugger does it, while the others run on."""
    seize, interrupt, detach, wait_for_all = 0x4206, 0x4207, 17, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4

    def trace(request: int) -> None:
        if libc.ptrace(request, thread, 0, 0) == -1:
            pytest.skip(f"this machine does not let a test stop a thread: {os.strerror(ctypes.get_errno())}")

    trace(seize)
    trace(interrupt)
    try:
        yield
    finally:
        if libc.ptrace(detach, thread, 0, 0) == -1:  # it has ended: its parent is not notified before its tracer is
            with contextlib.suppress(ChildProcessError):
                os.waitpid(thread, wait_for_all)


@pytest.mark.slow
def test_a_pause_is_agreed_and_two_machines_go_on(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second part has two agents on this machine, which meet at a port as two machines do."""
    provider, handle = LocalProvider(), handle_of(job)
    provider.resume(handle)
    wait(lambda: len(steps_of(job)) >= 2, 200)
    provider.pause(handle)
    wait(lambda: provider.poll(handle).state == "paused", 60)
    paused_at = steps_of(job)[-1]["step"]
    assert (job.folder / "checkpoints" / f"step-{paused_at:06d}" / "COMPLETE.json").exists()
    wait(lambda: not workers_of(job), 60)

    addresses = [
        (name, one.address)
        for name, several in psutil.net_if_addrs().items()
        for one in several
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine has no address but its loopback, where machines cannot meet")
    interface, address = addresses[0]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", interface)
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "ftbridge",
        "worker",
        str(job.folder),
        "--rdzv",
        f"{address}:{port}",
        "--nodes",
        "2",
    ]
    machines = [subprocess.Popen([*command, "--workers", "1"], cwd=tmp_path)]
    wait(lambda: socket.socket().connect_ex((address, port)) == 0, 100)
    machines.append(subprocess.Popen([*command, "--workers", "1"], cwd=tmp_path))
    assert [machine.wait(timeout=250) for machine in machines] == [0, 0]
    assert provider.poll(handle).state == "succeeded"
    seen = [step["step"] for step in steps_of(job)]
    assert seen == list(range(1, seen[-1] + 1))


@pytest.mark.slow
def test_a_port_that_another_program_has_is_named(job: Job, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        command = [sys.executable, "-m", "ftbridge", "worker", str(job.folder), "--rdzv", address, "--workers", "2"]
        assert subprocess.run(command, cwd=tmp_path, timeout=120, capture_output=True, check=False).returncode == 1
    error = LocalProvider().poll(handle_of(job)).error
    assert error is not None
    assert f"port {address.partition(':')[2]} of 127.0.0.1 is used by a program" in error.message
