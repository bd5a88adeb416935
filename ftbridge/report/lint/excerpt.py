"""A piece of a line with something underlined: cut to the terminal, aligned for wide characters, secrets masked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.cells import cell_len

from ftbridge.data.lint.findings import Finding
from ftbridge.data.lint.locate import locate

_LONGEST_MARK = 60
"""Cells an underline takes at most: what is wrong begins there, and the rest need not be shown."""


class Excerpt(NamedTuple):
    """A line of text, and where its underline begins and how long it is, in cells."""

    text: str
    start: int
    length: int


def excerpt(raw: bytes, finding: Finding, others: Iterable[Finding], width: int) -> Excerpt | None:
    """The part of a line that a finding is about, in at most `width` cells; None where there is nothing to show.

    Whatever any finding of the same line calls a secret is masked, whichever finding is shown.
    """
    text = raw.rstrip(b"\r\n").decode("utf-8", "replace")
    if not text.strip() or width < 20 or (not finding.field and not finding.span):
        return None
    for other in (finding, *others):
        if other.secret and other.line == finding.line:
            place = locate(text, other.field, other.span)
            text = f"{text[: place.start]}{'•' * (place.end - place.start)}{text[place.end :]}"
    place = locate(text, finding.field, finding.span)
    text = "".join(character if character.isprintable() else "·" for character in text)
    start, end = place.start, max(place.end, place.start + 1)
    if not place.exact or (end - start > _LONGEST_MARK and text[start : start + 1] in "[{"):
        end = start + 1
    return _fitted(text, start, end, width)


def _fitted(text: str, start: int, end: int, width: int) -> Excerpt:
    """Cut around the piece: a third of the width before it, the rest after it."""
    first = start
    room = min(width // 3, 40)
    while first > 0 and room >= cell_len(text[first - 1]):
        room -= cell_len(text[first - 1])
        first -= 1
    lead = "…" if first > 0 else ""
    shown, last = lead, first
    left = width - len(lead) - 1
    while last < len(text) and left >= cell_len(text[last]):
        left -= cell_len(text[last])
        last += 1
    shown += text[first:last] + ("…" if last < len(text) else "")
    mark = cell_len(lead + text[first:start])
    return Excerpt(shown, mark, max(1, min(cell_len(text[start : min(end, last)]), _LONGEST_MARK)))
