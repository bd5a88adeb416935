"""JSON as RFC 8259 has it, read in one place: no NaN, no infinities, no key twice, no bottomless nesting.

`loads` and `STRICT` raise; `parse` never does: it returns what is wrong with a line, and where, as data for the linter.
Python's own reader lets all of these through, or stops at a depth that depends on its version.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal, NamedTuple

DEEPEST = 200
"""Objects and lists inside each other beyond which a line is not read: services' parsers stop at 128 or so, Python's own at
a depth that depends on its version."""


class NotANumber(ValueError):
    """NaN, an infinity, or a number beyond the largest double. `written` is its text."""

    def __init__(self, written: str) -> None:
        super().__init__(f"{written} is not a number in JSON")
        self.written = written


class DuplicateKey(ValueError):
    """An object has a key twice, of which only one value could be used."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {json.dumps(key, ensure_ascii=False)} appears twice in one object")
        self.key = key


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotANumber(text)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return document


STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
"""Raises `JSONDecodeError`, `NotANumber`, `DuplicateKey` (all of them `ValueError`) and `RecursionError`."""
_LAST_KEY = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def loads(text: str, *, duplicate_keys: bool = False) -> Any:
    """The value of one JSON document. With `duplicate_keys`, the last value of a key that appears twice is the one used.

    Raises `ValueError` (`JSONDecodeError` with its position, `NotANumber`, `DuplicateKey`) for anything else.
    """
    try:
        return (_LAST_KEY if duplicate_keys else STRICT).decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


TroubleKind = Literal["utf8", "json", "extra", "cut", "constant", "deep", "number", "surrogate"]


class Trouble(NamedTuple):
    """Why a line is not a JSON value. `column` counts characters (bytes, where it is not UTF-8) from 1; `detail` says more."""

    kind: TroubleKind
    column: int
    detail: str
    ends_with_newline: bool = True
    text: str = ""
    """The line, where it can be decoded."""


class Parsed(NamedTuple):
    """A line's value, and the keys that stood twice in one object: each with whether both values are the same."""

    document: Any
    doubled: tuple[tuple[str, bool], ...] = ()
    text: str = ""


def parse(raw: bytes, *, ends_with_newline: bool = True) -> Parsed | Trouble:
    """Parse one line without its line feed. Never raises, whatever the bytes are."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Trouble("utf8", error.start + 1, f"0x{raw[error.start]:02x}", ends_with_newline)
    doubled: list[tuple[str, bool]] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) < len(pairs):
            seen: dict[str, Any] = {}
            for key, value in pairs:
                if key in seen:
                    doubled.append((key, _same(seen[key], value)))
                seen[key] = value
        return document

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_float=_finite, parse_constant=_finite)
    try:
        document = decoder.decode(text)
        if raw.count(b"[") + raw.count(b"{") > DEEPEST and _too_deep(document):
            return Trouble("deep", 1, "", ends_with_newline)
        return Parsed(document, tuple(doubled), text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return Trouble("extra", error.pos + 1, "", ends_with_newline, text)
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        what = error.msg[0].lower() + error.msg[1:]
        kind: TroubleKind = "cut" if cut and not ends_with_newline else "json"
        return Trouble(kind, error.pos + 1, what, ends_with_newline, text)
    except RecursionError:
        return Trouble("deep", 1, "", ends_with_newline)
    except NotANumber as error:
        return Trouble("constant", max(1, text.find(error.written) + 1), error.written, ends_with_newline)
    except ValueError:  # Python's own bound on the digits of an integer, which guards against quadratic time
        return Trouble("number", 1, "it has thousands of digits", ends_with_newline)


def _too_deep(document: Any) -> bool:
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(DEEPEST):
        inside = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in inside if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _same(one: Any, other: Any) -> bool:
    try:
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except (ValueError, RecursionError):
        return False
