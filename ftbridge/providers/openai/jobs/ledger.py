"""The provider's own journal in a run's folder: every intent before its request, every answer after it.

service     which address the run spoke to, so that a resumed run speaks to the same
intended    something is about to be made: what, key, attempt        flushed before the request
made        it is there: what, key, id, how (answered, found)
lost        an attempt got no answer, or none of the service's own: it may have made the thing
declined    the service said no: nothing was made by this attempt; sure is whether the answer was the service's own
settled     an attempt without an answer made nothing: the list does not show it, long after
twin        another job of the same request: id, its state, what was done about it
event       something the job said; its seq is the event's id towards the caller
status      the job's state changed
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ftbridge.runs.journal import Event, Journal


class Ledger:
    """RUN/openai/journal.jsonl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "openai"
        self.journal = Journal(self.folder / "journal.jsonl")

    def append(self, type: str, /, **data: Any) -> Event:
        """Write one event, flushed."""
        return self.journal.append(type, **data)

    def of(self, *types: str) -> list[Event]:
        """Events of these types, oldest first."""
        return [event for event in self.journal.read() if event.type in types]

    def last(self, type: str, **where: Any) -> Event | None:
        """The last event of a type whose data holds these values."""
        for event in reversed(self.of(type)):
            if all(event.data.get(name) == value for name, value in where.items()):
                return event
        return None

    def recorded(self, what: str, key: str) -> str | None:
        """The id of a thing that was made, unless it was removed again."""
        records = [
            event for event in self.of("made", "removed") if (event.data["what"], event.data["key"]) == (what, key)
        ]
        return str(records[-1].data["id"]) if records and records[-1].type == "made" else None

    def open_intent(self, what: str, key: str) -> Event | None:
        """The first attempt that was neither answered nor declined: it may have made something."""
        return next(iter(self.open_intents(what, key)), None)

    def open_intents(self, what: str, key: str | None = None) -> list[Event]:
        """Every attempt that was neither answered nor declined, oldest first; of any key if None.

        What was found at last ends all attempts of its key: one of them made it, and the others are looked for as twins.
        """
        ended = {event.data.get("intent") for event in self.of("made", "declined", "settled")}
        completed = {(event.data["what"], event.data["key"]): event.seq for event in self.of("made")}
        return [
            event
            for event in self.of("intended")
            if event.data["what"] == what
            and key in (None, event.data["key"])
            and event.seq not in ended
            and event.seq > completed.get((what, event.data["key"]), 0)
        ]

    def add_events(self, job: str, events: Iterable[dict[str, Any]]) -> int:
        """Append what the job said and is not here yet, by the service's id; returns how many were new.

        The lock is held meanwhile, so that two processes that follow one job write each event once.
        """
        with self.journal.hold():
            seen = {event.data.get("id") for event in self.of("event")}
            new = [item for item in events if item["id"] not in seen]
            for number, item in enumerate(new, 1):  # flushed before the caller can name one as its cursor
                self.journal.append("event", sync=number == len(new), job=job, **item)
        return len(new)
