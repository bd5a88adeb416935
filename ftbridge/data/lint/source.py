"""A file as the linter reads it: its first look (what kind of file it is), and its pieces, cut at line ends."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ftbridge.data.lint.forms import BOM, Form, kind_of_file
from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.files import disk_full_is_an_error

PIECE = 1 << 20
"""Bytes of a piece, before it is extended to the end of its last line."""

LONGEST_LINE = 256 << 20
"""Bytes of a line beyond which it is not parsed; no service reads such an example."""

_HEAD = 1 << 16
_STEP = 1 << 14
_BLANK = b" \t\r\n"


class Chunk(NamedTuple):
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
    detail: str = ""
    """What a form needs to be named: the key that holds the examples, or what the file is instead of data."""
    advice: str = ""
    """What to do with a file of this form, in a sentence."""
    refusals: tuple[tuple[int, str], ...] = ()
    """What a run on this machine cannot read of it: lines (0 for the whole file) and reasons. For that target alone."""
    is_read_here: bool = False
    """Whether a run on this machine reads records from it, though it is not JSON Lines. For that target alone."""


class Source:
    """An open file. Standard input and pipes are copied to a temporary file, so that lines can be read again."""

    def __init__(self, path: str) -> None:
        """Open `path`, or standard input for `-`. Raises `UsageError` for what cannot be read."""
        self.path = "<stdin>" if path == "-" else _shown(path)
        self.file: BinaryIO = _stdin() if path == "-" else _opened(path)
        self._state = self._now()

    @property
    def descriptor(self) -> int:
        """The open file, for processes that inherit it: reads name their place, so that it can be shared."""
        return self.file.fileno()

    @property
    def size(self) -> int:
        """Bytes when it was opened; what is appended later is not read."""
        return self._state[0]

    def facts(self) -> FileFacts:
        """The first look."""
        head = self.first_bytes()
        bom = self._read(0, len(BOM)) == BOM
        last = self._read(max(0, self.size - 1), 1)
        kind = kind_of_file(head, self.path, is_one_line=self._is_one_line)
        return FileFacts(
            self.path, Path(self.path).name, self.size, kind.form, bom, last in (b"\n", b""), detail=kind.detail,
            advice=kind.advice,
        )  # fmt: skip

    def rewritten(self, lines: Iterable[bytes]) -> Source:
        """A temporary copy under the same name that has these lines, each with a line feed."""
        copy = Source.__new__(Source)
        copy.path, copy.file = self.path, _copied(line + b"\n" for line in lines)
        copy._state = copy._now()
        return copy

    def pieces(self) -> Iterator[Chunk]:
        """The file in stretches of whole lines of about PIECE bytes, in order, byte order mark included."""
        start = 0
        while start < self.size:
            end = self._line_end(min(start + PIECE, self.size))
            # Only the last line of a stretch can be too long: what stands before it is a piece of its own.
            cut = start + self._read(start, PIECE).rfind(b"\n") + 1 if end - start > LONGEST_LINE else start
            if cut > start:
                yield Chunk(start, cut - start)
            yield Chunk(cut, end - cut, too_long=end - cut > LONGEST_LINE)
            start = end

    def read(self, piece: Chunk) -> bytes:
        """The bytes of a piece. Raises `FtbridgeError` when the file has become shorter."""
        raw = self._read(piece.start, piece.length)
        if len(raw) < piece.length:
            raise self._changed()
        return raw

    def line_at(self, start: int, limit: int = 1 << 22) -> bytes:
        """The line that begins at `start`, without its line feed, cut after `limit` bytes."""
        length = min(1 << 14, limit)
        while True:
            block = self._read(start, length)
            if b"\n" in block or len(block) < length or length == limit:
                return block.split(b"\n", 1)[0]
            length = min(8 * length, limit)

    def check_unchanged(self) -> None:
        """Raise `FtbridgeError` if the file was written to since it was opened."""
        if self._now() != self._state:
            raise self._changed()

    def close(self) -> None:
        """Close the file, and remove the temporary copy."""
        self.file.close()

    def _read(self, start: int, length: int) -> bytes:
        return read_fully(self.descriptor, start, min(length, max(0, self.size - start)))

    def _line_end(self, position: int) -> int:
        """The end of the line that the byte before `position` is in, line feed included."""
        position -= 1
        step = _STEP
        while position < self.size:
            block = self._read(position, step)
            newline = block.find(b"\n")
            if newline >= 0:
                return position + newline + 1
            if not block:
                raise self._changed()
            position, step = position + len(block), PIECE
        return self.size

    def first_bytes(self) -> bytes:
        """The beginning, without a byte order mark and without blank lines."""
        start = len(BOM) if self._read(0, len(BOM)) == BOM else 0
        while start < self.size:
            head = self._read(start, _HEAD)
            if not head:
                raise self._changed()
            if stripped := head.lstrip(_BLANK):
                return stripped if len(stripped) == len(head) else self._read(start + len(head) - len(stripped), _HEAD)
            start += len(head)
        return b""

    def is_one_to_one(self, records: int) -> bool:
        """Whether the file has as many lines that are not blank as a reader found records."""
        self.file.seek(0)
        return records == sum(bool(line.strip()) for line in self.file)

    def _is_one_line(self) -> bool:
        """Whether nothing but white space follows the first line that is not blank."""
        start = self.size - len(self._read(0, self.size).lstrip(_BLANK)) if self.size <= _HEAD else 0
        end = self._line_end(start + 1)
        return self.size - end <= _HEAD and not self._read(end, _HEAD).strip(_BLANK)

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self.descriptor)
        return state.st_size, state.st_mtime_ns

    def _changed(self) -> FtbridgeError:
        return FtbridgeError(
            f"{self.path} was changed while it was linted.", hint="Lint it again when no program writes to it any more."
        )


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


_READABLE_DEVICES = ("/dev/null", "/dev/stdin", "/dev/fd/0", "/dev/tty")


def _opened(path: str) -> BinaryIO:
    shown = _shown(path)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{shown} is a folder.", hint="Name the files in it, as in data/*.jsonl.")
        if (stat.S_ISCHR(mode) and path not in _READABLE_DEVICES) or stat.S_ISBLK(mode):
            raise UsageError(f"{shown} is a device, not a file.")
        if not stat.S_ISREG(mode):
            with Path(path).open("rb") as stream:
                return _spooled(stream)
        return Path(path).open("rb")
    except FileNotFoundError:
        raise UsageError(
            f"{shown}: no such file.", hint="Check the path; the shell's glob may have matched nothing."
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{shown}: cannot be read ({reason}).") from None


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed.", hint="Name a file, or pipe one in.")
    try:
        return _spooled(sys.stdin.buffer)
    except OSError as error:
        raise UsageError(f"standard input cannot be read ({error.strerror}).") from None


def _spooled(stream: BinaryIO) -> BinaryIO:
    return _copied(iter(lambda: stream.read(1 << 20), b""))


def _copied(blocks: Iterable[bytes]) -> BinaryIO:
    with disk_full_is_an_error(Path(tempfile.gettempdir())):
        copy = tempfile.TemporaryFile()  # noqa: SIM115 — it lives as long as its Source
        for block in blocks:
            copy.write(block)
        copy.flush()
    return copy


def _shown(path: str) -> str:
    """The path as text that can be written anywhere; names of files may be no UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
