"""A file as the linter reads it: its first look (what kind of file it is), and its pieces, cut at line ends."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from ftbridge.errors import UsageError
from ftbridge.files import disk_full_is_an_error

PIECE = 1 << 20
"""Bytes of a piece, before it is extended to the end of its last line."""

LONGEST_LINE = 256 << 20
"""Bytes of a line beyond which it is not parsed; no service reads such an example."""

_HEAD = 1 << 16

Form = Literal["lines", "array", "pretty", "empty", "utf-16", "gzip", "zstd", "zip", "parquet", "binary"]

_SIGNATURES: tuple[tuple[bytes, Form], ...] = (
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"PAR1", "parquet"),
)
BOM = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """A stretch of whole lines. `too_long` marks one line that is longer than LONGEST_LINE, and is not to be read."""

    start: int
    length: int
    too_long: bool = False


@dataclass(frozen=True)
class FileFacts:
    """What a first look at a file tells, before any line is parsed. `crlf` and `blank` are known after the last line."""

    path: str
    name: str
    bytes: int
    form: Form
    bom: bool
    ends_with_newline: bool
    lines: int = 0
    crlf: int = 0
    blank: int = 0


class Source:
    """An open file. Standard input is copied to a temporary file first, so that lines can be read again for the report."""

    def __init__(self, path: str) -> None:
        """Open `path`, or standard input for `-`. Raises `UsageError` for what cannot be read."""
        self.path = "<stdin>" if path == "-" else path
        self.file = _stdin() if path == "-" else _opened(path)
        self.place = None if path == "-" else str(Path(path).resolve())

    def facts(self) -> FileFacts:
        """The first look."""
        size = os.fstat(self.file.fileno()).st_size
        head = self._read(0, _HEAD)
        bom = head.startswith(BOM)
        form = _form(head.removeprefix(BOM), size)
        last = self._read(max(0, size - 1), 1)
        return FileFacts(self.path, Path(self.path).name, size, form, bom, last in (b"\n", b""))

    def pieces(self) -> Iterator[Piece]:
        """The file in stretches of whole lines of about PIECE bytes, in order, byte order mark included."""
        size = os.fstat(self.file.fileno()).st_size
        start = 0
        while start < size:
            end = self._line_end(min(start + PIECE, size), size, start)
            if end - start > LONGEST_LINE:
                yield from self._around_long_lines(start, end)
            else:
                yield Piece(start, end - start)
            start = end

    def read(self, piece: Piece) -> bytes:
        """The bytes of a piece."""
        return self._read(piece.start, piece.length)

    def line_at(self, start: int, limit: int = 1 << 22) -> bytes:
        """The line that begins at `start`, without its line feed, cut after `limit` bytes."""
        length = min(1 << 14, limit)
        while True:
            block = self._read(start, length)
            if b"\n" in block or len(block) < length or length == limit:
                return block.split(b"\n", 1)[0]
            length = min(8 * length, limit)

    def close(self) -> None:
        """Close the file, and remove the temporary copy."""
        self.file.close()

    def _read(self, start: int, length: int) -> bytes:
        return read_fully(self.file.fileno(), start, length)

    def _line_end(self, position: int, size: int, start: int) -> int:
        """The end of the line that `position` is in, line feed included."""
        if position > start and self._read(position - 1, 1) == b"\n":
            return position
        while position < size:
            block = self._read(position, PIECE)
            found = block.find(b"\n")
            if found >= 0:
                return position + found + 1
            position += len(block)
            if not block:
                break
        return size

    def _around_long_lines(self, start: int, end: int) -> Iterator[Piece]:
        """Only the last line of a stretch can be too long: what stands before it is a piece of its own."""
        first = self._read(start, PIECE)
        cut = first.rfind(b"\n") + 1
        if cut:
            yield Piece(start, cut)
        yield Piece(start + cut, end - start - cut, too_long=end - start - cut > LONGEST_LINE)


def read_fully(descriptor: int, start: int, length: int) -> bytes:
    """`length` bytes from `start`; fewer at the end of the file. A single read gives at most 2 GB."""
    blocks = []
    while length > 0:
        block = os.pread(descriptor, min(length, 1 << 30), start)
        if not block:
            break
        blocks.append(block)
        start, length = start + len(block), length - len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _opened(path: str) -> BinaryIO:
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a folder.", hint="Name the files in it, as in data/*.jsonl.")
        if not stat.S_ISREG(mode):
            with Path(path).open("rb") as stream:
                return _spooled(stream)
        return Path(path).open("rb")
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file.", hint="Check the path; the shell's glob may have matched nothing."
        ) from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: cannot be read ({said}).") from None


def _stdin() -> BinaryIO:
    return _spooled(sys.stdin.buffer)


def _spooled(stream: BinaryIO) -> BinaryIO:
    with disk_full_is_an_error(Path(tempfile.gettempdir())):
        copy = tempfile.TemporaryFile()  # noqa: SIM115 — it lives as long as its Source
        while block := stream.read(1 << 20):
            copy.write(block)
        copy.flush()
    return copy


def _form(head: bytes, size: int) -> Form:
    for signature, form in _SIGNATURES:
        if head.startswith(signature):
            return form
    stripped = head.lstrip()
    if not stripped:
        return "empty" if size <= _HEAD else "lines"
    if b"\0" in head and head.count(b"\0") * 4 > len(head):
        return "utf-16" if stripped.startswith((b"{\0", b"[\0", b"\0{", b"\0[")) else "binary"
    first = stripped.split(b"\n", 1)[0].strip()
    if stripped.startswith(b"[") and not first.endswith(b"]"):
        return "array"
    if first.startswith(b"[") and first.endswith(b"]") and first[1:].lstrip().startswith(b"{"):
        return "array"
    if first in (b"{", b"["):
        return "pretty" if first == b"{" else "array"
    return "lines"
