"""The examples of a file that is JSON, but not JSON Lines: an array, objects over several lines, or one object with a list.

Each is given as it is written, on one line: numbers and escapes keep their spelling. The text is read whole.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ftbridge.data.json_slips import repaired_text
from ftbridge.data.lint.forms import is_example, key_of_examples
from ftbridge.data.lint.meaning import are_tags
from ftbridge.data.lint.source import Chunk, FileFacts, Source

LARGEST = 1 << 30
"""Bytes of a file beyond which it is not read whole."""

_ACROSS_LINES = re.compile(r"(,?)[ \t\r]*\n[ \t\r\n]*")
"""White space that holds a line feed. JSON's strings hold none, so it stands between tokens."""

_TEXT = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds where a value ends; what its numbers are does not matter."""


class Unspreadable(ValueError):
    """A file whose examples cannot be told apart; the text says why."""


@dataclass(frozen=True)
class SpreadLines:
    """The examples, each on one line, and the line of the file on which each begins; what was fixed on the way."""

    values: list[bytes]
    lines: list[int]
    did: str = ""

    @property
    def numbers(self) -> list[int]:
        """How findings name the examples: by their lines, or counted from 1 where several begin on one line."""
        return distinct_numbers(self.lines)


def distinct_numbers(lines: list[int]) -> list[int]:
    """The lines on which records begin, or their count from 1 where several begin on one line."""
    apart = all(later > earlier for earlier, later in itertools.pairwise(lines))
    return lines if apart else list(range(1, len(lines) + 1))


class _Place(NamedTuple):
    start: int
    end: int


def spread(source: Source, facts: FileFacts) -> SpreadLines:
    """The examples of a file of form array, pretty, wrapped or utf-16. Raises `Unspreadable`."""
    if facts.bytes > LARGEST:
        raise Unspreadable("the file is too large to be read at once")
    raw = source.read(Chunk(0, facts.bytes))
    try:
        text = raw.decode(_encoding(raw) if facts.form == "utf-16" else "utf-8-sig")
        return _spread(text, wrapped=facts.form == "wrapped" or (facts.form == "utf-16" and _is_wrapped(text)))
    except UnicodeDecodeError as error:
        raise Unspreadable(f"byte {error.start + 1:,} is not {error.encoding}") from None
    except (ValueError, RecursionError) as error:
        raise Unspreadable(str(error) or "it is nested too deeply") from None


def _encoding(raw: bytes) -> str:
    """UTF-16 without a mark says by its zeros which byte comes first."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-16-be" if raw.startswith(b"\0") else "utf-16-le"


def _is_wrapped(text: str) -> bool:
    start = _blank_end(text, 0)
    if not text.startswith("{", start) or key_of_examples(text[start : start + (1 << 16)]) is None:
        return False
    return _blank_end(text, _TEXT.raw_decode(text, start)[1]) == len(text)


def _spread(text: str, *, wrapped: bool) -> SpreadLines:
    try:
        places = list(_places(text, wrapped))
        did = ""
    except (ValueError, RecursionError):
        repaired = repaired_text(text)
        if repaired is None or repaired.text is None:
            raise
        text, did = repaired.text, repaired.did
        places = list(_places(text, wrapped))
    lines, line, seen = [], 1, 0
    for position in places:
        line += text.count("\n", seen, position.start)
        seen = position.start
        lines.append(line)
    values = [_ACROSS_LINES.sub(_joined, text[position.start : position.end]).encode() for position in places]
    return SpreadLines(values, lines, did)


def _places(text: str, wrapped: bool) -> Iterator[_Place]:
    start = _blank_end(text, 0)
    if wrapped:
        yield from _members(text, start)
    elif text.startswith("[", start):
        end = yield from _elements(text, start)
        if _blank_end(text, end) < len(text):
            raise ValueError(f"the array ends at character {end:,}, but the file continues")
    else:
        while start < len(text):
            end = _TEXT.raw_decode(text, start)[1]
            yield _Place(start, end)
            start = _blank_end(text, end)
            start = _blank_end(text, start + 1) if text.startswith(",", start) else start


def _elements(text: str, start: int) -> Generator[_Place, None, int]:
    """The elements of the array that begins at `start`; returns where it ends."""
    position = _blank_end(text, start + 1)
    while position < len(text) and text[position] != "]":
        end = _TEXT.raw_decode(text, position)[1]
        yield _Place(position, end)
        position = _blank_end(text, end)
        if text.startswith(",", position):
            position = _blank_end(text, position + 1)
        elif not text.startswith("]", position):
            raise ValueError(f"the array has no comma or end at character {position + 1:,}")
    if position >= len(text):
        raise ValueError("the array has no end")
    return position + 1


def _members(text: str, start: int) -> Iterator[_Place]:
    """The elements of the one list of examples in an object, if nothing beside it may mean something."""
    document, end = json.JSONDecoder().raw_decode(text, start)
    if _blank_end(text, end) < len(text):
        raise ValueError(f"the object ends at character {end:,}, but the file continues")
    keys = [key for key, value in document.items() if isinstance(value, list) and value and is_example(value[0])]
    others = {key: value for key, value in document.items() if key not in keys}
    if len(keys) != 1:
        raise ValueError(f"it has examples under {' and '.join(keys)}; write each list to a separate file")
    if not are_tags(others):
        raise ValueError(f"beside the examples it has {', '.join(others)}, which may apply to all of them")
    yield from _elements(text, _member(text, start, keys[0]))


def _member(text: str, start: int, wanted: str) -> int:
    """Where the value of a key of an object begins."""
    position = _blank_end(text, start + 1)
    while True:
        key, end = _TEXT.raw_decode(text, position)
        position = _blank_end(text, _blank_end(text, end) + 1)
        if key == wanted:
            return position
        position = _blank_end(text, _TEXT.raw_decode(text, position)[1])
        position = _blank_end(text, position + 1)


def _blank_end(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _joined(gap: re.Match[str]) -> str:
    return ", " if gap[1] else ""
