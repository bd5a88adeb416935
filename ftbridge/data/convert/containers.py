"""Records from files and to files: JSON Lines, JSON arrays, CSV, TSV, Parquet; gzip and zstd of these; one at a time."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple

from ftbridge.data.lint.parse import Parsed, parse
from ftbridge.errors import DataError, MissingDependency, UsageError

Container = Literal["jsonl", "json", "csv", "tsv", "parquet"]
CONTAINERS: tuple[Container, ...] = ("jsonl", "json", "csv", "tsv", "parquet")
_ENDINGS: dict[str, Container] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet",
}  # fmt: skip
_STRUCTURED = ("messages", "conversations", "tools", "functions", "input", "preferred_output", "non_preferred_output",
               "chosen", "rejected", "history", "parallel_tool_calls")  # fmt: skip
"""Columns whose cells hold JSON when they begin like it; every other cell is text."""

MOST_INFLATED = 50_000_000_000
"""Bytes a compressed file may grow to."""

_CHUNK = 1 << 20


class Record(NamedTuple):
    """One record and the line it begins on (for Parquet, its row), or what is wrong with it."""

    line: int
    value: dict[str, Any] | None
    problem: str | None = None


def container_of(name: str) -> Container | None:
    """The container that a file's ending names, compression aside; None for an unknown ending."""
    path = Path(name)
    if path.suffix in (".gz", ".zst"):
        path = path.with_suffix("")
    return _ENDINGS.get(path.suffix.lower())


def read_records(stream: BinaryIO, name: str, container: Container | None = None) -> Iterator[Record]:
    """Every record of an open file. What kind of file it is comes from its bytes, then from its name.

    Raises `UsageError` for files that hold no records, `DataError` when the file breaks off.
    """
    head = _peek(stream, 4)
    if head.startswith(b"PAR1"):
        yield from _parquet(stream)
        return
    if head.startswith(b"PK\x03\x04"):
        raise UsageError(f"{name} is a zip archive.", hint="Unpack it first.")
    try:
        with _inflated(stream, head) as plain:
            yield from _from_text(plain, name, container)
    except (EOFError, OSError, zlib.error, _zstd_error()) as error:
        raise DataError(f"{name} cannot be read to its end: {error}.", hint="Copy or download it again.") from None


def _from_text(plain: Any, name: str, container: Container | None) -> Iterator[Record]:
    first = plain.read(_CHUNK)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{name} is UTF-16 text.", hint="Save it as UTF-8; ftbridge lint --fix does for JSON.")
    chosen = container or _sniffed(first, name)
    if chosen == "parquet":
        raise UsageError(f"{name} is not a Parquet file.")
    rest = _Again(first.removeprefix(b"\xef\xbb\xbf"), plain)
    yield from {"jsonl": _lines, "json": _array, "csv": _comma, "tsv": _tab}[chosen](rest)


