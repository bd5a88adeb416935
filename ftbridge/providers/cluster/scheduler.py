"""What a scheduler can do for a provider: check a request, start a job by name once, show it, stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ftbridge.providers.base import Frozen

Ending = Literal["completed", "failed", "cancelled", "time_limit", "out_of_memory", "node_failed", "lost"]
"""How a job ended for its scheduler. `lost`: the scheduler has no record of it."""


class View(Frozen):
    """A job as its scheduler shows it.

    `word` is the scheduler's own name of the state, `detail` its reason or exit code, `node` the machines that it ran on.
    """

    state: Literal["queued", "running", "ended"]
    ending: Ending | None = None
    word: str = ""
    detail: str = ""
    node: str = ""

    def summary(self) -> str:
        """The scheduler's words, for people: `TIMEOUT (exit code 0:15) on node7`."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.word or self.state}{detail}{f' on {self.node}' if self.node else ''}"


@dataclass(frozen=True)
class Order:
    """One job to start: its `name` is unique for ever, `folder` is the run's, `job_name` is for lists that people read.

    `lock` is a file descriptor that a child process which submits must inherit: while it is open, nobody submits this again.
    """

    name: str
    folder: Path
    job_name: str
    lock: int | None = None


class Scheduler(Protocol):
    """A cluster's scheduler. Every method but `check` raises `ServiceUnavailable` when it does not answer."""

    title: str
    """Its name in sentences: "Slurm"."""

    def check(self, order: Order, progress: Callable[[str], None]) -> None:
        """Raise when such a job could not be started: no client, no such partition, no such address. Starts nothing."""
        ...

    def find(self, order: Order) -> str | None:
        """The id of the job with this order's name, if the scheduler has a record of one."""
        ...

    def submit(self, order: Order) -> str:
        """Start the job and return its id. Raises `ProviderRefused` when the scheduler refuses: then there is no job."""
        ...

    def look(self, order: Order, job: str) -> View:
        """The job now."""
        ...

    def log_tail(self, job: str) -> list[str]:
        """The last lines of the job's output that only the scheduler has, not the run's worker.log."""
        ...

    def attached(self, module: str, name: str) -> list[str] | None:
        """The command that runs a Python module on a node of the cluster, with this machine's standard input and output; `name`
        is for lists that people read. None where the scheduler has no such command, or the spec does not want it.
        """
        ...

    def stop(self, job: str) -> None:
        """End the job: it gets a signal first, and is killed some seconds later. A job that has ended is passed over."""
        ...
