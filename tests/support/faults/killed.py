"""A run driven in a process of its own that SIGKILL ends at a chosen write to a journal.

Processes are forked from one that has imported what they need: a start of Python for each of some hundred kills would take
minutes, and prove nothing more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["ftbridge.runner.drive", "ftbridge.providers.openai.provider", "openai", "scipy.stats"])
_SECONDS = 120


def drive(run: Path, write: int = 0, *, after: bool = False) -> int:
    """The exit status of a process that drives a run; SIGKILL ends it before or after its `write`-th write (0: never).

    What it prints is in drive.log beside the run.
    """
    process = _FORKS.Process(target=_drive, args=(run, write, after, dict(os.environ)))
    process.start()
    process.join(_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the run was not at its end after {_SECONDS} s: {log_of(run)}")
    return process.exitcode


def log_of(run: Path) -> str:
    """What the processes that drove a run printed."""
    return _log_path(run).read_text() if _log_path(run).exists() else ""


def _log_path(run: Path) -> Path:
    return run.parent / f"{run.name}.drive.log"


def _drive(run: Path, write: int, after: bool, environment: dict[str, str]) -> None:
    from ftbridge.runner import drive
    from ftbridge.runs.run import Run

    os.environ.clear()
    os.environ.update(environment)
    sys.stdout = sys.stderr = _log_path(run).open("a", buffering=1)
    if write:
        _kill_at(write, after=after)
    drive.POLL_SECONDS = 0.01
    drive.drive(Run.open(run))


def _kill_at(write: int, *, after: bool) -> None:
    from ftbridge.runs.journal import Journal

    left, append = write, Journal.append

    def append_or_die(self: Journal, type: str, /, **data: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        written = append(self, type, **data)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    Journal.append = append_or_die  # type: ignore[method-assign]