@contextlib.contextmanager
def written(target: Any, container: Container, compression: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes one record after the other; the file is whole when the context ends."""
    with contextlib.ExitStack() as stack:
        if compression == ".gz":
            target = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0))
        elif compression == ".zst":
            target = stack.enter_context(_zstd().ZstdCompressor().stream_writer(target, closefd=False))
        yield stack.enter_context(_WRITERS[container](target))


# Reading


def _peek(stream: BinaryIO, size: int) -> bytes:
    head = stream.read(size)
    stream.seek(0)
    return head


@contextlib.contextmanager
def _inflated(stream: BinaryIO, head: bytes) -> Iterator[Any]:
    if head.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=stream) as plain:
            yield _Bounded(plain)
    elif head == b"\x28\xb5\x2f\xfd":
        with _zstd().ZstdDecompressor().stream_reader(stream, read_across_frames=True) as plain:
            yield _Bounded(plain)
    else:
        yield stream


class _Bounded(io.RawIOBase):
    """A stream that stops a compressed bomb."""

    def __init__(self, plain: Any) -> None:
        self._plain, self._size = plain, 0

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._plain.read(size if size >= 0 else _CHUNK)
        self._size += len(block)
        if self._size > MOST_INFLATED:
            raise UsageError(f"the file unpacks to more than {MOST_INFLATED / 1e9:,.0f} GB.")
        return block


class _Again(io.RawIOBase):
    """A stream with what was already read put back in front."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._first[: len(buffer)] or self._rest.read(len(buffer))
        self._first = self._first[len(block) :]
        buffer[: len(block)] = block
        return len(block)


def _sniffed(first: bytes, name: str) -> Container:
    named = container_of(name)
    begins = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    if named in ("csv", "tsv"):
        return named
    if begins.startswith(b"["):
        return "json"
    if begins.startswith(b"{"):
        return "json" if begins.split(b"\n", 1)[0].strip() == b"{" else "jsonl"
    if named:
        return named
    line = begins.split(b"\n", 1)[0]
    if b"\t" in line:
        return "tsv"
    if b"," in line:
        return "csv"
    raise UsageError(f"{name}: its first line looks like no format that is known.", hint="Name it with --input-format.")


def _lines(stream: _Again) -> Iterator[Record]:
    """Only a line feed ends a line: a text may hold U+2028."""
    for number, raw in enumerate(io.BufferedReader(stream, _CHUNK), 1):
        if raw.strip():
            yield _record(number, raw.rstrip(b"\r\n"), raw.endswith(b"\n"))


def _record(number: int, raw: bytes, ends: bool) -> Record:
    parsed = parse(raw, ends_with_newline=ends)
    if not isinstance(parsed, Parsed):
        cut = " The file looks truncated." if parsed.kind == "cut" else ""
        return Record(
            number, None, f"is not valid JSON at column {parsed.column}: {parsed.detail or parsed.kind}.{cut}"
        )
    if parsed.doubled:
        return Record(number, None, f'has the key "{parsed.doubled[0][0]}" twice in one object.')
    if not isinstance(parsed.document, dict):
        return Record(number, None, "is no JSON object.")
    return Record(number, parsed.document)


def _array(stream: _Again) -> Iterator[Record]:
    """The elements of one array, or objects one after the other, in memory for one element at a time."""
    text = io.TextIOWrapper(io.BufferedReader(stream, _CHUNK), encoding="utf-8", errors="surrogateescape")
    decoder, buffer, line, ended = json.JSONDecoder(), "", 1, False

    def more() -> bool:
        nonlocal buffer, ended
        block = text.read(max(_CHUNK, len(buffer)))
        buffer += block
        ended = not block
        return bool(block)

    more()
    line += buffer[: len(buffer) - len(buffer.lstrip())].count("\n")
    buffer = buffer.lstrip()
    array = buffer.startswith("[")
    buffer = buffer[array:]
    while True:
        stripped = buffer.lstrip(" \t\r\n,")
        line += buffer[: len(buffer) - len(stripped)].count("\n")
        buffer = stripped
        if not buffer and more():
            continue
        if not buffer or (array and buffer.startswith("]")):
            break
        try:
            end = decoder.raw_decode(buffer)[1]
        except RecursionError:
            yield Record(line, None, "is nested too deeply.")
            return
        except ValueError as error:
            if more():
                continue
            yield Record(line, None, f"is not valid JSON: {error}.")
            return
        if end == len(buffer) and not ended and more():
            continue  # a number may go on in the next block
        yield _record(line, buffer[:end].encode("utf-8", "surrogateescape"), True)._replace(line=line)
        line += buffer.count("\n", 0, end)
        buffer = buffer[end:]
    if array and not buffer.startswith("]"):
        yield Record(line, None, "ends before its array does: the file looks truncated.")


def _comma(stream: _Again) -> Iterator[Record]:
    return _table(stream, ",")


def _tab(stream: _Again) -> Iterator[Record]:
    return _table(stream, "\t")


def _table(stream: _Again, delimiter: str) -> Iterator[Record]:
    """Rows by their header. Raises `UsageError` for a header that names a column twice, or not at all."""
    text = io.TextIOWrapper(io.BufferedReader(stream, _CHUNK), encoding="utf-8", newline="")
    csv.field_size_limit(1 << 30)
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in rows:
            if not cells:
                pass
            elif not header:
                header = [cell.strip() for cell in cells]
                _check_header(header)
            elif len(cells) != len(header):
                yield Record(line, None, f"has {len(cells)} cells; the header names {len(header)} columns.")
            else:
                yield Record(
                    line, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True) if cell != ""}
                )
            line = rows.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        yield Record(line, None, f"cannot be read: {error}.")


