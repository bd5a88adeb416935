"""A migration's folder: its journal, its lock, and the raw objects of the service as JSON.

    .ftbridge/migrations/NAME/        mode 0700: prompts, completions and metadata may be personal data
      journal.jsonl                   every intention before its request, every result after it; authoritative
      listings/NAME/GENERATION/00001.json      raw pages, each whole or absent
      files/                          downloaded files, with manifest.json

One process at a time works in a folder; reading needs no lock. An intention without a result belongs to a process that died.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftbridge import files
from ftbridge.errors import RunBusy, UsageError
from ftbridge.redaction import without_secrets
from ftbridge.runs.journal import Event, Journal

DEFAULT = "openai"
"""The migration that commands work on unless another is named."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Migration:
    """One migration's folder. Cheap to make; state is derived from its journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")

    @classmethod
    def open(cls, name: str = DEFAULT, *, create: bool = False, home: Path | None = None) -> Migration:
        """The migration called `name`. Raises `UsageError` for a bad name, and for an unknown one unless `create`."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a valid migration name: use letters, digits, '.', '_' and '-', 64 at most."
            )
        path = (home or files.home()) / "migrations" / name
        migration = cls(path)
        if migration.journal.path.exists():
            return migration
        if not create:
            others = ", ".join(other.name for other in migrations(home))
            hint = f"Migrations here: {others}." if others else "Start with: ftbridge migrate inventory"
            raise UsageError(f"there is no migration {name!r} in {path.parent}.", hint=hint)
        files.make_folder(path)
        with files.disk_full_is_an_error(path):
            path.chmod(0o700)
        migration.append("created", name=name)
        return migration

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def service(self) -> str:
        """The address of the service that this migration leaves; empty before the first contact."""
        event = self.last("service")
        return str(event.data["base_url"]) if event is not None else ""

    def folder(self, *parts: str) -> Path:
        """A folder of the migration, made if it is absent. Parts are turned into safe file names."""
        path = self.path.joinpath(*(safe_name(part) for part in parts))
        files.make_folder(path)
        return path

    def append(self, type: str, /, *, sync: bool = True, **data: Any) -> Event:
        """Write one event, flushed, without keys."""
        return self.journal.append(type, sync=sync, **{name: _redacted(value) for name, value in data.items()})

    def of(self, *types: str) -> list[Event]:
        """Events of these types, oldest first."""
        return [event for event in self.journal.read() if event.type in types]

    def last(self, type: str, /, **where: Any) -> Event | None:
        """The last event of a type whose data holds these values."""
        for event in reversed(self.of(type)):
            if all(event.data.get(name) == value for name, value in where.items()):
                return event
        return None

    @contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Hold the migration's lock; the kernel lets go of it when the process dies. Raises `RunBusy` at once."""
        files.make_folder(self.path)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunBusy(
                f"another process is working on the migration {self.name!r}; {doing} was not started.",
                hint="Wait until it is done. `ftbridge migrate status` reads the folder meanwhile.",
            ) from None
        try:
            _sweep(self.path)
            yield
        finally:
            lock.release()


def migrations(home: Path | None = None) -> list[Migration]:
    """All migrations, by name."""
    folder = (home or files.home()) / "migrations"
    if not folder.is_dir():
        return []
    return [Migration(path) for path in sorted(folder.iterdir()) if (path / "journal.jsonl").exists()]


def safe_name(text: str) -> str:
    """A file name for the id of a model, job or file: the id where that is one, else with a hash that keeps it unique."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:100]
    if plain == text and not plain.startswith("."):
        return plain
    return f"{plain.lstrip('.')}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def _sweep(path: Path) -> None:
    """Remove what a killed process left half-written; called with the lock held."""
    for temporary in path.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {name: _redacted(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(inner) for inner in value]
    return value
