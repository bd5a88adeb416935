"""From one file to another, record by record, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from ftbridge.data.convert.containers import Container, Record, container_of, endings, read_records, written
from ftbridge.data.convert.shapes import Document, Shape, ShapeError, detect, read, write
from ftbridge.data.formats import data_error
from ftbridge.data.sources import SourceFile, find_files, opened
from ftbridge.errors import DataError, UsageError
from ftbridge.files import atomic_path, disk_full_is_an_error

_PROBLEMS_KEPT = 1_000


@dataclass(frozen=True)
class Recipe:
    """How to convert.

    `source` and `target` are shapes, None to find out and for chat or preference. `columns` renames fields before they
    are read (new name: old name). `drop` lets fields go by name; `keep` keeps the rest beside messages, as item fields.
    `skip_bad` leaves out records that cannot be read, and reports them.
    """

    source: Shape | None = None
    target: Shape | None = None
    container: Container | None = None
    columns: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    drop: tuple[str, ...] = ()
    keep: bool = False
    skip_bad: bool = False


class Converted(BaseModel):
    """What was done. `sha256` is of the bytes written; `dropped` counts fields let go, by name."""

    model_config = ConfigDict(frozen=True)
    source: str
    out: str
    shapes: dict[str, int]
    to: str
    examples: int
    dropped: dict[str, int]
    skipped: list[str]
    sha256: str


def convert(
    source: str, out: str, recipe: Recipe, *, force: bool = False, progress: Callable[[int], None] = lambda _: None
) -> Converted:
    """Convert one file, or `-` for standard input and output; `progress` hears how many records were read.

    Raises `DataError` with every record that cannot be read or written (none is written then, unless `skip_bad`), and
    `UsageError` for files that are not there, are the same, or stand in the way.
    """
    compression = Path(out).suffix if out.endswith((".gz", ".zst")) else None
    container: Container = container_of(out) or "jsonl"
    if out != "-" and container_of(out) is None:
        raise UsageError(f"{out}: its ending names no format.", hint=f"One of {endings()}; .gz and .zst may follow.")
    work = _Work(recipe)
    with _input(source) as (stream, label), _output(source, out, force) as target:
        records = read_records(stream, label, recipe.container)
        with written(target, container, compression) as put:
            for number, record in enumerate(records, 1):
                work.one(label, record, put)
                if number % 1_000 == 0:
                    progress(number)
        target.flush()
        work.finish(label)
    return Converted(
        source=label,
        out=out,
        shapes=dict(work.shapes),
        to=recipe.target or ("preference" if work.shapes.keys() & {"preference", "chosen_rejected"} else "chat"),
        examples=work.examples,
        dropped=dict(work.dropped),
        skipped=work.problems,
        sha256=target.digest(),
    )


class _Work:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.shapes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.problems: list[str] = []
        self.bad = self.examples = 0

    def one(self, label: str, record: Record, put: Callable[[Document], None]) -> None:
        try:
            if record.value is None:
                raise ShapeError(record.problem or "cannot be read")
            value = self._record(record.value)
            put(value)
            self.examples += 1
        except (ShapeError, DataError, ValueError) as error:
            self.bad += 1
            if len(self.problems) < _PROBLEMS_KEPT:
                self.problems.append(f"{label}:{record.line} {str(error).rstrip('.')}.")

    def finish(self, label: str) -> None:
        """Raise what was wrong, unless it may be skipped; nothing at all is an error either way."""
        if self.problems and not self.recipe.skip_bad:
            error = data_error(self.problems)
            hint = "--skip-bad leaves them out, and says so."
            if any("would be lost" in problem for problem in self.problems):
                hint = "--drop FIELD lets a field go, --keep keeps all of them beside the messages."
            raise DataError(error.message, problems=self.problems, hint=hint)
        if not self.examples:
            raise DataError(f"{label} holds no records.")

    def _record(self, value: Document) -> Document:
        recipe = self.recipe
        renamed = _renamed(value, recipe.columns)
        shape = recipe.source or detect(renamed)
        if shape is None:
            known = "messages; prompt and completion; instruction and output; conversations; chosen and rejected"
            raise ShapeError(
                f"has the fields {', '.join(list(renamed)[:6])}, which are no format that is known ({known})"
            )
        example, left = read(renamed, shape, recipe.system)
        for field in [field for field in left if field in recipe.drop]:
            del left[field]
            self.dropped[field] += 1
        if left and not recipe.keep and shape != "chat":
            raise ShapeError(f"{next(iter(left))} would be lost")
        if left and "input" in example:
            raise ShapeError(f"{next(iter(left))} would be lost: a preference has no fields of its own")
        example = {**example, **left}
        self.shapes[shape] += 1
        target = recipe.target or ("preference" if "input" in example else "chat")
        if target == "chat" and "input" in example:
            raise ShapeError("preferred_output: a preference is no chat; write it as preference")
        if target == "preference" and "input" not in example:
            raise ShapeError("messages: a chat is no preference")
        converted = write(example, target)
        json.dumps(converted, ensure_ascii=False, allow_nan=False).encode()
        return converted


def _renamed(value: Document, columns: tuple[tuple[str, str], ...]) -> Document:
    if not columns:
        return value
    given = dict(value)
    for new, old in columns:
        if old not in given:
            raise ShapeError(f"{old} is missing, which is mapped to {new}")
        if new in given and new != old:
            raise ShapeError(f"{new} is there already, and {old} is mapped to it")
        given[new] = given.pop(old)
    return given


@contextmanager
def _input(source: str) -> Iterator[tuple[Any, str]]:
    if source == "-":
        with disk_full_is_an_error(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as copy:
            while block := sys.stdin.buffer.read(1 << 20):
                copy.write(block)
            copy.seek(0)
            yield copy, "<stdin>"
        return
    found = find_files([source], Path())
    if len(found) != 1:
        raise UsageError(f"{source} is {len(found)} files; convert them one by one.")
    file: SourceFile = found[0]
    with opened(file) as stream:
        yield stream, file.label


class _Hashing:
    """A binary file that knows the SHA-256 of what was written to it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._hash = target, hashlib.sha256()

    def write(self, block: bytes) -> int:
        self._hash.update(block)
        return self._target.write(block)

    def flush(self) -> None:
        self._target.flush()

    def digest(self) -> str:
        return self._hash.hexdigest()

    closed = False

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._target.tell()

    def close(self) -> None:
        """The file is closed by who opened it."""


@contextmanager
def _output(source: str, out: str, force: bool) -> Iterator[Any]:
    if out == "-":
        yield _Hashing(sys.stdout.buffer)
        return
    place = Path(out)
    if place.is_dir():
        raise UsageError(f"{out} is a folder.", hint="Name a file in it.")
    if place.exists() and source != "-" and Path(source).exists() and place.samefile(source):
        raise UsageError(f"{out} is the file to be converted.", hint="Name another file.")
    if place.exists() and not force:
        raise UsageError(f"{out} exists.", hint="Name another file, or use --force to replace it.")
    with atomic_path(place) as temporary, temporary.open("wb") as target:
        yield _Hashing(target)
