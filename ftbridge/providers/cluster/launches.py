"""The journal of a run's submissions to a scheduler: `RUN/cluster/launches.jsonl`, written on the submitting side alone.

    intended   name, number, log_start, host, time, versions   before the scheduler is asked
    submitted  job                                             the scheduler's id
    refused · forgotten                                        there is no job of this name, or it counts no more
    requested  request                                         somebody asked for a pause or an end
    stopped                                                    the scheduler was asked to end the job, and answered
    viewed     view                                            the scheduler showed something new
    message    text, level                                     a sentence for people

A run has one launch for each time that it was submitted: after a pause the next has the next number. The name, TOKEN.NUMBER,
travels with the job, so a crash between `intended` and `submitted` is settled by looking for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import Field

from ftbridge.providers.base import Frozen
from ftbridge.providers.cluster.scheduler import View
from ftbridge.runs.journal import Event, Journal

PACKAGES = ("ftbridge", "torch", "transformers", "peft", "bitsandbytes")
"""Packages whose versions the node compares with those of the machine that submitted."""


class Launch(Frozen):
    """One submission. `log_start` is where its part of worker.log begins, in bytes; `host` and `time` are the submitter's."""

    number: int
    name: str
    log_start: int = 0
    host: str = ""
    time: float = 0.0
    versions: dict[str, str] = Field(default={})
    job: str | None = None
    requested: Literal["pause", "cancel"] | None = None
    stopped: bool = False
    void: bool = False
    view: View | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the scheduler may have a job of this name whose id is not known."""
        return self.job is None and not self.void


class Launches:
    """The launches of the run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cluster"
        self.journal = Journal(self.folder / "launches.jsonl")

    def last(self) -> Launch | None:
        """The newest launch; None before the first."""
        launches = self.all()
        return launches[-1] if launches else None

    def all(self) -> list[Launch]:
        """Every launch, oldest first."""
        launches: list[Launch] = []
        for event in self.journal.read():
            if event.type == "intended":
                launches.append(Launch.model_validate(event.data))
            elif launches and (change := _change(event)):
                launches[-1] = launches[-1].model_copy(update=change)
        return launches

    def intend(self, token: str, log_path: Path) -> Launch:
        """Journal that another submission is about to happen."""
        number = len(self.all()) + 1
        launch = Launch(
            number=number,
            name=f"{token}.{number}",
            log_start=log_path.stat().st_size if log_path.exists() else 0,
            host=socket.gethostname(),
            time=time.time(),
            versions=versions(),
        )
        fields = {"number", "name", "log_start", "host", "time", "versions"}
        self.journal.append("intended", **launch.model_dump(mode="json", include=fields))
        return launch

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Let one process at a time submit or look for a submission; yields the lock's file descriptor.

        A child that inherits it holds the lock too: an `sbatch` that outlives its killed caller is waited for. Where the file
        system has no locks, nothing is held.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "submit.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
            yield descriptor
        finally:
            os.close(descriptor)


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The installed versions of these packages, as their metadata has them; those that are not installed are left out."""
    installed = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed


def _change(event: Event) -> dict[str, object]:
    """What an event changes of the launch it belongs to."""
    if event.type == "submitted":
        return {"job": str(event.data["job"])}
    if event.type in ("refused", "forgotten"):
        return {"void": True}
    if event.type == "requested":
        return {"requested": event.data["request"]}
    if event.type == "stopped":
        return {"stopped": True}
    if event.type == "viewed":
        return {"view": View.model_validate(event.data["view"])}
    return {}
