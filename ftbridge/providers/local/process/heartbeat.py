"""Whether the other workers still run: each writes how it is into the store that torchrun keeps, and looks at the others.

    report    beats (it lives), exchanges entered, whether it waits in one, signs of life    `activity`

A worker that was killed ends the job at once, by torchrun. Three more ways to go are seen here, within half a minute:

    its beats stop             it was stopped, hangs in the system, or its machine is gone
    it keeps this one waiting  in an exchange that it has not entered, and shows no sign of life: it is stuck
    nobody shows any sign      one is stuck inside an exchange, of ours or of a library: only the main worker sees them all

The one that sees it says so in the log and ends; torchrun ends the rest. Clocks of machines are never compared: each worker
measures, by its own, how long a figure has not changed. A worker that computes without end looks like one that works, and one
that hangs in a save like one whose storage is slow: only the limit of an exchange ends these (`parallel.TIMEOUT`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

from ftbridge.providers.local.process.activity import ACTIVITY, Signs

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 25.0
"""A worker that has not reported for so long is taken for dead; `launch` kills what is left soon after."""
IDLE_SECONDS = 25.0
"""A worker that keeps others waiting and does nothing for so long is taken for stuck."""
DEADLOCK_SECONDS = 30.0
"""Workers of which none has done anything for so long wait for each other; later than the rule that knows which is stuck."""

START_SECONDS = 300.0
"""The same for a worker that has not reported yet: it loads libraries."""


class Report(NamedTuple):
    """What a worker says of itself."""

    beats: int = 0
    entered: int = 0
    waits_inside: bool = False
    signs: int = 0

    def encode(self) -> str:
        """For the store."""
        return " ".join(str(int(value)) for value in self)

    @classmethod
    def decode(cls, text: bytes) -> Report:
        """From the store."""
        beats, entered, waits_inside, signs = (int(word) for word in text.split())
        return cls(beats, entered, bool(waits_inside), signs)


@dataclass
class Watch:
    """What this worker has seen of one other, and since when by its own clock (seconds, any start)."""

    rank: int
    now: float
    last: Report = field(default_factory=Report)
    beaten: float = field(init=False)
    acted: float = field(init=False)
    """When its beats, and its exchanges or signs, changed last."""

    def __post_init__(self) -> None:
        self.beaten = self.acted = self.now

    def start_over(self, now: float) -> None:
        """Count from now: this process itself stood still."""
        self.beaten = self.acted = now

    def see(self, report: Report, mine: Report, now: float) -> str | None:
        """Why this worker must be given up, if it must; `mine` is the report of the one that looks."""
        if report.beats != self.last.beats:
            self.beaten = now
        if (report.entered, report.signs) != (self.last.entered, self.last.signs):
            self.acted = now
        self.last = report
        limit = SILENCE_SECONDS if report.beats else START_SECONDS
        if now - self.beaten > limit:
            return f"worker {self.rank} has not reported for {limit:g} s"
        behind = mine.waits_inside and report.beats > 0 and report.entered < mine.entered
        if behind and now - self.acted > IDLE_SECONDS:
            return f"worker {self.rank} has done nothing for {IDLE_SECONDS:g} s while others wait for it"
        return None


@contextmanager
def watched(rank: int, world: int, end: Callable[[str], None]) -> Iterator[None]:
    """Report and look, in a thread, for as long as the block runs: the main worker at all others, these at the main one.

    `end(reason)` is called from that thread, and must not return.
    """
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=60)
    )
    reports = dist.PrefixStore("ftbridge/heartbeat", store)
    others = range(1, world) if rank == 0 else [0]
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(reports, rank, others, done, end), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _beat(
    store: dist.Store, rank: int, others: range | list[int], done: threading.Event, end: Callable[[str], None]
) -> None:
    watches = [Watch(other, time.monotonic()) for other in others]
    signs, mine = Signs(), Report()
    look = acted = time.monotonic()
    pause = 0.0  # the first report at once: of a worker without one nobody knows whether it is stuck or loads libraries
    while not done.wait(pause):
        pause = BEAT_SECONDS
        now = time.monotonic()
        if now - look > SILENCE_SECONDS / 2:  # this process itself stood still: it knows nothing of the others
            acted = now
            for watch in watches:
                watch.start_over(now)
        look = now
        report = Report(mine.beats + 1, ACTIVITY.entered, ACTIVITY.waits_inside, signs.look())
        if (report.entered, report.signs) != (mine.entered, mine.signs):
            acted = now
        mine = report
        try:
            store.set(str(rank), mine.encode())
            for watch in watches:
                name = str(watch.rank)
                seen = Report.decode(store.get(name)) if store.check([name]) else Report()
                reason = watch.see(seen, mine, now)
                if reason is not None and not done.is_set():
                    end(reason)
            newest = max([acted, *(watch.acted for watch in watches)])
            if rank == 0 and now - newest > DEADLOCK_SECONDS and not done.is_set():
                end(f"no worker has done anything for {DEADLOCK_SECONDS:g} s")
        except (RuntimeError, OSError) as error:
            if not done.is_set():
                end(f"torchrun's store does not answer: {str(error).splitlines()[0]}")
            return


def leave(reason: str) -> None:
    """End this process at once: its main thread may wait for a worker that is gone."""
    print(f"ftbridge: {reason}; this worker ends, and the job with it.", file=sys.stderr, flush=True)
    os._exit(1)
