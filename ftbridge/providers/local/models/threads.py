"""How many threads torch computes with: what the work is worth, and what others leave of the processors.

Each parallel operation ends with a barrier. Where a thread has to wait for a processor that another process uses, all others
wait with it, some hundred times a pass: on two cores with two busy processes beside, decoding with two threads took five times
as long as with one (`benchmarks/threads.py`). So the load of the other processes is looked at once a second, and torch uses the
processors that they leave, at least one. Waiting threads soon sleep (`child_environment`), so they are little load.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import psutil
import torch

SECONDS = 1.0
"""Time between two looks at the load."""
SOON = 0.2
"""The same after a pause: enough of the system's ticks of 10 ms to tell a busy processor from a quiet one."""
ROUNDING = 0.2
"""Share of a processor in use by others that costs no thread: the system itself is never quite still."""
SMALL_WORK = 5e8
"""Multiplications of a pass below which a second thread makes it less than a fifth faster: on two quiet cores, in bf16, 1 row
of decoding by 135M parameters gained 13 %, 2 gained 16 %, 4 gained 23 % and 8 gained 37 %."""


class Threads:
    """Chooses torch's threads for this process. `most` is how many there may be: torch's own choice, or OMP_NUM_THREADS."""

    def __init__(self, most: int | None = None) -> None:
        self.most = min(most or torch.get_num_threads(), math.ceil(allowed_cores()))
        self._process = psutil.Process()
        self._begin()

    def start(self) -> None:
        """Work begins. What others computed during a long pause says little of now: begin with all threads, and look soon."""
        if time.monotonic() - self._clock >= 2 * SECONDS:
            self._begin()

    def _begin(self) -> None:
        self._free, self._due = float(self.most), SOON
        self._clock, self._busy, self._own = self._look()

    def use(self, work: float = math.inf) -> int:
        """Set the threads for a pass of so many multiplications; returns their number."""
        if self.most > 1:
            wanted = 1 if work < SMALL_WORK else self.left()
            if wanted != torch.get_num_threads():
                torch.set_num_threads(wanted)
        return torch.get_num_threads()

    def left(self) -> int:
        """Processors that others leave, at least one and at most `most`."""
        if time.monotonic() - self._clock >= self._due:
            clock, busy, used = self._look()
            others = max(0.0, (busy - self._busy) - (used - self._own)) / (clock - self._clock)
            self._free = allowed_cores() - others
            self._clock, self._busy, self._own, self._due = clock, busy, used, SECONDS
        return max(1, min(self.most, math.floor(self._free + ROUNDING)))

    def _look(self) -> tuple[float, float, float]:
        """Now; seconds that this process's processors were busy; seconds that they were so for this process."""
        cpu_times = self._process.cpu_times()
        cores = psutil.cpu_times(percpu=True)
        mine = _affinity()
        busy = sum(_busy(times) for number, times in enumerate(cores) if mine is None or number in mine)
        return time.monotonic(), busy, cpu_times.user + cpu_times.system


def allowed_cores() -> float:
    """Processors that this process may use: by affinity, and by the quota of its container."""
    affinity = _affinity()
    cores = float(len(affinity) if affinity else os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no container, no quota ("max"), or another system
        pass
    return cores


def _affinity() -> frozenset[int] | None:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _busy(times: object) -> float:
    """Seconds in use, by psutil's fields; time stolen by other guests of a host is in use too."""
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))
