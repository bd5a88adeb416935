"""The jobs of an account as a table for the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rich.table import Table

_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


class Job(Protocol):
    """What a row shows."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def created(self) -> float | None: ...
    @property
    def run(self) -> str | None: ...


def jobs_table(jobs: Sequence[Job]) -> Table:
    """One row a job, newest first, with the run that it belongs to."""
    table = Table(box=None, pad_edge=False)
    for title in ("job", "state", "model", "created", "run"):
        table.add_column(title, overflow="fold", no_wrap=title == "job")  # an id is there to be copied
    for job in jobs:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created)) if job.created else "not known"
        colour = _COLOURS.get(job.state, "cyan")
        run = job.run or "not one of this home"
        table.add_row(job.id, f"[{colour}]{job.state}[/]", job.model or "", created, run)
    return table
