"""The files through which a local job is asked and answers. Light: shared by the provider and the worker.

RUN/local/request.json     what to train                     written once by submit
RUN/local/submission.json  token and data paths              written once by submit
RUN/local/encoded/         the splits as tokens              written once by preflight, or by a worker that lacks them
RUN/local/control          "pause" or "cancel"               written by the provider, read before each step;
                           "requeue"                         by a cluster's node: its scheduler takes the node back
RUN/local/worker.lock      held by the worker while it lives: the kernel lets go when it dies
RUN/local/rank-N.error.json  why worker N failed             written by one of several workers (launch.py)
RUN/worker.jsonl           the worker's journal              written by the worker alone
RUN/worker.log             its stdout and stderr
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ftbridge.errors import FtbridgeError
from ftbridge.files import write_text
from ftbridge.providers.base import Submission
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runs.journal import Journal


class JobInterrupted(Exception):
    """The user asked to pause or to cancel, and there was no step to wait for."""

    def __init__(self, request: Literal["pause", "cancel"]) -> None:
        super().__init__(request)
        self.request = request


class Halted(Exception):
    """The job pauses by itself: `error` says why. Resuming goes on where it stopped."""

    def __init__(self, error: FtbridgeError) -> None:
        super().__init__(error.message)
        self.error = error


def encoded_folder(run: Path) -> Path:
    """Where the tokens of a run's splits are kept (`ftbridge.providers.local.data.encoded`)."""
    return run / "local" / "encoded"


class Job:
    """One local job by its run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own_folder = folder / "local"
        self.lock_path = self.own_folder / "worker.lock"
        self.encoded = encoded_folder(folder)
        self.log_path = folder / "worker.log"
        self.journal_path = folder / "worker.jsonl"

    @cached_property
    def journal(self) -> Journal:
        """The worker's journal."""
        return Journal(self.journal_path)

    def error_path(self, rank: int) -> Path:
        """Where one of several workers leaves its error."""
        return self.own_folder / f"rank-{rank}.error.json"

    def error_paths(self) -> list[Path]:
        """The errors that workers have left."""
        return list(self.own_folder.glob("rank-*.error.json"))

    @property
    def submitted(self) -> bool:
        """Whether `write` was finished."""
        return (self.own_folder / "submission.json").exists()

    def write(self, submission: Submission) -> None:
        """Write what the worker needs; the submission last, for it says that the rest is there."""
        request = LocalRequest.of(submission.request)
        write_text(self.own_folder / "request.json", request.model_dump_json(indent=2))
        write_text(self.own_folder / "submission.json", submission.model_dump_json(indent=2))

    def request(self) -> LocalRequest:
        """What to train."""
        return LocalRequest.model_validate_json((self.own_folder / "request.json").read_text())

    def submission(self) -> Submission:
        """Token and data paths, wherever the run folder is now: it may have been moved since it was submitted."""
        submission = Submission.model_validate_json((self.own_folder / "submission.json").read_text())
        paths = {"folder": self.folder, "train": self.folder / submission.train.relative_to(submission.folder)}
        for name in ("validation", "replay"):
            if (path := getattr(submission, name)) is not None:
                paths[name] = self.folder / path.relative_to(submission.folder)
        return submission.model_copy(update=paths)

    def ask(self, request: Literal["pause", "cancel", "requeue"]) -> None:
        """Ask the worker to stop at its next step."""
        write_text(self.own_folder / "control", request)

    def clear_control(self) -> None:
        """Forget an earlier request."""
        (self.own_folder / "control").unlink(missing_ok=True)

    def requested(self) -> Literal["pause", "cancel"] | None:
        """What the worker was asked, if anything; "requeue" is a pause for the worker."""
        text = self._control()
        return None if text is None else "cancel" if text == "cancel" else "pause"

    def is_requeued(self) -> bool:
        """Whether the worker was asked to stop by a scheduler that takes the node back, and by nobody since."""
        return self._control() == "requeue"

    def _control(self) -> str | None:
        try:
            return (self.own_folder / "control").read_text()
        except FileNotFoundError:
            return None

    def alive(self) -> bool:
        """Whether a worker holds the lock: for longer than another process needs to ask the same."""
        lock = FileLock(self.lock_path)
        try:
            lock.acquire(timeout=0.1, poll_interval=0.01)
        except Timeout:
            return True
        lock.release()
        return False

    def log_tail(self, count: int = 20, start: int = 0) -> list[str]:
        """The last lines of the worker's log, `count` at most, of what was written from byte `start` on."""
        if not self.log_path.exists():
            return []
        with self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start, size - 200 * count))
            return log.read().decode(errors="replace").strip().splitlines()[-count:]

    def stage(self, name: str) -> None:
        """Tell what the worker is doing before steps begin."""
        self.journal.append("stage", name=name)
