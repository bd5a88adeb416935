"""What runs on a node. `run` is the job of a scheduler; it starts `work`, on this node or on every node of the job, and waits.

    python -m ftbridge.providers.cluster.node run FOLDER LAUNCH JOB RESTART [--nodes N --across COMMAND …] [--requeue COMMAND]
      attempt record ─▶ clock and versions ─▶ work ─▶ did the scheduler's signal end it? ─▶ COMMAND JOB
                                              ▲
                            SIGUSR1, SIGTERM ─┘ control file "requeue": a checkpoint at the end of the step

    python -m ftbridge.providers.cluster.node work FOLDER [--nodes N --rdzv HOST:PORT …]
      the local provider's worker, which stays when the scheduler sends SIGTERM to every process of the job

SIGUSR1 announces the time limit, and the job is queued again by the command of `--requeue`, unless nothing was trained. SIGTERM
is a preemption, after which the scheduler queues the job again itself, or a cancellation, after which nobody should.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from ftbridge.errors import FtbridgeError, TrainingFailed, document
from ftbridge.providers.cluster.launches import Launch, Launches, versions
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.provider import reported_status

CLOCK_SECONDS = 60.0
"""How far apart the clocks of two machines may be before that is said: times in lists and hours of a budget depend on them."""
NO_FOLDER = 66
"""Exit status where the run folder is not there (EX_NOINPUT of sysexits.h)."""


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit status is for the scheduler's records."""
    parser = argparse.ArgumentParser(prog="python -m ftbridge.providers.cluster.node")
    parser.add_argument("part", choices=["run", "work"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("launch", nargs="?", default="")
    parser.add_argument("job", nargs="?", default="")
    parser.add_argument("restart", nargs="?", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--across", type=shlex.split, default=[])
    parser.add_argument("--requeue", type=shlex.split, default=[])
    parser.add_argument("--rdzv", metavar="HOST:PORT")
    parser.add_argument("--rank-variable", metavar="NAME", help="Environment variable with the node's number, from 0.")
    options = parser.parse_args(arguments)
    return _run(options) if options.part == "run" else _work(options)


def _run(options: argparse.Namespace) -> int:
    job, launches, host = Job(options.folder), Launches(options.folder), socket.gethostname()
    launch = launches.last() if job.submitted else None
    if launch is None:
        text = f"{host}: there is no run in {options.folder}. FTBRIDGE_HOME must be on storage that the nodes share."
        print(text, file=sys.stderr)
        return NO_FOLDER
    if launch.name != options.launch or launch.requested is not None:
        print(f"launch {options.launch} is outdated; the newest is {launch.name}", file=sys.stderr)
        return 0
    if (status := reported_status(job.journal.read())) is not None and status.state == "succeeded":
        return 0
    if job.is_requeued():
        job.clear_control()
    job.journal.append("attempt", launch=launch.name, job=options.job, restart=options.restart, host=host)
    try:
        _compare_with_submitter(job, launch)
    except FtbridgeError as error:
        job.journal.append("failed", error=document(error))
        return 1
    before = _saved_steps(job)
    status_code, signals = _supervise(job, _command(options))
    ended = reported_status(job.journal.read())
    launch = launches.last()
    was_requested = launch is not None and launch.requested is not None
    is_announced = job.is_requeued() and not was_requested and signal.SIGTERM not in signals
    if not is_announced or ended is None or ended.state != "paused" or ended.error is not None:
        return status_code
    if _saved_steps(job) == before:
        nothing = TrainingFailed(
            "the time limit of the job passed before a single step was trained.",
            hint="Raise the time limit, or lower hyperparameters.batch_size; then resume.",
        )
        job.clear_control()
        job.journal.append("failed", error=document(nothing))
        return 1
    if options.requeue:
        subprocess.run([*options.requeue, options.job], check=False)
    return 0


def _work(options: argparse.Namespace) -> int:
    """Train as this node's part of the job. Signals are for `_run`, which asks all workers to stop at the same step."""
    from ftbridge.providers.local.process import worker
    from ftbridge.providers.local.process.launch import Rendezvous

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(
            number, lambda *_: None
        )  # a handler, unlike SIG_IGN, is not inherited by processes that are started
    if options.rdzv is None:
        return worker.main(options.folder)
    rendezvous = Rendezvous.parse(options.rdzv, options.nodes)
    if (rank := os.environ.get(options.rank_variable or "")) is not None:
        rendezvous = replace(rendezvous, is_host=rank == "0")
    return worker.main(options.folder, rendezvous)


def _command(options: argparse.Namespace) -> list[str]:
    """What trains: a process here, or one on each node, which meet at this node, the first of the job.

    Where the node's name is not its address for the others, `MASTER_ADDR` is, as for torchrun.
    """
    work = [sys.executable, "-m", "ftbridge.providers.cluster.node", "work", str(options.folder)]
    if options.nodes == 1:
        return work
    host = os.environ.get("MASTER_ADDR") or socket.gethostname()
    with socket.socket() as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    rank = ["--rank-variable", options.rank_variable] if options.rank_variable else []
    return [*options.across, *work, "--nodes", str(options.nodes), "--rdzv", f"{host}:{port}", *rank]


def _supervise(job: Job, command: Sequence[str]) -> tuple[int, list[int]]:
    """Run the command to its end, passing the scheduler's signals on as a request; its exit status, and the signals."""
    signals: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        signals.append(number)
        if job.requested() is None:
            job.ask("requeue")

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, on_signal)
    status = subprocess.run(command, check=False).returncode
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return (status if status >= 0 else 128 - status), signals


def _compare_with_submitter(job: Job, launch: Launch) -> None:
    """Say where this node differs from the machine that submitted. Raises `TrainingFailed` for another version of ftbridge.

    Its own version decides how a request is read and what a step computes; another version of a library computes a little
    differently at most, which is said.
    """
    on_node, at_submitter, host = versions(), launch.versions, socket.gethostname()
    behind = launch.time - time.time()
    if behind > CLOCK_SECONDS:
        text = f"the clock of {host} is at least {behind:.0f} s behind that of {launch.host}; times and hours are off by that"
        job.journal.append("message", level="warn", text=text)
    different = [
        f"{package} {on_node.get(package, 'is missing')} ({version} there)"
        for package, version in at_submitter.items()
        if on_node.get(package) != version
    ]
    text = f"{host} has other package versions than {launch.host}, which submitted the job: {', '.join(different)}"
    if on_node.get("ftbridge") != at_submitter.get("ftbridge"):
        raise TrainingFailed(
            f"{text}.",
            hint="Use one environment on shared storage, or name the nodes' interpreter in the spec (python), and resume.",
        )
    if different:
        job.journal.append("message", level="warn", text=text)


def _saved_steps(job: Job) -> int:
    """The step of the newest checkpoint; 0 without one."""
    names = (path.name.removeprefix("step-") for path in (job.folder / "checkpoints").glob("step-*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
