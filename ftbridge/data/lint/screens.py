r"""Screens of text rules: a fast look at the raw bytes of many lines, to see where a rule may find something at all.

A screen never misses: what a rule finds in a text, its screen finds in the text's JSON. It may well find too much. Screens
work on JSON as written, so a character outside ASCII may stand as UTF-8 or as \u escape, a slash as `/` or `\/`, and a
letter before a match may belong to an escape (`\n4111` is a new line, then digits). Escapes of ASCII need no thought: the
lines that have any are read by every rule.

`bytes.find` and patterns that begin with a literal pass over 1 MB in about half a millisecond; patterns that begin with a
class or with alternatives take 10 ms and more. So classes of characters are found by a *picture*: the bytes with every
digit replaced by `0` and every capital by `A`, in which "000-00-0000" is a plain search.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

LONG_RUN = 20
"""Letters, digits, `_` and `-` in a row that make a long run; words of most languages are shorter, keys are longer."""

_CAPITALS, _DIGITS = range(0x41, 0x5B), range(0x30, 0x3A)
_PICTURE = bytes(0x41 if c in _CAPITALS else 0x30 if c in _DIGITS else c for c in range(256))
_WORDS = bytes(0x77 if chr(c).isascii() and (chr(c).isalnum() or chr(c) in "_-") else 0x20 for c in range(256))
_RUN = re.compile(rb"w+")
_ZEROS = re.compile(rb"0+")
_LONGEST_KEY = 400
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")
_SURROGATES = re.compile(rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F])?|[c-fC-F])")


class RawLines:
    """Raw bytes of whole lines, with what several screens want to know of them."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def picture(self) -> bytes:
        """The bytes with digits as `0` and capitals as `A`; positions are the same."""
        return self.raw.translate(_PICTURE)

    @cached_property
    def is_ascii(self) -> bool:
        """Whether no character stands as UTF-8 of several bytes."""
        return self.raw.isascii()

    @cached_property
    def escapes(self) -> set[bytes]:
        """The four digits of every escape, each once."""
        return set(_ESCAPE.findall(self.raw))

    @cached_property
    def long_runs(self) -> list[tuple[int, int]]:
        """Where words of at least LONG_RUN letters, digits, `_` and `-` begin and end."""
        words, needle, runs = self.raw.translate(_WORDS), b"w" * LONG_RUN, []
        start = words.find(needle)
        while start >= 0:
            end = _RUN.match(words, start).end()  # type: ignore[union-attr]
            runs.append((start, end))
            start = words.find(needle, end)
        return runs


Screen = Callable[[RawLines], Iterable[int]]
"""Positions in the raw bytes, in order for each thing looked for; one a line is enough."""


def any_of(*screens: Screen) -> Screen:
    """What any of these finds."""

    def starts(piece: RawLines) -> Iterator[int]:
        for screen in screens:
            yield from screen(piece)

    return starts


def pattern(begins_with_a_literal: bytes) -> Screen:
    """A regular expression on the raw bytes; to be fast it begins with a literal."""
    compiled = re.compile(begins_with_a_literal)

    def starts(piece: RawLines) -> Iterator[int]:
        return (match.start() for match in compiled.finditer(piece.raw))

    return starts


def drawn(*pictures: bytes, confirmed: bytes = b"") -> Screen:
    """Literals in the picture: `00-00` for digits, `AA00` for two capitals and two digits.

    `confirmed` is a pattern that the raw bytes must match there.
    """
    compiled = re.compile(confirmed)

    def starts(piece: RawLines) -> Iterator[int]:
        for wanted in pictures:
            position = piece.picture.find(wanted)
            while position >= 0:
                step = 1
                if compiled.match(piece.raw, position):
                    yield position
                    step = len(wanted)
                position = piece.picture.find(wanted, position + step)

    return starts


def characters(utf8: bytes, escapes: bytes) -> Screen:
    """Characters outside ASCII: a pattern for their UTF-8, and one for the four digits of their escape."""
    encoded, digits = re.compile(utf8), re.compile(rb"(?i:" + escapes + rb")")
    escaped = re.compile(rb"\\u" + digits.pattern)

    def starts(piece: RawLines) -> Iterator[int]:
        if not piece.is_ascii:
            yield from (match.start() for match in encoded.finditer(piece.raw))
        if any(map(digits.match, piece.escapes)):
            yield from (match.start() for match in escaped.finditer(piece.raw))

    return starts


def digit_runs(least: int, most: int) -> Screen:
    """Digits in a row, not behind a decimal point; an escape before them may add up to four."""

    def starts(piece: RawLines) -> Iterator[int]:
        needle = b"0" * least
        start = piece.picture.find(needle)
        while start >= 0:
            end = _ZEROS.match(piece.picture, start).end()  # type: ignore[union-attr]
            if end - start <= most + 4 and piece.raw[start - 1 : start] != b".":
                yield start
            start = piece.picture.find(needle, end)

    return starts


def in_long_runs(wanted: bytes, hints: Sequence[bytes], *, before: int = 16, after: int = 64) -> Screen:
    """A pattern in long runs of letters and digits, and a few bytes around them; it need not begin with a literal.

    Every match holds one of the literals in `hints`, within its first `before` bytes, and is at most _LONGEST_KEY bytes long.
    They are searched first, because a pattern of many alternatives is slow; one by one where runs are many, as in pictures
    in base64.
    """
    compiled, hint = re.compile(wanted), re.compile(b"|".join(map(re.escape, hints)))

    def hits(piece: RawLines) -> Iterator[int]:
        if 4 * sum(end - start for start, end in piece.long_runs) > len(piece.raw):
            for literal in hints:
                yield from _places(piece.raw, literal)
            return
        for start, end in piece.long_runs:
            yield from (match.start() for match in hint.finditer(piece.raw, max(0, start - before), end + after))

    def starts(piece: RawLines) -> Iterator[int]:
        for hit in hits(piece):
            if compiled.search(piece.raw, max(0, hit - before), hit + _LONGEST_KEY):
                yield hit

    return starts


def _places(raw: bytes, literal: bytes) -> Iterator[int]:
    position = raw.find(literal)
    while position >= 0:
        yield position
        position = raw.find(literal, position + 1)


def lone_surrogates(piece: RawLines) -> Iterator[int]:
    """Escapes of half a character, without the other half."""
    if not any(digits[:1] in b"dD" for digits in piece.escapes):
        return
    for match in _SURROGATES.finditer(piece.raw):
        # A backslash before it may make the first half plain text, and the second half a lone one.
        if not match[1] or piece.raw[match.start() - 1 : match.start()] == b"\\":
            yield match.start()
