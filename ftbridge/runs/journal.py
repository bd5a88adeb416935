"""An append-only journal: one JSON event a line, flushed before the act it announces, repaired when its tail is torn.

    {"seq":1,"time":1795467600.1,"type":"created","data":{…}}⏎
    {"seq":2,"time":1795467601.9,"type":"prepared","data":{…}}⏎
    {"seq":3,"time":17954676              ◀── a torn tail: readers pass over it, the next append cuts it off.

Any process may append; one at a time holds the lock beside the file, for as long as one line takes. Readers need none.
A line whose `append` returned is never lost and never changed (with `sync=False`: unless the whole machine goes down).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from ftbridge.errors import JournalCorrupt, RunBusy
from ftbridge.files import disk_full_is_an_error, sync_folder
from ftbridge.spec.problems import first_problem

_TAIL_BYTES = 1 << 16


class Event(BaseModel):
    """One thing that happened. `seq` counts from 1 without gaps; `time` is in Unix seconds."""

    model_config = ConfigDict(frozen=True)
    seq: int
    time: float
    type: str
    data: dict[str, Any] = {}


class Journal:
    """A journal file. Cheap to make; several objects, threads and processes may share one file.

    `lock_seconds` is how long an append waits for another before it raises `RunBusy`.
    """

    def __init__(self, path: Path, *, lock_seconds: float = 60.0) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._lock_seconds = lock_seconds
        self._reading = threading.Lock()
        self._events: list[Event] = []
        self._offset = 0  # where the first unread line begins
        self._last = b""  # the line before it

    def append(self, type: str, /, *, sync: bool = True, **data: Any) -> Event:
        """Write one event and return it as readers will see it. Its cost does not grow with the file.

        `sync=False` leaves the flush to disk to the system, for frequent small news. Data is anything pydantic turns
        into JSON; NaN and infinities become null. Raises `DiskFull`, with nothing of the line left behind,
        `JournalCorrupt` when the last whole line is damaged, and `RunBusy`.
        """
        with disk_full_is_an_error(self.path), self.hold():
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                end, seq = self._whole(descriptor)
                line = _line({"seq": seq + 1, "time": round(time.time(), 3), "type": type, "data": data})
                _write(descriptor, line, end, sync)
            finally:
                os.close(descriptor)
            if seq == 0:
                sync_folder(self.path.parent)
        return Event.model_validate(json.loads(line))

    def read(self) -> list[Event]:
        """Every whole event so far. Raises `JournalCorrupt` for damage other than a torn tail."""
        self.refresh()
        return list(self._events)

    def refresh(self) -> list[Event]:
        """The events appended, here or elsewhere, since this object last looked; only what is new is read."""
        with self._reading:
            return list(self._advance())

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other process and thread from appending. Raises `RunBusy` after `lock_seconds`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=self._lock_seconds, poll_interval=0.005)
        except Timeout:
            raise RunBusy(
                f"{self.path}: another process has held the journal's lock for {self._lock_seconds:g} s.",
                hint="A process that was suspended (Ctrl-Z) during a write causes this: resume it, or end it.",
            ) from None
        try:
            yield
        finally:
            self._lock.release()

    def _advance(self) -> Iterator[Event]:
        # The last line is read again: an append that fails while flushing takes its line back, and a reader may have
        # seen it. Earlier lines were acknowledged and stand for ever.
        start = self._offset - len(self._last)
        rest = self._bytes_from(start)
        if rest.startswith(self._last):
            rest = rest[len(self._last) :]
        else:
            self._events.pop()
            self._offset, self._last = start, b""
        *lines, torn = rest.split(b"\n")
        for index, line in enumerate(lines):
            event = self._parse(line, len(self._events) + 1, at_end=not torn and index == len(lines) - 1)
            if event is None:
                return
            self._events.append(event)
            self._last = line + b"\n"
            self._offset += len(self._last)
            yield event

    def _bytes_from(self, start: int) -> bytes:
        """The file's bytes from `start`, in one read, so that a repair meanwhile cannot mix two lines."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            if self._events:
                raise JournalCorrupt(f"{self.path} is gone: it was removed or renamed while it was read.") from None
            return b""
        try:
            size = os.fstat(descriptor).st_size
            if size < start:
                raise JournalCorrupt(f"{self.path} is shorter than it was: it was cut or replaced.", hint=_RESTORE)
            return os.pread(descriptor, size - start, start)
        finally:
            os.close(descriptor)

    def _whole(self, descriptor: int) -> tuple[int, int]:
        """Where the whole lines end, and the seq of the last one (0 and 0 for none). What follows is torn."""
        size = end = os.fstat(descriptor).st_size
        block = _TAIL_BYTES
        while True:
            start = max(0, end - block)
            lines = os.pread(descriptor, end - start, start).split(b"\n")
            if len(lines) < 3 and start > 0:  # a whole line needs a newline on either side
                block *= 2
                continue
            if len(lines) == 1:
                return 0, 0
            after = end - len(lines[-1])
            event = self._parse(lines[-2], None, at_end=after == size)
            if event is not None:
                return after, event.seq
            end = after - len(lines[-2]) - 1

    def _parse(self, line: bytes, number: int | None, *, at_end: bool) -> Event | None:
        """One line as an event; None for one at the very end that is not JSON. `number` is its place, if known."""
        try:
            event = Event.model_validate(json.loads(line))
        except ValidationError as error:
            raise self._damaged(line, number, first_problem(error)) from None
        except (ValueError, RecursionError):
            if at_end:
                return None
            raise self._damaged(line, number, "it is not JSON") from None
        if number is not None and event.seq != number:
            raise JournalCorrupt(
                f"{self.path}:{number} has seq {event.seq}: lines are missing or come twice.", hint=_RESTORE
            )
        return event

    def _damaged(self, line: bytes, number: int | None, why: str) -> JournalCorrupt:
        number = number or self.path.read_bytes().split(b"\n").index(line) + 1
        return JournalCorrupt(f"{self.path}:{number} is damaged: {why}.", hint=_RESTORE)


_RESTORE = (
    "Restore the file from a backup. The lines before the damage are intact, but a run that is cut back to them "
    "forgets what came after, even a paid job."
)


def _line(document: dict[str, Any]) -> bytes:
    """Compact JSON and a newline. A lone surrogate, as in odd file names, has no UTF-8 and becomes its JSON escape."""
    plain = to_jsonable_python(document, inf_nan_mode="null")
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _write(descriptor: int, line: bytes, end: int, sync: bool) -> None:
    """Put `line` at `end`, in place of a torn tail, whole or not at all."""
    if os.fstat(descriptor).st_size > end:
        os.ftruncate(descriptor, end)
    try:
        written = os.pwrite(descriptor, line, end)
        while written < len(line):  # a disk that is nearly full takes a part; the next write tells why
            written += os.pwrite(descriptor, line[written:], end + written)
        if sync:
            os.fsync(descriptor)
    except OSError:
        with suppress(OSError):  # what cannot be cut now is a torn tail
            os.ftruncate(descriptor, end)
        raise
