"""From one place to another, record by record, whole or not at all."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from ftbridge.data.convert.compression import ENDINGS
from ftbridge.data.convert.containers import Container, Reading, Record, container_of, endings, read_records
from ftbridge.data.convert.recipe import Recipe, example_of, record_of
from ftbridge.data.convert.shapes import METHODS, NATIVE, Shape, ShapeError, WouldBeLost
from ftbridge.data.convert.writing import Writer, written
from ftbridge.data.formats import data_error
from ftbridge.data.sources import SourceFile, find_files, opened
from ftbridge.errors import DataError, UsageError
from ftbridge.files import atomic_path, disk_full_is_an_error

_PROBLEMS_KEPT = 1_000


class Converted(BaseModel):
    """What was done.

    `shapes` counts the records of each shape; `dropped` the fields let go, by name. `skipped` tells what was left out (the
    first 1,000), `skipped_count` how much. `json_columns` are columns of a table that are to be read back with --parse.
    `sha256` is of the bytes written.
    """

    model_config = ConfigDict(frozen=True)
    source: str
    out: str
    shapes: dict[str, int]
    to: str
    examples: int
    dropped: dict[str, int]
    skipped: list[str]
    skipped_count: int
    json_columns: list[str]
    sha256: str


def convert(
    source: str,
    out: str,
    recipe: Recipe | None = None,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Convert a file, every file of a glob, or `-` for standard input and output; `progress` hears how many records were read.

    Raises `DataError` with every record that cannot be read or written, and every field that would be lost (OUT is not
    written then), and `UsageError` for files that are not there, are the same, or stand in the way. With `skip_bad`, records
    that cannot be read are left out and told; fields are never.
    """
    recipe = recipe or Recipe()
    compression = Path(out).suffix.lower() if out.lower().endswith(ENDINGS) else None
    container: Container = container_of(out) or "jsonl"
    if out != "-" and container_of(out) is None and _is_new_or_file(Path(out)):
        raise UsageError(f"{out}: its ending names no format.", hint=f"One of {endings()}; .gz and .zst may follow.")
    work = _Work(recipe)
    reading = Reading(recipe.container, recipe.delimiter, recipe.parsed, recipe.max_ratio)
    files = [] if source == "-" else find_files([source], Path())
    with _output(out, force, [Path(file.place) for file in files if not file.remote]) as target:
        with written(target, container, compression) as writer:
            read = 0
            for stream, label in _streams(files):
                for record in read_records(stream, label, reading):
                    work.one(label, record, writer)
                    read += 1
                    if read % 1_000 == 0:
                        progress(read)
            work.stop_on_problems(source)
        target.flush()
    return Converted(
        source="<stdin>" if source == "-" else source,
        out=out,
        shapes=dict(work.shapes),
        to=work.target or "chat",
        examples=work.examples,
        dropped=dict(work.dropped),
        skipped=work.problems,
        skipped_count=work.bad,
        json_columns=writer.json_columns,
        sha256=target.digest(),
    )


class _Work:
    """Converts records, and remembers what happened to them."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.target: Shape | None = recipe.target
        self.shapes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.problems: list[str] = []
        self.bad = self.examples = 0

    def one(self, label: str, record: Record, writer: Writer) -> None:
        try:
            if record.problem is not None:
                raise ShapeError(record.problem)
            shape, example = example_of(record.value, self.recipe, self.target, self.dropped)
            self.target = self.target or NATIVE[METHODS.get(shape, "supervised")]
            writer.put(record_of(example, self.target, self.recipe))
        except WouldBeLost as error:
            first = not self.lost.keys() >= {*error.fields}
            self.lost.update(error.fields)
            self._problem(label, record, str(error), kept=first)
        except (ShapeError, DataError) as error:
            self._problem(label, record, str(error))
        except UnicodeEncodeError:
            self._problem(label, record, "holds half of a \\u surrogate pair, which no UTF-8 text can hold")
        except (ValueError, RecursionError, TypeError) as error:
            told = (
                "is nested too deeply to be written"
                if isinstance(error, RecursionError)
                else f"cannot be written: {error}"
            )
            self._problem(label, record, told)
        else:
            self.examples += 1
            self.shapes[shape] += 1

    def stop_on_problems(self, source: str) -> None:
        """Raise what was wrong, unless it may be skipped; nothing at all is an error either way."""
        if self.bad and (self.lost or not self.recipe.skip_bad):
            raise DataError(data_error(self.problems, self.bad).message, problems=self.problems, hint=self._hint())
        if not self.examples:
            problem = f"{source} holds no record that can be read."
            shown = "\n".join([problem, *(f"  {told}" for told in self.problems[:20])])
            raise DataError(shown, problems=[problem, *self.problems])

    def _hint(self) -> str:
        if not self.lost:
            return "--skip-bad leaves them out, and says so."
        names = " ".join(f"--drop '{name}'" if "[" in name else f"--drop {name}" for name in self.lost)
        keeps = not any("[" in name or "." in name for name in self.lost) and self.target != "preference"
        return f"{names} lets them go{'; --keep keeps them beside the rest' * keeps}."

    def _problem(self, label: str, record: Record, told: str, kept: bool = True) -> None:
        self.bad += 1
        if kept and len(self.problems) < _PROBLEMS_KEPT:
            at = f"{label}:{record.line}" if record.line else label
            self.problems.append(f"{at} {told.rstrip('.')}.")


# Files


def _streams(files: list[SourceFile]) -> Iterator[tuple[BinaryIO, str]]:
    """Each file, open; standard input where there are none."""
    if not files:
        yield sys.stdin.buffer, "<stdin>"
    for file in files:
        with opened(file) as stream:
            yield stream, file.label


def _is_new_or_file(place: Path) -> bool:
    return not place.exists() or place.is_file()


@contextmanager
def _output(out: str, force: bool, inputs: list[Path]) -> Iterator[Any]:
    place = Path(out)
    if out == "-":
        yield _Hashing(sys.stdout.buffer)
    elif place.is_dir():
        raise UsageError(f"{out} is a folder.", hint="Name a file in it.")
    elif place.exists() and any(place.samefile(source) for source in inputs):
        raise UsageError(f"{out} is the file to be converted.", hint="Name another file.")
    elif not _is_new_or_file(place):  # a device or a pipe: nothing to replace
        with place.open("wb") as target:
            yield _Hashing(target)
    elif place.exists() and not force:
        raise UsageError(f"{out} exists.", hint="Name another file, or use --force to replace it.")
    else:
        _make_room(place)
        with disk_full_is_an_error(place), atomic_path(place) as temporary, temporary.open("wb") as target:
            yield _Hashing(target)


def _make_room(place: Path) -> None:
    """Make the folder of a file to be written. Raises `UsageError` where nothing can be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place.parent).close()
    except OSError as error:
        raise UsageError(f"{place}: cannot be written ({error.strerror}).") from None


class _Hashing:
    """A binary file that knows the SHA-256 of what was written to it."""

    closed = False

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._hash, self._size = target, hashlib.sha256(), 0

    def write(self, block: Any) -> int:
        self._hash.update(block)
        self._target.write(block)
        size = memoryview(block).nbytes
        self._size += size
        return size

    def flush(self) -> None:
        self._target.flush()

    def digest(self) -> str:
        return self._hash.hexdigest()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._size

    def close(self) -> None:
        """The file is closed by who opened it."""
