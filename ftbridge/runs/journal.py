"""An append-only journal: one JSON event a line, flushed before the act it announces, repaired when its tail is torn.

    {"seq":1,"time":1795467600.1,"type":"created","data":{…}}⏎
    {"seq":2,"time":1795467601.9,"type":"prepared","data":{…}}⏎
    {"seq":3,"time":17954676              ◀── a torn tail: no newline. Readers pass over it, the next append cuts it off.

Any process may append; one at a time holds the lock beside the file, for as long as one line takes. A line whose
`append` returned is never lost and never changed (with `sync=False`: unless the whole machine goes down).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from ftbridge.errors import JournalCorrupt
from ftbridge.files import disk_full_is_an_error, sync_folder


class Event(BaseModel):
    """One thing that happened. `seq` counts from 1 without gaps; `time` is in Unix seconds."""

    model_config = ConfigDict(frozen=True)
    seq: int
    time: float
    type: str
    data: dict[str, Any] = {}


class Journal:
    """A journal file. Cheap to make; several objects and processes may share one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._events: list[Event] = []
        self._offset = 0

    def append(self, type: str, /, *, sync: bool = True, **data: Any) -> Event:
        """Write one event and return it. `sync=False` leaves the flush to disk to the system, for frequent small news.

        Raises `DiskFull`, with nothing of the line left behind.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_is_an_error(self.path), self._lock:
            new = not self.path.exists()
            self.refresh()
            event = Event(seq=len(self._events) + 1, time=round(time.time(), 3), type=type, data=data)
            line = (event.model_dump_json() + "\n").encode()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._write(descriptor, line)
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if new:
                sync_folder(self.path.parent)
            self._events.append(event)
            self._offset += len(line)
        return event

    def read(self) -> list[Event]:
        """Every whole event so far. Raises `JournalCorrupt` for damage other than a torn tail."""
        self.refresh()
        return list(self._events)

    def refresh(self) -> list[Event]:
        """The events appended, here or elsewhere, since this object last looked."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                rest = stream.read()
        except FileNotFoundError:
            return []
        new: list[Event] = []
        end = self._offset + len(rest)
        for line in rest.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            event = self._parse(line, last=self._offset + len(line) == end)
            if event is None:
                break
            new.append(event)
            self._events.append(event)
            self._offset += len(line)
        return new

    def _write(self, descriptor: int, line: bytes) -> None:
        """Cut off a torn tail, then write the line whole or not at all."""
        if os.fstat(descriptor).st_size > self._offset:
            os.ftruncate(descriptor, self._offset)
        os.lseek(descriptor, self._offset, os.SEEK_SET)
        try:
            written = os.write(descriptor, line)
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            try:
                os.ftruncate(descriptor, self._offset)
            except OSError:
                pass  # the device cannot be cut (or is gone); readers pass over a torn tail anyway
            raise

    def _parse(self, line: bytes, *, last: bool) -> Event | None:
        """One line as an event; None for a last line that is not whole."""
        number = len(self._events) + 1
        try:
            event = Event.model_validate(json.loads(line))
        except (ValueError, ValidationError) as error:
            if last:
                return None
            raise JournalCorrupt(
                f"{self.path}:{number} is damaged: {str(error).splitlines()[0]}",
                hint="The lines before it are whole. Restore the file, or cut it there and resume the run.",
            ) from None
        if event.seq != number:
            raise JournalCorrupt(f"{self.path}:{number} has seq {event.seq}: lines are missing or come twice.")
        return event
