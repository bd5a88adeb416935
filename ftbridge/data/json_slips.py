"""Slips that everybody makes in JSON: what they are, and the JSON that was meant, where only one thing can be meant.

    {“a”: 1}      typographic quotes        {'a': None}   Python's notation      {"a": 1,}      a comma too many
    {a: 1}        keys without quotes       {"a": 1} // b a comment              {"a": "⇥"}     a raw control character

The text is cut into tokens, each is written as JSON, and the whole must then be JSON to a strict parser: nothing is
guessed from what does not fit. A token that is none of these ends the reading. Every pass is linear in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ftbridge import strict_json

LONGEST = 4 << 20
"""Characters of a text beyond which it is not looked at: these are slips of people, not of programs."""

_QUOTES = "typographic quotes (“ ”) where JSON has straight ones"
_PYTHON = "Python's notation (single quotes, True, None)"
_COMMA = "a comma after the last element"
_COMMENT = "a comment, which JSON does not have"
_KEYS = "keys without quotes"
_CONTROL = "a raw tab or control character in a string"
_SPACE = "a no-break space between values"
_UNDEFINED = "undefined, which JSON does not have"
AFTER = "a comma after the object"


class Slip(NamedTuple):
    """What is wrong, as the object of "has", and where it is first, in characters from 0."""

    what: str
    start: int


@dataclass(frozen=True)
class Repaired:
    """The slips of a text in their order, each kind once, and the text as JSON; None where that is not certain."""

    slips: tuple[Slip, ...]
    text: str | None

    @property
    def hint(self) -> str:
        """What to do, in a sentence."""
        return "json.dumps writes JSON." if any(slip.what == _PYTHON for slip in self.slips) else "Write JSON."

    @property
    def did(self) -> str:
        """What was fixed, in the past tense."""
        return "wrote JSON instead of " + " and ".join(slip.what.split(" where ")[0] for slip in self.slips)


_SPACES = re.compile("[ \t\r\n\f\v\u00a0\u2007\u202f\u2028\u2029\ufeff]+")
_PLAIN = re.compile("[ \t\r\n]+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"-?[A-Za-z_$][\w$-]*")
_COMMENTS = re.compile(r"//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_KEY_FOLLOWS = re.compile(r"\s*:")
_STRAIGHT = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_CURLED = re.compile(r'[“”„‟″＂]((?:[^\\]|\\.)*?)[“”‟″＂"](?=\s*(?:[,:}\]]|\Z))', re.DOTALL)
_CURLED_SINGLE = re.compile(r"[‘’‚‛]((?:[^\\]|\\.)*?)[‘’‛'](?=\s*(?:[,:}\]]|\Z))", re.DOTALL)
_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_NOT_NUMBERS = frozenset({"NaN", "nan", "Infinity", "-Infinity", "inf", "-inf"})


@dataclass
class _Reading:
    """A text being read, and the JSON written so far."""

    text: str
    position: int = 0
    out: list[str] = field(default_factory=list)
    slips: dict[str, int] = field(default_factory=dict)
    comma: int | None = None
    """Which piece of `out` is a comma that nothing has followed yet."""
    certain: bool = True

    def slip(self, what: str, at: int | None = None) -> None:
        self.slips.setdefault(what, self.position if at is None else at)

    def put(self, token: str) -> None:
        self.out.append(token)
        self.comma = None

    def drop_comma(self, what: str) -> None:
        if self.comma is not None:
            self.slip(what, self.position - 1)
            self.out[self.comma] = ""
            self.comma = None


def repaired_text(text: str) -> Repaired | None:
    """The slips of a text that is not JSON; None where it has none of those that are known."""
    if len(text) > LONGEST:
        return None
    reading = _Reading(text)
    while reading.position < len(text):
        if not any(step(reading) for step in _STEPS):
            reading.certain = False
            break
    if reading.certain:
        reading.drop_comma(AFTER)
    slips = tuple(Slip(what, at) for what, at in sorted(reading.slips.items(), key=lambda slip: slip[1]))
    if not slips:
        return None
    written = "".join(reading.out)
    return Repaired(slips, written if reading.certain and _is_json(written) else None)


def _is_json(text: str) -> bool:
    try:
        strict_json.loads(text, duplicate_keys=True)
    except ValueError:
        return False
    return True


def _space(reading: _Reading) -> bool:
    match = _SPACES.match(reading.text, reading.position)
    if not match:
        return False
    if not _PLAIN.fullmatch(match[0]):
        reading.slip(_SPACE)
    reading.out.append(match[0] if _PLAIN.fullmatch(match[0]) else " ")
    reading.position = match.end()
    return True


def _structure(reading: _Reading) -> bool:
    sign = reading.text[reading.position]
    if sign not in "{}[]:,":
        return False
    if sign in "}]":
        reading.drop_comma(_COMMA)
    reading.put(sign)
    if sign == ",":
        reading.comma = len(reading.out) - 1
    reading.position += 1
    return True


def _comment(reading: _Reading) -> bool:
    match = _COMMENTS.match(reading.text, reading.position)
    if not match:
        return False
    reading.slip(_COMMENT)
    reading.out.append("\n" * match[0].count("\n"))
    reading.position = match.end()
    return True


def _number(reading: _Reading) -> bool:
    match = _NUMBER.match(reading.text, reading.position)
    if not match:
        return False
    reading.put(match[0])
    reading.position = match.end()
    return True


def _word(reading: _Reading) -> bool:
    match = _WORD.match(reading.text, reading.position)
    if not match:
        return False
    word = match[0]
    if _KEY_FOLLOWS.match(reading.text, match.end()) and not word.startswith("-"):
        reading.slip(_KEYS)
        reading.put(json.dumps(word))
    elif word in _WORDS:
        if word != _WORDS[word]:
            reading.slip(_PYTHON)
        reading.put(_WORDS[word])
    elif word in _NOT_NUMBERS or word == "undefined":
        reading.slip(_UNDEFINED if word == "undefined" else f"{word}, which is not a number in JSON")
        reading.put("null")
        reading.certain = False  # whether null is meant, or no key, is for a person to say
    else:
        return False
    reading.position = match.end()
    return True


def _quoted(pattern: re.Pattern[str], what: str, quotes: str) -> Callable[[_Reading], bool]:
    def step(reading: _Reading) -> bool:
        if reading.text[reading.position] not in quotes:
            return False
        match = pattern.match(reading.text, reading.position)
        if what:
            reading.slip(what)
        body = _body(reading, match[1]) if match else None
        if match is None or body is None:
            return False
        reading.put(f'"{body}"')
        reading.position = match.end()
        return True

    return step


_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8})|u[0-9a-fA-F]{4}|(.))", re.DOTALL)
_BARE_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)"')
_RAW = re.compile("[\x00-\x1f]")


def _body(reading: _Reading, body: str) -> str | None:
    """The inside of a string as JSON writes it; None where it has an escape that nobody knows, or a line feed."""
    if "\n" in body:
        return None
    if _RAW.search(body):
        reading.slip(_CONTROL)
        body = _RAW.sub(lambda match: json.dumps(match[0])[1:-1], body)
    if "\\" in body:
        try:
            body = _ESCAPE.sub(lambda match: _escape(reading, match), body)
        except ValueError:
            return None
    return _BARE_QUOTE.sub(r'\1\\"', body)


def _escape(reading: _Reading, match: re.Match[str]) -> str:
    hexadecimal, long, sign = match.groups()
    if hexadecimal or long:
        reading.slip(_PYTHON)
        return json.dumps(chr(int(hexadecimal or long, 16)))[1:-1]
    if sign == "'":
        reading.slip(_PYTHON)
        return "'"
    if sign is not None and sign not in '"\\/bfnrt':
        raise ValueError(match[0])
    return match[0]


_STEPS: tuple[Callable[[_Reading], bool], ...] = (
    _space,
    _structure,
    _quoted(_STRAIGHT, "", '"'),
    _quoted(_CURLED, _QUOTES, "“”„‟″＂"),
    _quoted(_CURLED_SINGLE, _QUOTES, "‘’‚‛"),
    _quoted(_SINGLE, _PYTHON, "'"),
    _number,
    _word,
    _comment,
)
