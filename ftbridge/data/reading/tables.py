"""CSV and TSV, as RFC 4180 has them, with the line each row begins on.

A cell is text, and an empty cell is a field that is absent. Cells hold JSON in the columns that always have structure
(messages, tools, …), in those the caller names, and where a prompt or answer is a list of messages.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import IO, Any, BinaryIO

from ftbridge.data.reading.json_text import BOM, Unreadable, parse
from ftbridge.errors import UsageError

STRUCTURED = frozenset(
    {"messages", "conversations", "tools", "functions", "parallel_tool_calls", "history"}
    | {"preferred_output", "non_preferred_output", "choices", "contents", "images"}
)  # fmt: skip
"""Columns whose cells always hold JSON; so do those of `input` beside preferred_output."""

_PERHAPS_MESSAGES = frozenset({"prompt", "completion", "chosen", "rejected"})
_LONGEST_CELL = 64 << 20
_NO_NUL = sys.version_info < (3, 11)  # its csv module refuses NUL
_BROKEN = re.compile("[\udc80-\udcff]")
_SEPARATOR = re.compile(rb"sep=([,;|\t])\s*\Z", re.IGNORECASE)
_ENCODING_HINT = (
    "Excel's plain CSV is in the Windows code page: `ftbridge convert … --encoding cp1252` reads it; or save it as "
    "CSV UTF-8 (File, Save As)."
)
_DELIMITERS = (",", "\t", ";", "|")


def read_table(
    stream: BinaryIO, delimiter: str | None = None, parsed: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """Each row as a record, or what is wrong with it. `parsed` names columns whose cells are JSON.

    Without `delimiter` it is the one of comma, tab, semicolon and bar that the header has most of, or that a first line
    `sep=;` names, as Excel reads it. A row that is broken does not spoil the rows after it; one of empty cells is passed over.
    Raises `UsageError` for a header that names a column twice, and for a column in `parsed` that is not there.
    """
    csv.field_size_limit(_LONGEST_CELL)
    first = stream.readline().removeprefix(BOM)
    before = 0
    if separator := _SEPARATOR.match(first):
        delimiter = delimiter or separator[1].decode("ascii", "replace")
        first, before = stream.readline(), 1
    seen = _Lines(first, stream)
    rows = csv.reader(seen, delimiter=delimiter or _delimiter(first), strict=True)
    yield from records_of(_numbered(rows, seen, before), parsed)


def records_of(
    rows: Iterable[tuple[int, list[str] | Unreadable]], parsed: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """Rows of texts, each with its line, as records; the first that is not empty is the header. Raises as `read_table`."""
    header: list[str] = []
    structured: set[str] = set()
    for line, cells in rows:
        if isinstance(cells, Unreadable):
            yield line, cells
        elif not any(cell.strip() for cell in cells):
            continue
        elif not header:
            header = [cell.strip() for cell in cells]
            _check_header(header, parsed)
            structured = {*STRUCTURED, *parsed} | ({"input"} if "preferred_output" in header else set())
        else:
            yield line, _row(header, cells, structured, parsed)


def _numbered(rows: Any, seen: _Lines, before: int) -> Iterator[tuple[int, list[str] | Unreadable]]:
    while True:
        line = rows.line_num + 1 + before
        try:
            yield line, next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _csv_problem(error, seen.last)


def with_json_read(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the JSON in its texts read, where a field of that name always has structure, or holds messages.

    TRL and `datasets` keep tools and messages as JSON text. What is not JSON stays text, to be refused by its reader.
    """
    changed = {}
    for name, value in record.items():
        if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
            continue
        if name in STRUCTURED:
            try:
                changed[name] = parse(value)
            except ValueError:
                continue
        elif name in _PERHAPS_MESSAGES and (messages := _messages(value)) is not None:
            changed[name] = messages
    return {**record, **changed} if changed else record


def write_table(
    target: IO[bytes], delimiter: str, records: Iterator[dict[str, Any]], columns: Mapping[str, bool]
) -> None:
    """Write records under a header. `columns` gives every field in order, and whether its cells are JSON."""
    text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
    # Python quotes a carriage return only when it ends rows, so everything is quoted.
    rows = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    rows.writerow(columns)
    for record in records:
        rows.writerow([_cell_of(record[name], as_json) if name in record else "" for name, as_json in columns.items()])
    text.flush()
    text.detach()


