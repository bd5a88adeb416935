"""What a run on this machine makes of a line and of a file: its own reading and preparing, applied to one of them.

line ─▶ the preparation of a run ─▶ the example that is trained on (a line of the prepared data), or why there is none
file ─▶ the reader of a run ──────▶ its records, one a line, or why it cannot be read

The linter's verdict for this machine follows from these, so that it cannot differ from what a run does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ftbridge.errors import FtbridgeError

if TYPE_CHECKING:
    from ftbridge.data.lint.rule import JSON, Context


_RECORDS = 1_000
"""Records of a file that are read to see whether it can be read at all."""


@dataclass(frozen=True)
class PreparedLine:
    """The example that a run makes of a line, as its prepared data hold it (None for none), and why there is none."""

    document: JSON
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileRecords:
    """What a run reads from a file: each record as a line of JSON, its line in the file, and what cannot be read.

    A problem's line is 0 where it is about the whole file.
    """

    lines: list[bytes]
    numbers: list[int]
    problems: tuple[tuple[int, str], ...] = ()


def prepared_line(document: JSON, context: Context) -> PreparedLine:
    """A line as a run prepares it for its method. Fields that graders read stay: all of test data, else `variables`."""
    from ftbridge.data.convert import formats  # pydantic and the converter: not needed for services

    words = tuple(sorted({word for path in context.variables for word in re.findall(r"\w+", path)}))
    fields = formats.FieldChoice(keep=words, keep_item_fields=context.role == "test")
    example, problems = formats.read_line(document, context.method, fields)
    return PreparedLine(None if example is None else example.document(), tuple(problems))


def file_records(stream: BinaryIO, path: str) -> FileRecords:
    """The records of a file as a run reads them, whatever its form."""
    from ftbridge.data.reading.containers import read_records

    lines: list[bytes] = []
    numbers: list[int] = []
    problems: list[tuple[int, str]] = []
    try:
        for line, value, problem, hint in read_records(stream, path):
            if problem is not None:
                problems.append((line, f"{problem}{' ' * bool(hint)}{hint}"))
            else:
                lines.append(_json(value))
                numbers.append(line)
    except FtbridgeError as error:
        message = error.message.removeprefix(f"{path}: ")
        problems.append((0, f"cannot be read: {message}{' ' * bool(error.hint)}{error.hint or ''}"))
    return FileRecords(lines, numbers, tuple(problems))


def obstacle(stream: BinaryIO, path: str, encoding: str | None = None) -> str:
    """What stops `ftbridge convert` among the first records of a file; empty where nothing does."""
    from ftbridge.data.reading.containers import Reading, read_records

    try:
        for line, _, problem, hint in islice(read_records(stream, path, Reading(encoding=encoding)), _RECORDS):
            if problem is not None:
                return f"{f'line {line} ' if line else 'it '}{problem.rstrip('.')}.{' ' * bool(hint)}{hint}"
    except FtbridgeError as error:
        message = error.message.removeprefix(f"{path}: ").rstrip(".")
        return f"{message}.{' ' * bool(error.hint)}{error.hint or ''}"
    return ""


def is_read_as_lines(path: str, begins_with: bytes) -> bool:
    """Whether a run reads such a file line by line, each a document of its own, without looking at it as a whole."""
    from ftbridge.data.reading.containers import container_of

    return begins_with.startswith(b"{") and container_of(Path(path).name) in (None, "jsonl")


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str).encode()
