"""What one of several workers is doing, as the others need to know it: how far it has come, and whether it does anything.

    exchanges    how many exchanges with the other workers it has entered, and whether it waits in one now
    signs        counts up for as long as the process computes, reads or writes, or waits for something outside on purpose

All workers enter the same exchanges in the same order. One that has entered fewer than another keeps it waiting, and one that
keeps others waiting while it shows no sign of life is stuck: `heartbeat` ends the job then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_SHARE = 0.02
"""Share of one processor above which a process is at work; threads that wait for others stay below a thousandth."""


class Activity:
    """The exchanges and the deliberate waits of this process; any thread may write or read it."""

    def __init__(self) -> None:
        self.entered = 0
        self.waits_inside = False
        self._outside = 0
        self._of_thread = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """One exchange with the other workers. Within a wait outside it is none: this thread waits for a worker now."""
        self.entered += 1
        self.waits_inside = True
        depth = getattr(self._of_thread, "outside", 0)
        self._add(-depth)
        try:
            yield
        finally:
            self._add(depth)
            self.waits_inside = False

    @contextmanager
    def outside(self) -> Iterator[None]:
        """A wait for something other than a worker: a judge, a download, a lock, large files on storage whose waits the kernel
        does not show as those of a disk (FUSE). It may take any time.
        """
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, waits: int) -> None:
        """Count waits outside of this thread."""
        self._of_thread.outside = getattr(self._of_thread, "outside", 0) + waits
        with self._lock:
            self._outside += waits

    @property
    def waits_outside(self) -> bool:
        """Whether any thread waits for something outside."""
        return self._outside > 0


ACTIVITY = Activity()
"""This process's."""


class Signs:
    """Counts up with each look at which the process was doing something since the last look.

    Doing something is using a processor, waiting for a disk (a thread in the kernel's uninterruptible sleep, as in fsync), or
    waiting outside on purpose. Where the kernel does not show its threads (there is no /proc) every look counts.
    """

    def __init__(self, activity: Activity = ACTIVITY, tasks: Path = Path("/proc/self/task")) -> None:
        self.count = 0
        self._activity, self._tasks = activity, tasks
        self._looked, self._used = time.monotonic(), self._processor_seconds()

    def look(self) -> int:
        """The count, one higher if anything was done since the last look. Call it from one thread alone: its own time is
        left out.
        """
        now, used = time.monotonic(), self._processor_seconds()
        busy = used - self._used > BUSY_SHARE * (now - self._looked)
        self._looked, self._used = now, used
        if busy or self._activity.waits_outside or self._waits_for_disk():
            self.count += 1
        return self.count

    def _processor_seconds(self) -> float:
        return time.process_time() - time.thread_time()

    def _waits_for_disk(self) -> bool:
        if not self._tasks.exists():
            return True
        return any(_state(path) == "D" for path in self._tasks.glob("*/stat"))


def _state(stat: Path) -> str:
    """A thread's state as proc(5) writes it, the first letter after its name in parentheses; empty if it has ended."""
    try:
        return stat.read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
