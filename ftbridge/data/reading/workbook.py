"""Excel workbooks (.xlsx): the rows of their one sheet, cell by cell as text, through openpyxl."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any, BinaryIO

from ftbridge.data.reading.json_text import Unreadable
from ftbridge.errors import MissingDependency, UsageError


def workbook_rows(stream: BinaryIO, name: str) -> Iterator[tuple[int, list[str] | Unreadable]]:
    """Each row of the sheet that has rows, with its number, as texts. Formulas are read as their last value.

    Raises `UsageError` for several sheets with rows, of which one must be saved alone, and `MissingDependency`.
    """
    try:
        import openpyxl
    except ImportError:
        raise MissingDependency(
            "Excel workbooks need openpyxl.",
            hint="pip install 'ftbridge[convert]'; or save the sheet in Excel as CSV UTF-8 (File, Save As).",
        ) from None
    try:
        workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises many kinds for files that only look like a workbook
        raise UsageError(
            f"{name}: cannot be read as an Excel workbook ({error}).",
            hint="Save the sheet as CSV UTF-8, and convert that.",
        ) from None
    filled = [
        sheet for sheet in workbook.worksheets if any(any(row) for row in sheet.iter_rows(max_row=50, values_only=True))
    ]
    if len(filled) > 1:
        names = ", ".join(sheet.title for sheet in filled)
        raise UsageError(
            f"{name} has {len(filled)} sheets with rows: {names}.", hint="Save the sheet to read as a separate file."
        )
    for sheet in filled:
        for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
            yield number, [_text(value) for value in row]


def _text(value: Any) -> str:
    """A cell as a CSV would have it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
