"""JSON Lines and JSON arrays, one document at a time, strictly (RFC 8259), with the line each begins on.

Memory is that of one document. The standard library's parser is used on a window that grows: event parsers such as ijson
report no line numbers, and merge keys that appear twice in one object.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

from ftbridge.strict_json import STRICT, DuplicateKey, NotANumber

BOM = b"\xef\xbb\xbf"
LONGEST = 256 << 20
"""Bytes of one document beyond which it is not read; no service takes such an example."""

_BLOCK = 1 << 20
_TRUNCATED = " The text ends there: the file looks truncated."


class Unreadable(ValueError):
    """A line, row or element that contains no usable JSON; the text says why, and `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


Document = tuple[int, object]
"""A line number from 1, and a parsed document or an `Unreadable`."""


def read_lines(stream: BinaryIO) -> Iterator[Document]:
    """Each line's document, blank lines aside. Only a line feed ends a line: a text may hold U+2028."""
    number = 0
    while raw := stream.readline(LONGEST):
        number += 1
        raw = raw.removeprefix(BOM) if number == 1 else raw
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            yield number, Unreadable(f"is longer than {LONGEST >> 20} MB.")
            while (more := stream.readline(_BLOCK)) and not more.endswith(b"\n"):
                pass
        elif raw.strip():
            yield number, _line(raw)


def read_array(stream: BinaryIO) -> Iterator[Document]:
    """Each element of one JSON array, with the line it begins on. JSON that is broken ends the reading."""
    window = _Window(stream)
    if window.next() != "[":
        yield window.line, window.problem or Unreadable("is not a JSON array; format json is a list of examples.")
        return
    window.step()
    try:
        while (first := window.next()) != "]" or window.comma:
            if first == "]":
                yield window.comma, Unreadable("is not valid JSON: a comma before the end of the array.")
                return
            line = window.line
            yield line, window.document()
            window.separator()
    except json.JSONDecodeError as error:
        yield window.describe(error)
        return
    except (Unreadable, RecursionError) as error:
        yield window.line, error if isinstance(error, Unreadable) else Unreadable("is nested too deeply.")
        return
    window.step()
    if window.next():
        yield window.line, Unreadable("continues after the end of the JSON array.")


def parse(text: str) -> object:
    """One JSON document. Raises `Unreadable` for keys that appear twice, NaN, infinities and depth; `JSONDecodeError`."""
    try:
        return STRICT.decode(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise _refusal(error) from None


def _refusal(error: Exception) -> Unreadable:
    """Why a document that is JSON by its grammar is not used."""
    match error:
        case DuplicateKey():
            return Unreadable(f'has the key "{error.key}" twice in one object; only one of the two could be used.')
        case NotANumber():
            return Unreadable(f"holds {error.written}, which is not a number in JSON.")
        case RecursionError():
            return Unreadable("is nested too deeply.")
        case _:
            return Unreadable(str(error))


def _line(raw: bytes) -> object:
    ended = raw.endswith(b"\n")
    try:
        return parse(raw.rstrip().decode())
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data" and not ended
        return Unreadable(f"{_not_utf8(error.start + 1, raw[error.start])}{_TRUNCATED if cut else ''}")
    except json.JSONDecodeError as error:
        wrong = f"{_wrong(error, error.colno)}{_TRUNCATED if _is_cut(error) and not ended else ''}"
        return _slipped(raw.rstrip().decode()) or Unreadable(wrong)
    except Unreadable as error:
        return error


def _slipped(text: str) -> Unreadable | None:
    """What a slip that is known by its name has made of a line; None for other faults."""
    from ftbridge.data.json_slips import AFTER, repaired_text  # needed for broken lines alone

    repaired = repaired_text(text)
    if repaired is None or (repaired.text is None and {slip.what for slip in repaired.slips} == {AFTER}):
        return None
    whats = " and ".join(slip.what for slip in repaired.slips)
    fix_hint = "`ftbridge lint FILE --fix OUT` fixes it." if repaired.text is not None else repaired.hint
    return Unreadable(f"is not valid JSON at column {repaired.slips[0].start + 1}: it has {whats}.", hint=fix_hint)


class _Window:
    """The part of a text that is in memory: `text` from `at` on is not read yet; `line` is that of `at`."""

    def __init__(self, stream: BinaryIO) -> None:
        self.text, self.at, self.line = "", 0, 1
        self.problem: Unreadable | None = None
        """What ends the text early, told when everything before it was read."""
        self.comma = 0
        """The line of the comma just passed, or 0."""
        self._stream, self._ended, self._first = stream, False, True
        self._column = 0  # characters of the current line that are no longer in memory
        self._pending = b""
        self._feeds, self._since_feed = 0, 0  # line feeds decoded so far, and bytes since the last
        self._problem_line = 0

    def next(self) -> str:
        """The next character that is not white space, after moving to it; empty at the end."""
        while True:
            start = self.at
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            self.line += self.text.count("\n", start, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                self.line = self._problem_line or self.line
                return ""

    def step(self) -> None:
        """Pass over one character."""
        self.at += 1

    def document(self) -> object:
        """The document that begins here, or why it is none an example may hold; moves behind it."""
        while True:
            parsed: object
            try:
                try:
                    parsed, end = STRICT.raw_decode(self.text, self.at)
                except (NotANumber, DuplicateKey) as error:  # valid JSON otherwise: pass over it and go on
                    parsed, end = _refusal(error), _LENIENT.raw_decode(self.text, self.at)[1]
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self.text) - 12 or error.msg.startswith("Unterminated string")
                if self._ended or not near_end:
                    raise
                self._more()
                continue
            except ValueError as error:
                raise Unreadable(str(error)) from None
            if end >= len(self.text) - 3 and not self._ended:
                self._more()  # a number may go on, with a point or an exponent
                continue
            self.line += self.text.count("\n", self.at, end)
            self.at = end
            return parsed

    def separator(self) -> None:
        """Pass over a comma; raises where there is neither a comma nor the closing bracket."""
        character = self.next()
        self.comma = self.line if character == "," else 0
        if character == ",":
            self.step()
        elif character != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", self.text, self.at)

    def describe(self, error: json.JSONDecodeError) -> Document:
        """The line and words of what is wrong."""
        cut = _is_cut(error)
        if cut and self.problem is not None:
            return self._problem_line, self.problem
        line = self.line + self.text.count("\n", self.at, error.pos)
        feed = self.text.rfind("\n", 0, error.pos)
        column = error.pos - feed if feed >= 0 else self._column + error.pos + 1
        more = _TRUNCATED if cut else " The rest of the file was not read."
        return line, Unreadable(f"{_wrong(error, column)}{more}")

    def _more(self) -> bool:
        """Read on; False at the end of the text."""
        if self._ended:
            return False
        self._forget()
        if len(self.text) > LONGEST:
            raise Unreadable(f"begins an element that is longer than {LONGEST >> 20} MB.")
        block = self._stream.read(max(_BLOCK, len(self.text)))
        if self._first and block.startswith(BOM):
            block = block[len(BOM) :]
        self._first = False
        self._ended = not block
        data = self._pending + block
        try:
            text, used = codecs.utf_8_decode(data, "strict", self._ended)
        except UnicodeDecodeError as error:
            before = data[: error.start]
            feed = before.rfind(b"\n")
            byte = error.start - feed if feed >= 0 else self._since_feed + error.start + 1
            self.problem = Unreadable(_not_utf8(byte, data[error.start]))
            self._problem_line = 1 + self._feeds + before.count(b"\n")
            self._ended, text, used = True, before.decode(), len(before)
        feed = data.rfind(b"\n", 0, used)
        self._since_feed = used - feed - 1 if feed >= 0 else self._since_feed + used
        self._feeds += data.count(b"\n", 0, used)
        self._pending = data[used:]
        self.text += text
        return bool(text) or not self._ended

    def _forget(self) -> None:
        feed = self.text.rfind("\n", 0, self.at)
        self._column = self.at - feed - 1 if feed >= 0 else self._column + self.at
        self.text, self.at = self.text[self.at :], 0


def _not_utf8(byte: int, value: int) -> str:
    return f"is not UTF-8 at byte {byte} (0x{value:02x})."


def _wrong(error: json.JSONDecodeError, column: int) -> str:
    if error.msg == "Extra data":
        return f"continues after its JSON ends, at column {column}; each line must contain one example."
    return f"is not valid JSON at column {column}: {error.msg[0].lower()}{error.msg[1:]}."


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Whether the text ended too early, rather than being wrong."""
    return error.pos >= len(error.doc) or error.msg.startswith("Unterminated string")


_LENIENT = json.JSONDecoder()
