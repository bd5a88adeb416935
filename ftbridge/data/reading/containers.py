"""Records from files: JSON Lines, JSON arrays, CSV, TSV, Parquet, Excel; gzip and zstd of these; one at a time."""

from __future__ import annotations

import codecs
import io
import json
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, cast

from ftbridge.data.file_kinds import not_data
from ftbridge.data.reading import compression
from ftbridge.data.reading.json_text import BOM, LONGEST, Unreadable, parse, read_array, read_lines
from ftbridge.data.reading.single import read_object
from ftbridge.data.reading.tables import read_table, records_of
from ftbridge.data.reading.workbook import workbook_rows
from ftbridge.errors import UsageError
from ftbridge.files import disk_full_is_an_error

Container = Literal["jsonl", "json", "csv", "tsv", "parquet", "xlsx"]
CONTAINERS: tuple[Container, ...] = ("jsonl", "json", "csv", "tsv", "parquet", "xlsx")
_ENDINGS: dict[str, Container] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet",
    ".xlsx": "xlsx",
}  # fmt: skip
_ZIP = b"PK\x03\x04"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_READS = "ftbridge reads JSON Lines, JSON, CSV and Parquet, text in UTF-8."
_PARQUET = b"PAR1"
_HEAD = 1 << 16


class SourceRecord(NamedTuple):
    """A document and the line it begins on (for Parquet, its row), or what is wrong with it. Line 0 is the whole file.

    `hint` is what to do about the problem, where more can be said than what it is.
    """

    line: int
    value: object
    problem: str | None = None
    hint: str = ""


class Reading(NamedTuple):
    """How to read: what is given is believed, the rest is found out.

    `parsed` names columns whose texts are JSON, `ignored` columns of Parquet that may hold what JSON cannot;
    `encoding` is that of a text which is not UTF-8; `max_ratio` bounds what a compressed file may unpack to (0: no bound).
    """

    container: Container | None = None
    delimiter: str | None = None
    parsed: tuple[str, ...] = ()
    max_ratio: float = compression.MAX_RATIO
    encoding: str | None = None
    ignored: tuple[str, ...] = ()


def container_of(name: str) -> Container | None:
    """The container that a file's ending names, compression aside; None for an unknown ending."""
    path = Path(name)
    if path.suffix.lower() in compression.ENDINGS:
        path = path.with_suffix("")
    return _ENDINGS.get(path.suffix.lower())


def written_endings() -> str:
    """The endings of files that are written, for messages; workbooks are only read."""
    return ", ".join(ending for ending, container in _ENDINGS.items() if container != "xlsx")


def read_records(stream: BinaryIO, name: str, how: Reading | None = None) -> Iterator[SourceRecord]:
    """Every record of an open stream, which need not be a file, and every problem, in their order.

    What kind it is comes from its first bytes, then from its name. A file that was cut gives everything before the cut.
    Raises `UsageError` for what contains no records (UTF-16, a zip archive, a header that is none, an unknown kind), and
    `MissingDependency` for Parquet and zstd without their libraries.
    """
    how = how or Reading()
    head, peeked = _peeked(stream)
    unpacked = compression.inflated(peeked, head, name, how.max_ratio)
    if unpacked:
        head, peeked = _peeked(cast(BinaryIO, io.BufferedReader(unpacked)))
    if refused := _refused(head, name, how):
        yield refused
        return
    if encoding := how.encoding or (head.startswith(_UTF16) and "utf-16"):
        head, peeked = _peeked(_recoded(peeked, encoding, name))
    if head.strip() or unpacked is None or not unpacked.trouble:
        for line, document in _documents(head, peeked, name, how):
            if isinstance(document, Unreadable):
                yield SourceRecord(line, None, str(document), document.hint)
            else:
                yield SourceRecord(line, document)
    if unpacked and unpacked.trouble:
        yield SourceRecord(0, None, unpacked.trouble)


def _refused(head: bytes, name: str, how: Reading) -> SourceRecord | None:
    """The problem of a file whose first bytes say that it contains no records."""
    if head.startswith(_ZIP) and not _is_workbook(head, name):
        hint = "Unpack it, and convert the data file in it."
        if b"word/" in head:
            return SourceRecord(0, None, "is a Word document; write its texts as CSV or JSON Lines.")
        return SourceRecord(0, None, f"is a zip archive; {_READS}", hint)
    if head.startswith(_UTF16) and not how.encoding and container_of(name) not in ("csv", "tsv") and not how.delimiter:
        hint = "`ftbridge convert … --encoding utf-16` reads it; or save it as UTF-8."
        return SourceRecord(0, None, f"is UTF-16 text; {_READS}", hint)
    if reason := not_data(head):
        return SourceRecord(0, None, f"is {reason[0]}.", reason[1])
    return None


