"""Records from files: JSON Lines, JSON arrays, CSV, TSV, Parquet; gzip and zstd of these; one at a time, from any stream."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, cast

from ftbridge.data.convert import compression
from ftbridge.data.convert.json_text import BOM, Unreadable, read_array, read_lines
from ftbridge.data.convert.tables import read_table
from ftbridge.errors import UsageError
from ftbridge.files import disk_full_is_an_error

Container = Literal["jsonl", "json", "csv", "tsv", "parquet"]
CONTAINERS: tuple[Container, ...] = ("jsonl", "json", "csv", "tsv", "parquet")
_ENDINGS: dict[str, Container] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet",
}  # fmt: skip
_NEVER = {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text", b"PK\x03\x04": "a zip archive"}
_PARQUET = b"PAR1"
_HEAD = 1 << 16


class Record(NamedTuple):
    """A document and the line it begins on (for Parquet, its row), or what is wrong with it. Line 0 is the whole file."""

    line: int
    value: object
    problem: str | None = None


class Reading(NamedTuple):
    """How to read: what is given is believed, the rest is found out.

    `parsed` names columns whose cells are JSON; `max_ratio` bounds what a compressed file may unpack to (0: no bound).
    """

    container: Container | None = None
    delimiter: str | None = None
    parsed: tuple[str, ...] = ()
    max_ratio: float = compression.MAX_RATIO


def container_of(name: str) -> Container | None:
    """The container that a file's ending names, compression aside; None for an unknown ending."""
    path = Path(name)
    if path.suffix.lower() in compression.ENDINGS:
        path = path.with_suffix("")
    return _ENDINGS.get(path.suffix.lower())


def endings(names: Sequence[str] = tuple(_ENDINGS)) -> str:
    """The endings that are known, for messages."""
    return ", ".join(names)


def read_records(stream: BinaryIO, name: str, how: Reading | None = None) -> Iterator[Record]:
    """Every record of an open stream, which need not be a file, and every problem, in their order.

    What kind it is comes from its first bytes, then from its name. A file that was cut gives everything before the cut.
    Raises `UsageError` for what holds no records (UTF-16, a zip archive, a header that is none, an unknown kind), and
    `MissingDependency` for Parquet and zstd without their libraries.
    """
    how = how or Reading()
    head, whole = _peeked(stream)
    unpacked = compression.inflated(whole, head, name, how.max_ratio)
    if unpacked:
        head, whole = _peeked(cast(BinaryIO, io.BufferedReader(unpacked)))
    if kind := next((kind for start, kind in _NEVER.items() if head.startswith(start)), None):
        yield Record(0, None, f"is {kind}; ftbridge reads JSON Lines, JSON, CSV and Parquet, text in UTF-8.")
        return
    if head.strip() or unpacked is None or not unpacked.trouble:
        for line, document in _documents(head, whole, name, how):
            problem = str(document) if isinstance(document, Unreadable) else None
            yield Record(line, None if problem else document, problem)
    if unpacked and unpacked.trouble:
        yield Record(0, None, unpacked.trouble)


def _documents(head: bytes, stream: BinaryIO, name: str, how: Reading) -> Iterator[tuple[int, Any]]:
    if not head.removeprefix(BOM).strip() and len(head) < _HEAD:
        yield 0, Unreadable("is empty; it holds no examples.")
        return
    container = how.container or _sniffed(head, name)
    if container == "parquet":
        from ftbridge.data.convert.parquet import read_parquet

        with tempfile.TemporaryFile() as copy:
            yield from read_parquet(_seekable(stream, copy), how.parsed)
    elif container in ("csv", "tsv"):
        yield from read_table(stream, how.delimiter or ("\t" if container == "tsv" else None), how.parsed)
    elif container == "json":
        any_document = False
        for document in read_array(stream):
            any_document = True
            yield document
        if not any_document:
            yield 0, Unreadable("is an empty list; it holds no examples.")
    elif head.removeprefix(BOM).lstrip().split(b"\n", 1)[0].strip() == b"{":
        line = 1 + head[: head.index(b"{")].count(b"\n")
        yield line, Unreadable("opens an object over several lines; JSON Lines has one example a line.")
    else:
        yield from read_lines(stream)


def _peeked(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first bytes of a stream, and a stream that has them still."""
    head = b""
    while len(head) < _HEAD and (block := stream.read(_HEAD - len(head))):
        head += block
    return head, cast(BinaryIO, io.BufferedReader(_Again(head, stream), 1 << 20))


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


def _sniffed(head: bytes, name: str) -> Container:
    named = container_of(name)
    begins = head.removeprefix(BOM).lstrip()
    if begins.startswith(_PARQUET):
        return "parquet"
    if named in ("csv", "tsv"):
        return named
    if begins.startswith(b"["):
        return "json"
    if begins.startswith(b"{"):
        return "jsonl"
    if named:
        return "jsonl" if named == "json" else named
    first = begins.split(b"\n", 1)[0]
    if b"\0" not in first and first.decode("utf-8", "replace").replace("\t", " ").strip().isprintable():
        if b"\t" in first:
            return "tsv"
        if b"," in first or b";" in first:
            return "csv"
    raise UsageError(f"{name}: its first line looks like no format that is known.", hint="Name it with --input-format.")


def _seekable(stream: BinaryIO, copy: BinaryIO) -> BinaryIO:
    with disk_full_is_an_error(Path(tempfile.gettempdir())):
        while block := stream.read(1 << 20):
            copy.write(block)
    copy.seek(0)
    return copy


def as_columns(names: Collection[str]) -> str:
    """Field names for a message: the first few."""
    shown = list(names)[:8]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
