"""The training process: `python -m ftbridge.providers.local.process.worker RUN_FOLDER`.

It reads `local/request.json`, reports through `worker.jsonl` (a journal of its own, so that the run's journal has its own
writers), holds `local/worker.lock` for as long as it lives, and looks at `local/control` before each step. It never
talks to the process that started it: that one may be gone.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ftbridge.errors import DataError, FtbridgeError, GateNotMet, document
from ftbridge.providers.local.process.job import Halted, Job


def main(folder: Path) -> int:
    """Train the job in `folder` to its end, a pause or a cancel; the exit status is for the log only."""
    faulthandler.enable()
    job = Job(folder)
    lock = FileLock(job.lock_path)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        print(f"another worker is training {folder}", file=sys.stderr)
        return 1
    with lock:
        job.journal.append("started", pid=os.getpid())
        try:
            ending = _train(job)
        except (GateNotMet, Halted) as stop:
            job.journal.append("paused", error=document(stop.error if isinstance(stop, Halted) else stop))
            return 0
        except BaseException as error:
            traceback.print_exc()
            error_document = document(as_known_error(error))
            job.journal.append("failed", error=error_document)
            return 1
        job.journal.append(ending)
    return 0


def _train(job: Job) -> Literal["succeeded", "paused", "cancelled"]:
    """Load, encode, train, save. Heavy imports are here, after the lock is held."""
    job.stage("loading libraries")
    from ftbridge.providers.local.process.run_training import run_training

    return run_training(job, JournalReporter(job))


def as_known_error(error: BaseException) -> BaseException:
    """Memory and disk errors that come up in odd places, as errors of ours."""
    if isinstance(error, FtbridgeError):
        return error
    from ftbridge.errors import DiskFull, OutOfMemory

    if isinstance(error, OSError) and error.errno == 28:
        return DiskFull(f"no room left on the disk ({error}).", hint="Free some space and resume the run.")
    if _is_out_of_memory(error):
        return OutOfMemory(
            f"memory ran out ({str(error).splitlines()[0] if str(error) else type(error).__name__}).",
            hint="Lower local.max_length or local.tokens_per_pass, set local.quantization: nf4, or take a smaller model.",
        )
    return error


def _is_out_of_memory(error: BaseException) -> bool:
    """The rule that training uses; before torch is there, Python's own error is all there can be."""
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from ftbridge.providers.local.models.device import is_out_of_memory

    return is_out_of_memory(error)


class JournalReporter:
    """A training `Reporter` that writes to the worker's journal."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def message(self, text: str, level: str = "info") -> None:
        """A sentence for people."""
        self.job.journal.append("message", text=text, level=level)

    def metrics(self, **figures: float | int | str | None) -> None:
        """One step's figures. Not synced to disk one by one: a lost step is trained again anyway."""
        rounded: dict[str, Any] = {name: _rounded(value) for name, value in figures.items()}
        self.job.journal.append("metrics", sync=False, **rounded)

    def checkpoint(self, path: Path, step: int) -> None:
        """A checkpoint is whole."""
        self.job.journal.append("checkpoint", path=str(path), step=step)


def _rounded(value: float | int | str | None) -> float | int | str | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise DataError("usage: python -m ftbridge.providers.local.process.worker RUN_FOLDER")
    raise SystemExit(main(Path(sys.argv[1])))
