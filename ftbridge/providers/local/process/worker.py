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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ftbridge.errors import DataError, FtbridgeError, GateNotMet, WorkerDied, document
from ftbridge.files import write_json
from ftbridge.providers.local.process.child import end_process
from ftbridge.providers.local.process.job import Halted, Job
from ftbridge.providers.local.process.launch import Rendezvous, launch, require_reachable, workers_here

Ending = Literal["succeeded", "paused", "cancelled"]


def main(folder: Path, rendezvous: Rendezvous | None = None) -> int:
    """Train the job in `folder` to its end, a pause or a cancel; the exit status is for the log only.

    With a rendezvous this is one machine of several: the first to take the lock writes the first and the last word.
    """
    faulthandler.enable()
    job = Job(folder)
    lock = FileLock(job.lock_path)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        if rendezvous is None or rendezvous.nodes == 1:
            print(f"another worker is training {folder}", file=sys.stderr)
            return 1
        return _recorded(lambda: _train(job, rendezvous), lambda *_, **__: None)
    with lock:
        job.journal.append("started", pid=os.getpid())
        return _recorded(lambda: _train(job, rendezvous), job.journal.append)


def _recorded(train: Callable[[], Ending | None], record: Callable[..., Any]) -> int:
    """The exit status of `train`, whose ending or error is recorded: a word of `provider._STATES`, and an error's document."""
    try:
        ending = train()
    except (GateNotMet, Halted) as stop:
        record("paused", error=document(stop.error if isinstance(stop, Halted) else stop))
        return 0
    except BaseException as error:
        traceback.print_exc()
        record("failed", error=document(as_known_error(error)))
        return 1
    if ending is not None:
        record(ending)
    return 0


def _train(job: Job, rendezvous: Rendezvous | None) -> Ending | None:
    """Load, encode, train, save, here or in several workers; None where the main one of these has recorded how it ended.

    Heavy imports are here, after the lock is held.
    """
    job.stage("loading libraries")
    request = job.request()
    if rendezvous is not None:
        require_reachable(rendezvous.nodes)
    workers = (rendezvous.workers if rendezvous else None) or workers_here(request)
    if workers > 1 or (rendezvous is not None and rendezvous.nodes > 1):
        launch(job, workers, rendezvous)
        return None
    from ftbridge.providers.local.process.run_training import run_training

    return run_training(job, JournalReporter(job))


def one_of_several(folder: Path) -> int:
    """Train as one of the workers that torchrun started; an error is left in the folder for the agent."""
    from ftbridge.providers.local.process.heartbeat import leave, watched
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.training.parallel import StoppedElsewhere, joined

    faulthandler.enable()
    job, rank = Job(folder), int(os.environ["RANK"])

    def record(word: str, **data: Any) -> None:
        if word == "failed":
            if data["error"]["kind"] != "worker_died":  # one that lost the others has nothing to add
                write_json(job.error_path(rank), data["error"])
        elif rank == 0:
            job.journal.append(word, **data)

    def lost(reason: str) -> None:
        hint = f"Resume continues from the last checkpoint. Log: {job.log_path}"
        write_json(job.error_path(rank), document(WorkerDied(f"{reason}, so the job was ended.", hint=hint)))
        leave(reason)

    def train() -> Ending | None:
        with watched(rank, int(os.environ["WORLD_SIZE"]), lost), joined() as parallel:
            try:
                return run_training(job, JournalReporter(job) if parallel.is_main else NoReporter(), parallel)
            except StoppedElsewhere:
                return None

    return _recorded(train, record)


_TRANSPORTS = ("gloo/transport", "NCCL")
"""How an error of the exchange between workers is known: gloo's is a plain RuntimeError with its source file in the text."""


def as_known_error(error: BaseException) -> BaseException:
    """Memory and disk errors that come up in odd places, as errors of ours."""
    if isinstance(error, FtbridgeError):
        return error
    from ftbridge.errors import DiskFull, OutOfMemory

    if isinstance(error, RuntimeError) and any(name in str(error) for name in _TRANSPORTS):
        return WorkerDied(f"the exchange with the other workers broke off ({str(error).splitlines()[0]}).")

    if isinstance(error, OSError) and error.errno == 28:
        return DiskFull(f"no room left on the disk ({error}).", hint="Free some space and resume the run.")
    if _is_out_of_memory(error):
        return OutOfMemory(
            f"memory ran out ({str(error).splitlines()[0] if str(error) else type(error).__name__}).",
            hint="Lower local.max_length or local.max_tokens_per_microbatch, set local.quantization: nf4, or use a "
            "smaller model.",
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


class NoReporter:
    """The `Reporter` of workers beside the main one, which says the same."""

    def message(self, text: str, level: str = "info") -> None:
        """Said by the main worker."""

    def metrics(self, **figures: float | int | str | None) -> None:
        """Reported by the main worker."""

    def checkpoint(self, path: Path, step: int) -> None:
        """Reported by the main worker."""


def _rounded(value: float | int | str | None) -> float | int | str | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise DataError("usage: python -m ftbridge.providers.local.process.worker RUN_FOLDER")
    several = "TORCHELASTIC_RUN_ID" in os.environ
    end_process((one_of_several if several else main)(Path(sys.argv[1])))
