"""Who watches a run: the terminal, a program, or nobody."""

from __future__ import annotations

from typing import Protocol

from ftbridge.providers.base import JobEvent
from ftbridge.runs.run import Run


class Observer(Protocol):
    """Hears what happens, to show it. Every method is optional to act on; none may raise."""

    def stage(self, run: Run, name: str) -> None:
        """A stage begins."""
        ...

    def note(self, text: str) -> None:
        """One line for people."""
        ...

    def job_event(self, event: JobEvent) -> None:
        """The job said something."""
        ...

    def answered(self, candidate: str, done: int, total: int) -> None:
        """A candidate has answered `done` of `total` items."""
        ...


class NullObserver:
    """A watcher that shows nothing."""

    def stage(self, run: Run, name: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def job_event(self, event: JobEvent) -> None:
        """Nothing."""

    def answered(self, candidate: str, done: int, total: int) -> None:
        """Nothing."""