def plain(name: str, value: object) -> bool:
    """Whether a cell of this column gives the value back without being parsed as JSON by name."""
    if name in STRUCTURED:
        return isinstance(value, (list, dict, bool))
    if not isinstance(value, str) or not value or (_NO_NUL and "\0" in value):
        return name == "input" and (value == "" or isinstance(value, dict))
    return not (name in _PERHAPS_MESSAGES and _messages(value) is not None)


def _row(
    header: list[str], cells: list[str], structured: set[str], parsed: Collection[str]
) -> dict[str, Any] | Unreadable:
    if len(cells) != len(header):
        return Unreadable(f"has {len(cells)} cells; the header has {len(header)} columns.")
    record: dict[str, Any] = {}
    for number, (name, cell) in enumerate(zip(header, cells, strict=True)):
        if not cell:
            continue
        if not cell.isascii() and _BROKEN.search(cell):
            return Unreadable(f"{name} is not UTF-8.", hint=_ENCODING_HINT)
        if not name and (number or not cell.strip().isdigit()):
            return Unreadable(
                f"has a value in a column without a name, its {number + 1}.", hint="Name the column, or remove it."
            )
        try:
            record[name] = _value(name, cell, structured, parsed)
        except ValueError as error:
            reason = str(error) if isinstance(error, Unreadable) else f"is not valid JSON ({error})."
            hint = (
                " It looks like Python's notation; write it with json.dumps." if cell.startswith(("[{'", "{'")) else ""
            )
            return Unreadable(f"{name} {reason}{hint}")
    return record


def _value(name: str, cell: str, structured: set[str], parsed: Collection[str]) -> Any:
    if name in parsed or (name in structured and cell.lstrip()[:1] in ("[", "{", "t", "f")):
        return parse(cell)
    if name in _PERHAPS_MESSAGES and (messages := _messages(cell)) is not None:
        return messages
    return cell


def _messages(cell: str) -> list[Any] | None:
    """A cell as the list of messages that it is; None for text."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        parsed = parse(cell)
    except ValueError:
        return None
    is_list = isinstance(parsed, list) and bool(parsed)
    return parsed if is_list and all(isinstance(one, dict) and "role" in one for one in parsed) else None  # type: ignore[return-value,attr-defined]


def _cell_of(value: object, as_json: bool) -> str:
    if isinstance(value, str) and not as_json:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _Lines:
    """Lines as text; bytes that are not UTF-8 become lone surrogates, so that only their row is lost."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self.last = ""
        self._first: bytes | None = first
        self._stream = stream

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(_LONGEST_CELL) if self._first is None else self._first
        self._first = None
        if not raw:
            raise StopIteration
        self.last = raw.decode("utf-8", "surrogateescape")
        return self.last


def _delimiter(first: bytes) -> str:
    header = first.decode("utf-8", "replace")
    return max(_DELIMITERS, key=lambda one: (header.count(one), -_DELIMITERS.index(one)))


def _check_header(header: list[str], parsed: Collection[str]) -> None:
    if twice := next((name for name in header if header.count(name) > 1 and name), None):
        raise UsageError(f"the header names the column {twice} twice.", hint="Each column needs a name of its own.")
    if missing := next((name for name in parsed if name not in header), None):
        raise UsageError(f"there is no column {missing}.", hint=f"The columns are {', '.join(header[:20])}.")


def _csv_problem(error: csv.Error, line: str) -> Unreadable:
    text = str(error)
    if "expected after" in text and '\\"' in line:
        return Unreadable(
            'cannot be read: its quotes are escaped with backslashes (\\"); in CSV a quote is doubled ("").',
            hint='Write the file again with quotes doubled (pandas: to_csv without escapechar), or replace \\" by "".',
        )
    return Unreadable(_csv_words(text))


def _csv_words(text: str) -> str:
    if "unexpected end of data" in text:
        return "cannot be read: a quote that opens in this row is never closed."
    if "new-line" in text:
        return "cannot be read: it has a carriage return outside quotes; rows end with a line feed."
    if "field limit" in text:
        return "cannot be read: a cell is longer than 64 MB; perhaps a quote is never closed."
    return f"cannot be read: {text}."
