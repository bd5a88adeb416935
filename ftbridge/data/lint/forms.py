"""What kind of file it is, by its first bytes: JSON Lines, other JSON, a table, compressed data, or no data at all."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from ftbridge.data.detect import detect_record, detect_records
from ftbridge.data.file_kinds import looks_like_table, not_data
from ftbridge.data.lint.shape import kind_of_line

Form = Literal[
    "lines", "array", "pretty", "wrapped", "table", "empty", "utf-16", "gzip", "zstd", "zip", "parquet", "binary", "other"
]  # fmt: skip
BOM = b"\xef\xbb\xbf"

CONVERTED: tuple[Form, ...] = ("gzip", "zstd", "parquet")
"""Forms that `ftbridge convert` reads by themselves, whatever they hold."""

TO_CONVERT: tuple[Form, ...] = (*CONVERTED, "table")
"""Forms for which the advice is to convert the file, if its reader can read it."""

_SIGNATURES: tuple[tuple[bytes, Form], ...] = (
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"PAR1", "parquet"),
)
_TABLES = (".csv", ".tsv", ".tab")
_SEPARATOR = re.compile(r"sep=([,;|\t])[ \t]*\r?\n", re.IGNORECASE)
"""A first line that names what parts the cells, for Excel."""
_ROWS = 20
"""Rows of a table that are looked at."""

_SEEN = re.compile(r'[ \t\r\n]*"((?:[^"\\]|\\.)*)"[ \t\r\n]*:[ \t\r\n]*')
_LIST = re.compile(r"\[[ \t\r\n]*(?=\{)")
_COMMA = re.compile(r"[ \t\r\n]*,")
_DECODER = json.JSONDecoder()


class FileKind(NamedTuple):
    """A form, and what a message about it needs; see `FileFacts`."""

    form: Form
    detail: str = ""
    advice: str = ""


def kind_of_file(head: bytes, path: str, *, is_one_line: Callable[[], bool]) -> FileKind:
    """What kind of file begins with these bytes, which are not blank. `is_one_line` tells whether it has one line only."""
    if not head:
        return FileKind("empty")
    for signature, form in _SIGNATURES:
        if head.startswith(signature):
            return (
                _encoded(head, path)
                if form == "utf-16"
                else FileKind(form, *(_archive(head, path) if form == "zip" else ()))
            )
    if other := not_data(head):
        return FileKind("other", *other)
    if head.count(b"\0") * 4 > len(head):
        narrow = head.startswith((b"{\0", b"[\0", b"\0{", b"\0["))
        return _encoded(head, path) if narrow else FileKind("binary")
    kind = _kind_of_text(head.decode("utf-8", "replace"), path, is_one_line)
    if kind.form == "table" and not is_utf8(head):  # what Excel saves as plain CSV
        return kind._replace(advice=kind.advice.replace(" out.jsonl", " out.jsonl --encoding cp1252", 1))
    return kind


def _is_encoded_twice(line: str) -> bool:
    """Whether a line is a text of JSON that holds JSON again."""
    return line.startswith(('"{\\"', '"[')) and line.endswith('"') and '\\"' in line


def is_utf8(head: bytes) -> bool:
    """Whether bytes are UTF-8, a character that is cut at their end aside."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _kind_of_text(text: str, path: str, is_one_line: Callable[[], bool]) -> FileKind:
    first, _, others = text.partition("\n")
    first = first.strip()
    if text.strip() == "[]":
        return FileKind("empty", "an empty list")
    if _is_encoded_twice(first):
        return FileKind("lines")
    if first.startswith("["):
        if not first.endswith("]"):
            return FileKind("array")
        # A line may be a list, which is a problem of that line: of messages, or one of several.
        examples = re.match(r'\[\s*\{(?!\s*"role")', first)
        return FileKind("array" if examples and not others.strip() else "lines")
    if first.startswith("{"):
        spreads = first == "{" or _spreads(text)
        if (key := key_of_examples(text)) is not None and (spreads or is_one_line()):
            return FileKind("wrapped", key)
        return FileKind("pretty" if spreads else "lines")
    delimiter = _delimiter(text, path)
    return (
        FileKind("table", _TITLES.get(delimiter, "CSV"), _advice(text, path, delimiter))
        if delimiter
        else FileKind("lines")
    )


