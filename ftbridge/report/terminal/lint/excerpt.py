"""A piece of a line with something underlined: cut to the terminal, aligned for wide characters, secrets masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.cells import cell_len

from ftbridge.data.lint.findings import Finding
from ftbridge.data.lint.locate import Place, locate
from ftbridge.data.lint.rule import Context
from ftbridge.data.lint.rules import RULES

MASK = "•"

_LONGEST_MARK = 60
"""Cells an underline takes at most: what is wrong begins there, and the rest need not be shown."""

_AROUND = 20_000
"""Characters on both sides of a piece that are searched for secrets; none is longer (see `safety`)."""

_SEARCHES = 50
"""A rule tells a text's first secrets only, so what is left after masking them is searched again."""


class Excerpt(NamedTuple):
    """A line of text, and where its underline begins and how long it is, in cells."""

    text: str
    start: int
    length: int


def excerpt(raw: bytes, finding: Finding, findings_of_line: Iterable[Finding], width: int) -> Excerpt | None:
    """The part of a line that a finding is about, in at most `width` cells; None where there is nothing to show.

    Secrets and personal data are masked, whichever rules were asked for: those in `known`, which are findings of this
    line, and whatever else the rules of safety find near the piece.
    """
    text = raw.rstrip(b"\r\n").decode("utf-8", "replace")
    if not text.strip() or width < 12 or (not finding.field and not finding.span):
        return None
    located = locate(text, finding.field, finding.span)
    for other in (finding, *findings_of_line):
        if other.secret:
            text = _hidden(text, locate(text, other.field, other.span))
    text, located = _near(text, located)
    text = masked(text)
    text = "".join(character if character.isprintable() else "·" for character in text)
    start, end = located.start, max(located.end, located.start + 1)
    if not located.exact or (end - start > _LONGEST_MARK and text[start : start + 1] in "[{"):
        end = start + 1
    return _fitted(text, start, end, width)


def masked(text: str) -> str:
    """The text, of the same length, with every secret and all personal data that the rules of safety find hidden."""
    for _ in range(_SEARCHES):
        places = list(_secrets(text))
        if not places:
            break
        for start, end in places:
            text = text.replace(text[start:end], MASK * (end - start))
    return text


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    for code, rule in RULES.items():
        if code.startswith("FTB4") and rule.kind == "text":
            for problem in rule.check(text, Context()):
                if problem.secret and problem.span and text[slice(*problem.span)].strip(MASK):
                    yield problem.span


def _hidden(text: str, located: Place) -> str:
    return f"{text[: located.start]}{MASK * (located.end - located.start)}{text[located.end :]}"


def _near(text: str, located: Place) -> tuple[str, Place]:
    """The text around a piece, so that a long line costs no more than a short one."""
    first = max(0, located.start - _AROUND)
    near = text[first : located.start + 2 * _AROUND]
    return near, Place(located.start - first, min(located.end - first, len(near)), located.exact)


def _fitted(text: str, start: int, end: int, width: int) -> Excerpt:
    """Cut around the piece: a third of the width before it, the rest after it."""
    first = start
    room = min(width // 3, 40)
    while first > 0 and room >= cell_len(text[first - 1]):
        room -= cell_len(text[first - 1])
        first -= 1
    lead = "…" if first > 0 else ""
    last, left = first, width - len(lead) - 1
    while last < len(text) and left >= cell_len(text[last]):
        left -= cell_len(text[last])
        last += 1
    shown = lead + text[first:last] + ("…" if last < len(text) else "")
    mark = cell_len(lead + text[first:start])
    return Excerpt(shown, mark, max(1, min(cell_len(text[start : min(end, last)]), _LONGEST_MARK)))
