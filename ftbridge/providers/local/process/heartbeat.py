"""Whether the other workers still run: each counts up in the store that torchrun keeps, and looks at the others.

A worker that was killed ends the job at once, by torchrun. One that was stopped, that hangs in the system, or whose machine is
gone says nothing more: the others notice that its count stands still, say so in the log, and end; torchrun ends the rest.
Clocks of machines are never compared: each worker measures, by its own, how long a count has not changed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 25.0
"""A worker that has not counted for so long is taken for dead; with torchrun's 30 s between TERM and KILL, a minute in all."""

START_SECONDS = 300.0
"""The same for a worker that has not counted yet: it loads libraries."""


@contextmanager
def watched(rank: int, world: int, end: Callable[[str], None]) -> Iterator[None]:
    """Count and look, in a thread, for as long as the block runs: the main worker at all others, these at the main one.

    `end(reason)` is called from that thread, and must not return.
    """
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=60)
    )
    beats = dist.PrefixStore("ftbridge/heartbeat", store)
    others = range(1, world) if rank == 0 else [0]
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(beats, rank, others, done, end), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _beat(
    beats: dist.Store, rank: int, others: range | list[int], done: threading.Event, end: Callable[[str], None]
) -> None:
    counts, changed = dict.fromkeys(others, 0), dict.fromkeys(others, time.monotonic())
    look = time.monotonic()
    while not done.wait(BEAT_SECONDS):
        if (
            time.monotonic() - look > SILENCE_SECONDS / 2
        ):  # this process itself stood still: it knows nothing of the others
            changed = dict.fromkeys(others, time.monotonic())
        look = time.monotonic()
        try:
            beats.add(str(rank), 1)
            for other in others:
                if (count := beats.add(str(other), 0)) != counts[other]:
                    counts[other], changed[other] = count, time.monotonic()
                limit = SILENCE_SECONDS if counts[other] else START_SECONDS
                if time.monotonic() - changed[other] > limit and not done.is_set():
                    end(f"worker {other} has not reported for {limit:g} s")
        except (RuntimeError, OSError) as error:
            if not done.is_set():
                end(f"torchrun's store does not answer: {str(error).splitlines()[0]}")
            return


def leave(reason: str) -> None:
    """End this process at once: its main thread may wait for a worker that is gone."""
    print(f"ftbridge: {reason}; this worker ends, and the job with it.", file=sys.stderr, flush=True)
    os._exit(1)