def _encoded(head: bytes, path: str) -> FileKind:
    """UTF-16: what its text is decides what can be done."""
    big = head.startswith((b"\xfe\xff", b"\0"))
    text = head[: len(head) & ~1].decode("utf-16-be" if big else "utf-16-le", "replace").lstrip("\ufeff \t\r\n")
    inside = _kind_of_text(text, path, lambda: False)
    return FileKind("utf-16", inside.detail, inside.advice) if inside.form == "table" else FileKind("utf-16")


def _archive(head: bytes, path: str) -> tuple[str, str]:
    """What a zip archive is, and what to do with it."""
    if b"xl/w" in head or path.lower().endswith(".xlsx"):
        convert = f"`ftbridge convert {shlex.quote(path)} out.jsonl` reads it (pip install 'ftbridge[convert]')."
        return "an Excel workbook", convert
    return "a zip archive", "Unpack it, and lint the file in it."


def _spreads(text: str) -> bool:
    """Whether a JSON value begins on the first line and ends on a later one."""
    try:
        end = _DECODER.raw_decode(text)[1]
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:end]


# One object that holds the examples


def key_of_examples(text: str) -> str | None:
    """The key under which an object that begins here holds a list of examples; None where it does not."""
    return next((key for key, start in _lists(text) if _begins_with_example(text, start)), None)


def _lists(text: str) -> Iterator[tuple[str, int]]:
    """The members of an object that are lists of objects: each with where the first of these begins."""
    position = 1
    while member := _SEEN.match(text, position):
        key = member[1]
        if (begins := _LIST.match(text, member.end())) is not None:
            yield key, begins.end()
        try:
            end = _DECODER.raw_decode(text, member.end())[1]
        except (ValueError, RecursionError):
            return
        comma = _COMMA.match(text, end)
        if comma is None:
            return
        position = comma.end()


def _begins_with_example(text: str, start: int) -> bool:
    try:
        first = _DECODER.raw_decode(text, start)[0]
    except (ValueError, RecursionError):  # it is longer than what was read
        return bool(
            re.match(r'\{[ \t\r\n]*"(?:messages|conversations)"[ \t\r\n]*:[ \t\r\n]*\[', text[start : start + 200])
        )
    return is_example(first)


def is_example(value: object) -> bool:
    """Whether an object is one example, in any format that is known, rather than a message of one."""
    return isinstance(value, dict) and (kind_of_line(value) != "unknown" or detect_record(value) is not None)


# Tables

_TITLES = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "a table with | between its cells"}


def _delimiter(text: str, path: str) -> str:
    """What parts the cells of a table; empty where the text is none."""
    if named := _SEPARATOR.match(text):
        return named[1]
    lines = text.splitlines()
    candidates = [
        (len(rows[0]), delimiter) for delimiter in _TITLES if (rows := _rows(lines, delimiter)) and len(rows[0]) > 1
    ]
    columns, best = max(candidates, default=(0, ""))
    if not columns:
        return "," if path.lower().endswith(_TABLES) else ""
    if path.lower().endswith(_TABLES) or looks_like_table(lines[0]):
        return best
    rows = _rows(lines, best)
    return best if len(rows) > 2 and all(len(row) == columns for row in rows) else ""


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    complete = lines[:_ROWS] if len(lines) <= _ROWS else lines[: _ROWS + 1][:-1]
    try:
        return [row for row in csv.reader(io.StringIO("\n".join(complete)), delimiter=delimiter) if row]
    except csv.Error:
        return []


def _advice(text: str, path: str, delimiter: str) -> str:
    """How `ftbridge convert` reads this table."""
    rows = _rows(_SEPARATOR.sub("", text, count=1).splitlines(), delimiter)
    header, *values = rows or [[]]
    records = [dict(zip(header, row, strict=False)) for row in values if len(row) == len(header)]
    detection = detect_records(records or [dict.fromkeys(header, "x")])
    if detection is not None:
        return detection.hint(path)
    name = shlex.quote(path)
    return f"`ftbridge convert {name} out.jsonl` reads it, with --map prompt=COLUMN --map completion=COLUMN for its columns."
