"""Tables for other programs: CSV, Markdown, JUnit. Each escapes what its readers would take for more than text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from ftbridge.errors import UsageError
from ftbridge.files import write_text
from ftbridge.report.terminal.console import printable

Shape = Literal["text", "csv", "junit", "markdown", "json"]
SHAPES: tuple[Shape, ...] = ("text", "csv", "junit", "markdown", "json")

Cell = str | float | None
_FORMULA = re.compile(
    r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]|[\t\r\n]"
)
"""How a cell begins that a spreadsheet reckons out instead of showing it (OWASP, CSV injection): also behind space and marks
that are not seen, and in wide forms."""
_PARTS = frozenset(',;"\t\r\n')
"""What parts cells, in some country's spreadsheet at least: a cell with one of them stands in quotes."""
_MARKUP = re.compile(r"([\\`*\[\]<>|])")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, section 2.2."""


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Comma-separated lines (RFC 4180, ended by a line feed); text that a spreadsheet would reckon out gets an apostrophe in
    front, numbers stay numbers.
    """
    return "".join(f"{','.join(map(_cell, row))}\n" for row in [heads, *rows])


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text; bars, line ends and markup in cells are escaped. Cells that are markup already come as `Markdown`."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(markdown_text, line))} |\n" for line in lines)


class Markdown(str):
    """Markup on purpose."""

    __slots__ = ()


def markdown_text(text: str) -> str:
    """One line in which nothing is markup."""
    return text if isinstance(text, Markdown) else _MARKUP.sub(r"\\\1", printable(" ".join(text.split())))


def junit_text(name: str, classname: str, cases: Sequence[tuple[str, str | None]]) -> str:
    """A test suite: names of cases, and why each failed, None for those that passed."""
    failed = sum(why is not None for _, why in cases)
    suite = ElementTree.Element("testsuite", name=_xml(name), tests=str(len(cases)), failures=str(failed))
    for case, why in cases:
        testcase = ElementTree.SubElement(suite, "testcase", classname=classname, name=_xml(case))
        if why is not None:
            ElementTree.SubElement(testcase, "failure", message=_xml(why))
    return ElementTree.tostring(suite, encoding="unicode") + "\n"


def write_output(path: Path, text: str) -> None:
    """Write a file that somebody named. Raises `UsageError` for a folder or a place that cannot be written, and `DiskFull`."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", hint="Name a file in it.")
    try:
        write_text(path, text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}.", hint="Name another file.") from None


def _cell(cell: Cell) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    text = printable(f"'{cell}" if _FORMULA.match(cell) else cell)
    return '"' + text.replace('"', '""') + '"' if _PARTS & set(text) else text


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
