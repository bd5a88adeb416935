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
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any, BinaryIO

from ftbridge.data.convert.json_text import BOM, Unreadable, parse
from ftbridge.errors import UsageError

STRUCTURED = frozenset(
    {"messages", "conversations", "tools", "functions", "parallel_tool_calls", "history"}
    | {"preferred_output", "non_preferred_output"}
)  # fmt: skip
"""Columns whose cells always hold JSON; so do those of `input` beside preferred_output."""

_PERHAPS_MESSAGES = frozenset({"prompt", "completion", "chosen", "rejected"})
_LONGEST_CELL = 64 << 20
_NO_NUL = sys.version_info < (3, 11)  # its csv module refuses NUL
_BROKEN = re.compile("[\udc80-\udcff]")
_DELIMITERS = (",", "\t", ";", "|")


def read_table(
    stream: BinaryIO, delimiter: str | None = None, parsed: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """Each row as a record, or what is wrong with it. `parsed` names columns whose cells are JSON.

    Without `delimiter` it is the one of comma, tab, semicolon and bar that the header has most of. A row that is broken does
    not spoil the rows after it. Raises `UsageError` for a header that names a column twice, or not at all, and for a column
    in `parsed` that is not there.
    """
    csv.field_size_limit(_LONGEST_CELL)
    first = stream.readline().removeprefix(BOM)
    rows = csv.reader(_texts(first, stream), delimiter=delimiter or _delimiter(first), strict=True)
    header: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, Unreadable(_csv_problem(error))
            continue
        if not cells:
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            _check_header(header, parsed)
            structured = {*STRUCTURED, *parsed} | ({"input"} if "preferred_output" in header else set())
        else:
            yield line, _row(header, cells, structured, parsed)


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
    for name, cell in zip(header, cells, strict=True):
        if not cell:
            continue
        if not cell.isascii() and _BROKEN.search(cell):
            return Unreadable(f"{name} is not UTF-8.")
        try:
            record[name] = _value(name, cell, structured, parsed)
        except ValueError as error:
            told = str(error) if isinstance(error, Unreadable) else f"is not valid JSON ({error})."
            hint = (
                " It looks like Python's notation; write it with json.dumps." if cell.startswith(("[{'", "{'")) else ""
            )
            return Unreadable(f"{name} {told}{hint}")
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
        found = parse(cell)
    except ValueError:
        return None
    is_list = isinstance(found, list) and bool(found)
    return found if is_list and all(isinstance(one, dict) and "role" in one for one in found) else None  # type: ignore[return-value,attr-defined]


def _cell_of(value: object, as_json: bool) -> str:
    if isinstance(value, str) and not as_json:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _texts(first: bytes, stream: BinaryIO) -> Iterator[str]:
    """Lines as text; bytes that are not UTF-8 become lone surrogates, so that only their row is lost."""
    yield first.decode("utf-8", "surrogateescape")
    while raw := stream.readline(_LONGEST_CELL):
        yield raw.decode("utf-8", "surrogateescape")


def _delimiter(first: bytes) -> str:
    header = first.decode("utf-8", "replace")
    return max(_DELIMITERS, key=lambda one: (header.count(one), -_DELIMITERS.index(one)))


def _check_header(header: list[str], parsed: Collection[str]) -> None:
    if twice := next((name for name in header if header.count(name) > 1 and name), None):
        raise UsageError(f"the header names the column {twice} twice.", hint="Each column needs a name of its own.")
    if "" in header:
        where = header.index("") + 1
        raise UsageError(f"the header has a column without a name, its {where}.", hint="Name it, or remove the column.")
    if missing := next((name for name in parsed if name not in header), None):
        raise UsageError(f"there is no column {missing}.", hint=f"The columns are {', '.join(header[:20])}.")


def _csv_problem(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "cannot be read: a quote that opens in this row is never closed."
    if "new-line" in text:
        return "cannot be read: it has a carriage return outside quotes; rows end with a line feed."
    if "field limit" in text:
        return "cannot be read: a cell is longer than 64 MB; perhaps a quote is never closed."
    return f"cannot be read: {text}."