def _check_header(header: list[str]) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None or "" in header:
        what = f"names the column {twice} twice" if twice else "has a column without a name"
        raise UsageError(f"the header {what}.", hint="Each column needs a name of its own.")


def _cell(name: str, cell: str) -> Any:
    if name in _STRUCTURED and cell.lstrip()[:1] in ("[", "{", "t", "f"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(cell)
    return cell


def _parquet(stream: BinaryIO) -> Iterator[Record]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingDependency("Parquet needs pyarrow.", hint="pip install 'ftbridge[convert]'") from None
    number = 0
    try:
        for batch in parquet.ParquetFile(stream).iter_batches(batch_size=1_000):
            for row in batch.to_pylist():
                number += 1
                yield Record(number, {key: _pruned(value) for key, value in row.items() if value is not None})
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"the Parquet file cannot be read after row {number:,}: {error}.") from None


def _pruned(value: Any) -> Any:
    """Without nulls in structs: Parquet has no absent fields, so every struct has the fields of all."""
    if isinstance(value, dict):
        return {key: _pruned(inner) for key, inner in value.items() if inner is not None}
    return [_pruned(inner) for inner in value] if isinstance(value, list) else value


# Writing


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@contextlib.contextmanager
def _write_lines(target: IO[bytes]) -> Iterator[Callable[[dict[str, Any]], None]]:
    def write(value: dict[str, Any]) -> None:
        target.write(_text(value).encode() + b"\n")

    yield write


@contextlib.contextmanager
def _write_array(target: IO[bytes]) -> Iterator[Callable[[dict[str, Any]], None]]:
    count = 0

    def write(value: dict[str, Any]) -> None:
        nonlocal count
        target.write((b",\n" if count else b"[\n") + _text(value).encode())
        count += 1

    yield write
    target.write(b"\n]\n" if count else b"[]\n")


@contextlib.contextmanager
def _write_table(target: IO[bytes], delimiter: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    header: list[str] = []
    text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(value: dict[str, Any]) -> None:
        if not header:
            header.extend(value)
            rows.writerow(header)
        if extra := [key for key in value if key not in header]:
            raise DataError(f"{extra[0]} is in this record and not in the first, whose fields are the columns.")
        rows.writerow([_as_cell(value.get(key, "")) for key in header])

    yield write
    text.flush()
    text.detach()


def _as_cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@contextlib.contextmanager
def _write_parquet(target: IO[bytes]) -> Iterator[Callable[[dict[str, Any]], None]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingDependency("Parquet needs pyarrow.", hint="pip install 'ftbridge[convert]'") from None
    values: list[dict[str, Any]] = []
    yield values.append
    try:
        parquet.write_table(pyarrow.Table.from_pylist(values), target)
    except pyarrow.ArrowException as error:
        raise DataError(f"these records do not fit one Parquet schema: {error}.", hint="Write JSON Lines.") from None


_WRITERS: dict[Container, Callable[..., contextlib.AbstractContextManager[Callable[[dict[str, Any]], None]]]] = {
    "jsonl": _write_lines,
    "json": _write_array,
    "csv": lambda target: _write_table(target, ","),
    "tsv": lambda target: _write_table(target, "\t"),
    "parquet": _write_parquet,
}


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingDependency("zstd needs zstandard.", hint="pip install 'ftbridge[convert]'") from None
    return zstandard


def _zstd_error() -> type[Exception]:
    try:
        import zstandard
    except ImportError:
        return EOFError
    error: type[Exception] = zstandard.ZstdError
    return error


def endings(names: Sequence[str] = tuple(_ENDINGS)) -> str:
    """The endings that are known, for messages."""
    return ", ".join(names)
