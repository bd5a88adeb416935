"""What the server holds, in one SQLite file: objects as they are shown to clients, each with what only the server knows.

    kind         parent          id              document (shown)              own (not shown)
    file         ''              file-…          FileObject                    {"origin": …}
    job          ''              ftjob-…         FineTuningJob                 {"run": …, "script": …}
    event        ftjob-…         ftevent-…       FineTuningJobEvent            {}
    checkpoint   ftjob-…         ftckpt-…        FineTuningJobCheckpoint       {}
    model        ''              ft:…            Model                         {"adapter": …}
    upload · part · batch · permission           likewise

Write-ahead log, flushed at every commit: what a client was told is there after a power cut. Order of making is `seq`, which
cursors follow, so that a page never shifts when something new is made.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbridge import files

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, parent TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, own TEXT NOT NULL,
    UNIQUE (kind, id)
);
CREATE INDEX IF NOT EXISTS by_parent ON objects (kind, parent, seq);
CREATE INDEX IF NOT EXISTS by_expiry ON objects (kind, json_extract(document, '$.expires_at'))
    WHERE json_extract(document, '$.expires_at') IS NOT NULL;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class StoredObject:
    """One object. `document` is what clients see, `own` what they do not."""

    kind: str
    id: str
    document: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    parent: str = ""


class Store:
    """All objects. Safe from several threads; every change is one transaction."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open or make the file at `path`. Without `durable` a power cut may lose it: for what ends with the process.

        Raises `UsageError` for a folder that cannot be made or written to.
        """
        files.require_writable(path.parent)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Write what is in the log into the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """All of the changes inside, or none of them."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def count(self, name: str) -> int:
        """The next number of a counter, from 1; never given twice, also after a restart."""
        with self.change():
            self._db.execute("INSERT INTO counters VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1", (name,))
            return int(self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()[0])

    def add(self, stored: StoredObject) -> bool:
        """Keep a new object. False, and nothing changed, when its id is there already."""
        with self.change():
            done = self._db.execute(
                "INSERT INTO objects (kind, parent, id, document, own) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (stored.kind, stored.parent, stored.id, _text(stored.document), _text(stored.extra)),
            )
            return done.rowcount == 1

    def get(self, kind: str, name: str) -> StoredObject | None:
        """One object, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT kind, id, document, own, parent FROM objects WHERE kind = ? AND id = ?", (kind, name)
            ).fetchone()
        return _kept(row) if row else None

    def update(self, kind: str, name: str, change: Callable[[StoredObject], StoredObject | None]) -> StoredObject:
        """Replace an object by what `change` makes of it (None: leave it); returns what stands. Raises `KeyError`."""
        with self.change():
            before = self.get(kind, name)
            if before is None:
                raise KeyError(name)
            after = change(before)
            if after is None:
                return before
            self._db.execute(
                "UPDATE objects SET document = ?, own = ? WHERE kind = ? AND id = ?",
                (_text(after.document), _text(after.extra), kind, name),
            )
            return after

    def remove(self, kind: str, name: str) -> bool:
        """Forget an object; whether it was there."""
        with self.change():
            done = self._db.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, name))
            return done.rowcount == 1

    def page(
        self,
        kind: str,
        *,
        parent: str = "",
        after: str | None = None,
        limit: int,
        newest_first: bool = True,
        where: Mapping[str, str | None] | None = None,
        project: str | None = None,
    ) -> list[StoredObject] | None:
        """At most `limit` objects after the one called `after`; None when there is no such object.

        `where` maps JSON paths of the document ("$.purpose") to the text they must hold (None: null or absent). `project`
        leaves out objects of other projects.
        """
        clauses, values = ["kind = ?", "parent = ?"], [kind, parent]
        with self._lock:
            if after is not None:
                row = self._db.execute(
                    "SELECT seq FROM objects WHERE kind = ? AND parent = ? AND id = ?", (kind, parent, after)
                ).fetchone()
                if row is None:
                    return None
                clauses.append("seq < ?" if newest_first else "seq > ?")
                values.append(row[0])
            for path, wanted in (where or {}).items():
                clauses.append("json_extract(document, ?) IS ?")
                values += [path, wanted]  # type: ignore[list-item]
            if project is not None:
                clauses.append("IFNULL(json_extract(own, '$.project'), ?) = ?")
                values += [project, project]
            order = "DESC" if newest_first else "ASC"
            rows = self._db.execute(
                f"SELECT kind, id, document, own, parent FROM objects WHERE {' AND '.join(clauses)} "
                f"ORDER BY seq {order} LIMIT ?",
                [*values, limit],
            ).fetchall()
        return [_kept(row) for row in rows]

    def forget_all(self) -> None:
        """Forget every object. Counters go on, so that no id is given twice."""
        with self.change():
            self._db.execute("DELETE FROM objects")

    def ids(self, kind: str) -> set[str]:
        """The ids of a kind, whatever their parents."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT id FROM objects WHERE kind = ?", (kind,))}

    def statuses(self, kind: str) -> dict[str, int]:
        """How many objects of a kind there are, by their status."""
        with self._lock:
            rows = self._db.execute(
                "SELECT json_extract(document, '$.status'), COUNT(*) FROM objects WHERE kind = ? GROUP BY 1", (kind,)
            ).fetchall()
        return {str(status): int(count) for status, count in rows}

    def expired(self, kind: str, now: float) -> list[str]:
        """The ids of objects whose `expires_at` (Unix seconds) is past."""
        path = "json_extract(document, '$.expires_at')"
        with self._lock:
            rows = self._db.execute(
                f"SELECT id FROM objects WHERE kind = ? AND {path} IS NOT NULL AND {path} <= ?", (kind, now)
            ).fetchall()
        return [row[0] for row in rows]

    def every(self, kind: str, *, parent: str = "") -> list[StoredObject]:
        """All objects of a kind, oldest first."""
        return self.page(kind, parent=parent, limit=-1, newest_first=False) or []


def _kept(row: tuple[str, str, str, str, str]) -> StoredObject:
    kind, name, document, extra, parent = row
    return StoredObject(kind, name, json.loads(document), json.loads(extra), parent)


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
