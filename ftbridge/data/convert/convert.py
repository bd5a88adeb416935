"""From one place to another, record by record, whole or not at all."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from ftbridge.data.convert.exports import BatchJoin
from ftbridge.data.convert.fields import LeftOut, Unfinished
from ftbridge.data.convert.formats import data_error
from ftbridge.data.convert.recipe import Recipe, advice, example_of, record_in, record_of
from ftbridge.data.convert.shapes import METHODS, NATIVE, Shape, ShapeError, WouldBeLost, detect
from ftbridge.data.convert.writing import Writer, written
from ftbridge.data.examples import Method
from ftbridge.data.reading.compression import ENDINGS
from ftbridge.data.reading.containers import (
    Container,
    Reading,
    SourceRecord,
    container_of,
    read_records,
    written_endings,
)
from ftbridge.data.reading.sources import SourceFile, find_files, opened
from ftbridge.errors import DataError, UsageError
from ftbridge.files import atomic_path, disk_full_is_an_error

_PROBLEMS_KEPT = 1_000
_LOOKED_AT = 100  # records that decide the method
_LINES_NAMED = 5
UNFINISHED_HINT = "--include-unfinished includes completions that were cut off or filtered."


class Converted(BaseModel):
    """What was done.

    `shapes` counts the records of each shape; `dropped` the fields let go, by name; `carried` those that stay beside the
    messages without being asked for, and that training does not read. `skipped` tells what could not be read
    (the first 1,000), `skipped_count` how much. `left_out` counts what was left out because it was asked for, or because its
    completion is not whole, by its reason; `left_out_lines` names the lines (the first 1,000), and `unfinished_count` counts
    those whose completion is not whole. `json_columns` are columns of a table that are to be read back with --parse.
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
    left_out: dict[str, int] = {}
    left_out_lines: dict[str, list[str]] = {}
    unfinished_count: int = 0
    carried: dict[str, int] = {}