def _is_workbook(head: bytes, name: str) -> bool:
    return head.startswith(_ZIP) and (container_of(name) == "xlsx" or b"xl/w" in head)


def _recoded(stream: BinaryIO, encoding: str, name: str) -> BinaryIO:
    """A text stream in another encoding as UTF-8. Raises `UsageError` for an encoding that is not known."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UsageError(
            f"--encoding {encoding} is not known.",
            hint="Use cp1252, utf-16, latin-1, or another name that Python knows.",
        ) from None
    return cast(BinaryIO, io.BufferedReader(_Recoding(stream, encoding, name)))


class _Recoding(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str, name: str) -> None:
        self._stream, self._encoding, self._name = stream, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._rest, self._ended = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            block = self._stream.read(_HEAD)
            self._ended = not block
            try:
                self._rest = self._decoder.decode(block, self._ended).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"{self._name} is not {self._encoding}: {error.reason}.",
                    hint="Set another one with `ftbridge convert … --encoding`.",
                ) from None
        block = self._rest[: len(buffer)]
        self._rest = self._rest[len(block) :]
        buffer[: len(block)] = block
        return len(block)


def _documents(head: bytes, stream: BinaryIO, name: str, how: Reading) -> Iterator[tuple[int, Any]]:
    if not head.removeprefix(BOM).strip() and len(head) < _HEAD:
        yield 0, Unreadable("is empty; it contains no examples.")
        return
    container = how.container or _sniffed(head, name)
    if container in ("parquet", "xlsx"):
        with tempfile.TemporaryFile() as copy:
            yield from _binary(container, _seekable(stream, copy), name, how)
    elif container in ("csv", "tsv"):
        yield from read_table(stream, how.delimiter or ("\t" if container == "tsv" else None), how.parsed)
    else:
        for line, document in _json_documents(container, head, stream, name):
            yield line, _with_json(document, how.parsed) if how.parsed else document


def _binary(container: Container, stream: BinaryIO, name: str, how: Reading) -> Iterator[tuple[int, Any]]:
    if container == "xlsx":
        yield from records_of(workbook_rows(stream, name), how.parsed)
    else:
        from ftbridge.data.reading.parquet import read_parquet

        yield from read_parquet(stream, how.parsed, how.ignored)


def _json_documents(container: Container, head: bytes, stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    begins = head.removeprefix(BOM).lstrip()
    if container == "json":
        any_document = False
        for document in read_array(stream):
            any_document = True
            yield document
        if not any_document:
            yield 0, Unreadable("is an empty list; it contains no examples.")
    elif container_of(name) == "json" and begins.startswith(b"{") and not _has_lines(begins):
        raw = stream.read(LONGEST + 1)
        if len(raw) > LONGEST:
            yield 0, Unreadable(f"is one object of more than {LONGEST >> 20} MB; write its list as JSON Lines.")
        else:
            yield from read_object(raw.removeprefix(BOM))
    elif begins.split(b"\n", 1)[0].strip() == b"{":
        line = 1 + head[: head.index(b"{")].count(b"\n")
        yield line, Unreadable("opens an object over several lines; JSON Lines has one example a line.")
    else:
        yield from read_lines(stream)


def _is_list_a_line(begins: bytes) -> bool:
    """Whether each line is a list of its own (a conversation's turns), rather than all lines one list."""
    first, _, rest = begins.partition(b"\n")
    if not rest.lstrip().startswith(b"["):
        return False
    try:
        turns = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(turns) and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns)


def _has_lines(begins: bytes) -> bool:
    """Whether a text that begins with an object is JSON Lines: its first line is a whole document, and more follow."""
    first, _, rest = begins.partition(b"\n")
    if not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return rest.lstrip().startswith(b'{"') and not first.rstrip().endswith((b"{", b"[", b","))
    return True


def _with_json(document: object, parsed: Collection[str]) -> object:
    """A document of JSON with the texts of these fields read as JSON too."""
    if not isinstance(document, dict):
        return document
    changed = {}
    for name in parsed:
        if isinstance(value := document.get(name), str):
            try:
                changed[name] = parse(value)
            except ValueError as error:
                return Unreadable(f"{name} is not valid JSON ({error}).")
    return {**document, **changed}


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
    if _is_workbook(begins, name):
        return "xlsx"
    if named in ("csv", "tsv"):
        return named
    if begins.startswith(b"["):
        return "jsonl" if _is_list_a_line(begins) else "json"
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
    raise UsageError(
        f"{name}: its first line does not look like any known format.",
        hint="Set it with `ftbridge convert … --input-format`.",
    )


def _seekable(stream: BinaryIO, copy: BinaryIO) -> BinaryIO:
    with disk_full_is_an_error(Path(tempfile.gettempdir())):
        while block := stream.read(1 << 20):
            copy.write(block)
    copy.seek(0)
    return copy
