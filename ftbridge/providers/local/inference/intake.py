"""What comes in beside the generation: lines are read in one thread, prompts are made in another, and neither waits for a pass.

    stdin ─▶ reader ─ asks ─▶ preparer ─ Ready · Refused ─▶ arrivals ─▶ the loop that generates
                 └──────────────────────── Cancel ─────────────┘

A long conversation or a large schema takes its own client's time, not that of all who are being answered.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ftbridge.providers.local.inference.prompting import Prepared
from ftbridge.providers.local.inference.requests import GenerationRequest


@dataclass(frozen=True)
class ReadyRequest:
    """An ask with its prompt."""

    ask: GenerationRequest
    prepared: Prepared


@dataclass(frozen=True)
class RefusedRequest:
    """An ask that cannot be answered."""

    name: str
    error: Exception


@dataclass(frozen=True)
class Cancel:
    """An ask whose client has left."""

    name: str


Arrival = ReadyRequest | RefusedRequest | Cancel


class Intake:
    """Reads and prepares. `arrivals` holds what comes of it; None in it is the end of the input."""

    def __init__(self, prepare: Callable[[GenerationRequest], Prepared]) -> None:
        self.arrivals: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._prepare = prepare
        self._asks: queue.SimpleQueue[GenerationRequest] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._gone: set[str] = set()

    def start(self, lines: Iterable[str]) -> None:
        """Read lines until there are no more."""
        threading.Thread(target=self._read, args=(lines,), daemon=True, name="reader").start()
        threading.Thread(target=self._work, daemon=True, name="preparer").start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            name = ""
            try:
                written = json.loads(line)
                if "cancel" in written:
                    self._cancel(written["cancel"])
                    continue
                name = str(written["ask"].get("id"))
                ask = GenerationRequest.model_validate(written["ask"])
            except Exception as error:
                self.arrivals.put(RefusedRequest(name, error))
                continue
            with self._lock:
                self._pending.add(ask.id)
            self._asks.put(ask)
        self.arrivals.put(None)

    def _cancel(self, name: str) -> None:
        with self._lock:
            if name in self._pending:
                self._gone.add(name)
            else:
                self.arrivals.put(Cancel(name))

    def _work(self) -> None:
        while True:
            ask = self._asks.get()
            arrival: Arrival | None = None
            if ask.id not in self._gone:
                try:
                    arrival = ReadyRequest(ask, self._prepare(ask))
                except Exception as error:
                    arrival = RefusedRequest(ask.id, error)
            with self._lock:
                self._pending.discard(ask.id)
                if arrival is not None and ask.id not in self._gone:
                    self.arrivals.put(arrival)
                self._gone.discard(ask.id)