def convert(
    source: str | Sequence[str],
    out: str,
    recipe: Recipe | None = None,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Convert a file, several, every file of a glob, or `-` for standard input and output.

    `progress` hears how many records were read. What most of the first records are decides the method of all.

    Raises `DataError` with every record that cannot be read or written, and every field that would be lost (OUT is not
    written then), and `UsageError` for files that are not there, are the same, or stand in the way. With `skip_bad`, records
    that cannot be read are left out and told; fields are never.
    """
    recipe = recipe or Recipe()
    compression = Path(out).suffix.lower() if out.lower().endswith(ENDINGS) else None
    container: Container = container_of(out) or "jsonl"
    if out != "-" and container_of(out) in (None, "xlsx") and _is_new_or_file(Path(out)):
        raise UsageError(
            f"{out}: ftbridge writes no format with this file extension.",
            hint=f"Use one of {written_endings()}; .gz and .zst may follow.",
        )
    sources = [source] if isinstance(source, str) else list(source)
    shown = "<stdin>" if sources == ["-"] else " ".join(sources)
    reading = Reading(recipe.container, recipe.delimiter, recipe.parsed, recipe.max_ratio, recipe.encoding, recipe.drop)
    files = [] if sources == ["-"] else find_files(sources, Path())
    with _output(out, force, [Path(file.location) for file in files if not file.remote]) as target:
        with written(target, container, compression) as writer:
            records = _records(files, reading)
            first = list(islice(records, _LOOKED_AT))
            work = _Work(recipe, recipe.target or _target([record for _, record in first], recipe))
            for read, (label, record) in enumerate(chain(first, records), 1):
                work.one(label, record, writer)
                if read % 1_000 == 0:
                    progress(read)
            work.stop_on_problems(shown)
        target.flush()
    return Converted(
        source=shown,
        out=out,
        shapes=dict(work.shapes),
        to=work.target,
        examples=work.examples,
        dropped=dict(work.dropped),
        skipped=work.problems,
        skipped_count=work.bad,
        json_columns=writer.json_columns,
        sha256=target.digest(),
        left_out=dict(work.left_out),
        left_out_lines=work.left_out_lines,
        unfinished_count=work.unfinished,
        carried=dict(work.carried) if work.target in NATIVE.values() else {},
    )


def left_out_sentences(counts: Mapping[str, int], places: Mapping[str, Sequence[str]]) -> list[str]:
    """For each reason, how many examples were left out for it, and the first lines: "2 examples, as …: log.jsonl:2, …"."""
    sentences = []
    for reason, count in counts.items():
        named = list(places.get(reason, ()))[:_LINES_NAMED]
        where = f": {', '.join(named)}{', …' * (count > len(named))}" if named else ""
        sentences.append(f"{count:,} {'example' if count == 1 else 'examples'}, as {reason}{where}")
    return sentences


def _records(files: list[SourceFile], reading: Reading) -> Iterator[tuple[str, SourceRecord]]:
    """Every record of all files with the file's name; the lines of a batch joined with those of its output."""
    join = BatchJoin()
    for stream, label in _streams(files):
        for record in read_records(stream, label, reading):
            joined = join.joined(label, record.line, record.value) if record.problem is None else None
            if record.problem is not None:
                yield label, record
            elif joined:
                yield joined[0], SourceRecord(joined[1], joined[2])
    for label, line, value in join.rest():
        yield label, SourceRecord(line, value)


def _target(records: list[SourceRecord], recipe: Recipe) -> Shape:
    """Where examples go: to the native shape of the method that most of the first records are for."""
    if recipe.source:
        return NATIVE[METHODS.get(recipe.source, "supervised")]
    votes: Counter[Method] = Counter()
    for record in records:
        try:
            shape = detect(record_in(record.value, recipe.columns)) if record.problem is None else None
        except ShapeError:
            continue
        if shape:
            votes[METHODS.get(shape, "supervised")] += 1
    return NATIVE[max(votes, key=lambda method: votes[method], default="supervised")]


class _Work:
    """Converts records, and remembers what happened to them."""

    def __init__(self, recipe: Recipe, target: Shape) -> None:
        self.recipe = recipe
        self.target = target
        self.shapes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.carried: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.left_out_lines: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.hints: list[str] = []
        self.bad = self.examples = self.of_files = self.unfinished = 0
        self._places: dict[str, list[str]] = {}  # of problems that are said once: where each stands
        self._unsaid = 0

    def one(self, label: str, record: SourceRecord, writer: Writer) -> None:
        try:
            if record.problem is not None:
                raise ShapeError(record.problem, hint=record.hint)
            shape, example = example_of(record.value, self.recipe, self.target, self.dropped, self.carried)
            writer.put(record_of(example, self.target, self.recipe))
        except LeftOut as left_out:
            self._leave_out(f"{label}:{record.line}", left_out)
        except WouldBeLost as error:
            first = not self.lost.keys() >= {*error.fields}
            self.lost.update(error.fields)
            self._problem(label, record, error, reported=first)
        except ShapeError as error:
            self._problem(label, record, error)
        except DataError as error:
            self._problem(label, record, ShapeError(str(error)))
        except UnicodeEncodeError:
            self._problem(label, record, ShapeError("holds half of a \\u surrogate pair, which UTF-8 cannot encode"))
        except (ValueError, RecursionError, TypeError) as error:
            is_deep = isinstance(error, RecursionError)
            text = "is nested too deeply to be written" if is_deep else f"cannot be written: {error}"
            self._problem(label, record, ShapeError(text))
        else:
            self.examples += 1
            self.shapes[shape] += 1

    def stop_on_problems(self, source: str) -> None:
        """Raise what was wrong, unless it may be skipped; nothing at all is an error either way."""
        self._name_lines()
        if self.bad and (self.lost or not self.recipe.skip_bad):
            total = self.bad - self._unsaid
            raise DataError(data_error(self.problems, total).message, problems=self.problems, hint=self._hint() or None)
        if not self.examples:
            problem = f"{source} contains no record that can be read."
            hints = self.hints[:3]
            if self.unfinished:
                problem = f"{source} contains no example whose completion is whole."
                hints = [*hints, UNFINISHED_HINT]
            elif self.left_out and not self.bad:
                problem = f"{source} contains no completion labelled as good."
            problems = [*self.problems, *left_out_sentences(self.left_out, self.left_out_lines)]
            shown = "\n".join([problem, *(f"  {problem}" for problem in problems[:20])])
            raise DataError(shown, problems=[problem, *problems], hint=" ".join(hints) or None)

    def _hint(self) -> str:
        if self.lost:
            keeps = not any("[" in name or "." in name for name in self.lost) and self.target != "preference"
            return " ".join([*self.hints[:2], advice(self.lost, keeps)])
        skips = self.examples > 0 or self.bad == 0
        if self.of_files == self.bad or (not skips and self.hints):
            return " ".join(self.hints[:3])
        return " ".join([*self.hints[:3], "--skip-invalid leaves them out and lists them."])

    def _leave_out(self, origin: str, left_out: LeftOut) -> None:
        reason = str(left_out)
        self.left_out[reason] += 1
        self.unfinished += isinstance(left_out, Unfinished)
        if self.left_out.total() <= _PROBLEMS_KEPT:
            self.left_out_lines.setdefault(reason, []).append(origin)

    def _problem(self, label: str, record: SourceRecord, error: ShapeError, reported: bool = True) -> None:
        self.bad += 1
        self.of_files += not record.line
        if error.hint and error.hint not in self.hints:
            self.hints.append(error.hint)
        text = str(error).rstrip(".")
        if error.once and (places := self._places.get(f"{label} {text}")) is not None:
            places.append(str(record.line))
            self._unsaid += 1
            return
        if reported and len(self.problems) < _PROBLEMS_KEPT:
            at = f"{label}:{record.line}" if record.line else label
            self.problems.append(f"{at} {text}.")
            if error.once:
                self._places[f"{label} {text}"] = [self.problems[-1]]

    def _name_lines(self) -> None:
        """Say of a problem that stands once which other lines have it too."""
        for first, *others in self._places.values():
            if others:
                more = f", … ({len(others):,} in all)" if len(others) > _LINES_NAMED else ""
                named = ", ".join(others[:_LINES_NAMED])
                self.problems[self.problems.index(first)] = f"{first} So do lines {named}{more}."


# Files


def _streams(files: list[SourceFile]) -> Iterator[tuple[BinaryIO, str]]:
    """Each file, open; standard input where there are none."""
    if not files:
        yield sys.stdin.buffer, "<stdin>"
    for file in files:
        with opened(file) as stream:
            yield stream, file.label


def _is_new_or_file(path: Path) -> bool:
    return not path.exists() or path.is_file()


@contextmanager
def _output(out: str, force: bool, inputs: list[Path]) -> Iterator[Any]:
    path = Path(out)
    if out == "-":
        yield _Hashing(sys.stdout.buffer)
    elif path.is_dir():
        raise UsageError(f"{out} is a folder.", hint="Name a file in it.")
    elif path.exists() and any(path.samefile(source) for source in inputs):
        raise UsageError(f"{out} is the input file.", hint="Name another file.")
    elif not _is_new_or_file(path):  # a device or a pipe: nothing to replace
        with path.open("wb") as target:
            yield _Hashing(target)
    elif path.exists() and not force:
        raise UsageError(f"{out} exists.", hint="Choose another file, or use --force to replace it.")
    else:
        _make_room(path)
        with disk_full_is_an_error(path), atomic_path(path) as temporary, temporary.open("wb") as target:
            yield _Hashing(target)


def _make_room(path: Path) -> None:
    """Make the folder of a file to be written. Raises `UsageError` where nothing can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}).") from None


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
