"""What runs on a node: `python -m ftbridge.providers.cluster.node RUN_FOLDER LAUNCH JOB RESTART [--requeue COMMAND…]`.

    attempt record ─▶ versions and clock ─▶ worker ─▶ did the scheduler's signal end it? ─▶ requeue
                                              ▲
                            SIGUSR1, SIGTERM ─┘ control file "requeue": a checkpoint at the end of the step

SIGUSR1 announces the time limit, and the job is queued again by `COMMAND… JOB`, unless nothing was trained. SIGTERM is a
preemption, after which the scheduler queues the job again itself, or a cancellation, after which nobody should.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ftbridge.errors import FtbridgeError, TrainingFailed, document
from ftbridge.providers.cluster.launches import Launch, Launches, versions
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.provider import reported_status

CLOCK_SECONDS = 60.0
"""How far apart the clocks of two machines may be before somebody is told. Nothing depends on it but times in lists."""
NO_FOLDER = 66
"""Exit status where the run folder is not there (EX_NOINPUT of sysexits.h)."""


def main(arguments: Sequence[str]) -> int:
    """Run the worker of a launch; the exit status is for the scheduler's log."""
    plain, _, requeue = _split(arguments, "--requeue")
    folder, name, scheduler_job, restart = Path(plain[0]), plain[1], plain[2], int(plain[3] or 0)
    job, launches = Job(folder), Launches(folder)
    launch = launches.last()
    if launch is None or not job.submitted:
        print(
            f"{socket.gethostname()}: there is no run in {folder}. FTBRIDGE_HOME must be on storage that nodes share.",
            file=sys.stderr,
        )
        return NO_FOLDER
    if launch.name != name or launch.requested == "cancel":
        print(f"launch {name} counts no more: {launch.name} does", file=sys.stderr)
        return 0
    if (status := reported_status(job.journal.read())) is not None and status.state == "succeeded":
        return 0
    if job.is_requeued():
        job.clear_control()
    job.journal.append("attempt", launch=name, job=scheduler_job, restart=restart, host=socket.gethostname())
    try:
        _compare_with_submitter(job, launch)
    except FtbridgeError as error:
        job.journal.append("failed", error=document(error))
        return 1
    return _train(job, launches, [*requeue, scheduler_job] if requeue else None)


def _split(arguments: Sequence[str], option: str) -> tuple[list[str], bool, list[str]]:
    words = list(arguments)
    if option not in words:
        return words, False, []
    index = words.index(option)
    return words[:index], True, words[index + 1 :]


def _compare_with_submitter(job: Job, launch: Launch) -> None:
    """Say where this node differs from the machine that submitted. Raises `TrainingFailed` for another version of ftbridge.

    Its own version decides how a request is read and what a step computes; another version of a library computes a little
    differently at most, which is said.
    """
    on_node, at_submitter, host = versions(), launch.versions, socket.gethostname()
    behind = launch.time - time.time()
    if behind > CLOCK_SECONDS:
        text = f"the clock of {host} is at least {behind:.0f} s behind that of {launch.host}; times in lists are off by that"
        job.journal.append("message", level="warn", text=text)
    different = [
        f"{package} {on_node.get(package, 'is missing')} ({version} there)"
        for package, version in at_submitter.items()
        if on_node.get(package) != version
    ]
    text = f"{host} has other packages than {launch.host}, which submitted the job: {', '.join(different)}"
    if on_node.get("ftbridge") != at_submitter.get("ftbridge"):
        raise TrainingFailed(
            f"{text}.",
            hint="Use one environment on shared storage, or name the nodes' interpreter in the spec (python), and resume.",
        )
    if different:
        job.journal.append("message", level="warn", text=text)


def _train(job: Job, launches: Launches, requeue: Sequence[str] | None) -> int:
    from ftbridge.providers.local.process import worker

    announced: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        announced.append(number)
        if job.requested() is None:
            job.ask("requeue")

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, on_signal)
    before = _saved_steps(job)
    status = worker.main(job.folder)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    launch = launches.last()
    was_asked = launch is not None and launch.requested is not None
    if status != 0 or was_asked or not job.is_requeued() or signal.SIGTERM in announced:
        return status
    ended = reported_status(job.journal.read())
    if ended is None or ended.state != "paused" or ended.error is not None:
        return status
    if _saved_steps(job) == before:
        error = TrainingFailed(
            "the time limit of the job passed before a single step was trained.",
            hint="Raise the time limit, or lower hyperparameters.batch_size; then resume.",
        )
        job.journal.append("failed", error=document(error))
        return 1
    if requeue is not None:
        subprocess.run(requeue, check=False)
    return 0


def _saved_steps(job: Job) -> int:
    """The step of the newest checkpoint; 0 without one."""
    names = (path.name.removeprefix("step-") for path in (job.folder / "checkpoints").glob("step-*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
