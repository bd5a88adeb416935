"""How a judge's reply is read: one rule for all, written so that an answer which the judge quotes cannot set its own score.

    <think>…</think>            is left out; a block that never ends has no verdict
    the whole reply is JSON     its `result`
    JSON objects in text        the only one with a `result`; of several that differ, the only one that stands on lines of its
                                own, or the only one of those with `steps`; otherwise the reply is ambiguous
    an object without its end   ends the reading: what stands inside it belongs to it
    no object                   the text itself, or what follows "score:", "result:", "label:" … on a line of its own

A reply that was cut off at its token limit counts only with a whole object. Where nothing can be read, `Unreadable` says why.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftbridge.graders.sample import NotJson, parse_json

_LONGEST = 300
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_UNENDED_THOUGHT = re.compile(r"<(think|thinking|reasoning)>(?:(?!</\1>).)*\Z", re.DOTALL | re.IGNORECASE)
_NAMED = re.compile(
    r"^\W*(?:the\s+)?(?:final\s+|overall\s+)?(?:score|result|rating|grade|verdict|label)\W*(?::|=|\bis\b)\s*(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d+)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_PERCENT = re.compile(rf"({_NUMBER.pattern})\s*%", re.IGNORECASE)
_FRACTION = re.compile(rf"({_NUMBER.pattern})\s*/\s*({_NUMBER.pattern})", re.IGNORECASE)
_AROUND = " \t\r\n\"'`*_"


class Unreadable(ValueError):
    """A reply without a verdict that can be read."""


@dataclass(frozen=True)
class _Found:
    result: Any
    stands_alone: bool
    has_steps: bool


def read_result(text: str, finish_reason: str | None) -> Any:
    """The `result` of a reply, or its text where it is no JSON. Raises `Unreadable`."""
    cut = finish_reason == "length"
    if _UNENDED_THOUGHT.search(text):
        raise Unreadable(f"the reply ends inside its reasoning: {short(text)} is not a number or label")
    text = _THOUGHT.sub("", text).strip()
    try:
        document = parse_json(text)
    except NotJson:
        pass
    else:
        if isinstance(document, dict) and "result" in document:
            return document["result"]
        if not cut:
            return document
    found, unended = _objects(text)
    if found:
        return _chosen(found)
    if cut or unended:
        raise Unreadable(f"the reply was cut off before its result: {short(text)} is not a number or label")
    named = {match.strip(_AROUND) for match in _NAMED.findall(text)}
    return named.pop() if len(named) == 1 else text


def number(result: Any, low: float, high: float) -> float:
    """A result as a score in the range from `low` to `high`, not clipped. Raises `Unreadable`.

    A percentage is that share of the range. A fraction whose denominator is the highest score is its numerator, any other is
    that share of the range: 4/5 is 4 from 1 to 5, and 0.8 from 0 to 1. A comma may stand for the decimal point.
    """
    value = math.nan
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        value = _float(result)
    elif isinstance(result, str):
        value = _written(result.strip(_AROUND).rstrip(".").strip(_AROUND), low, high)
    if not math.isfinite(value):
        raise Unreadable(f"{short(result)} is not a number")
    return value


def label(result: Any, labels: Sequence[str]) -> str:
    """The label that a result names. Raises `Unreadable`.

    Beside the label itself: its value as a number or boolean, quotes, marks and a full stop around it, and another case where
    only one label fits.
    """
    if isinstance(result, bool):
        result = str(result).lower()
    elif isinstance(result, (int, float)) and _float(result).is_integer():
        result = str(int(result))
    if isinstance(result, str):
        bare = result.strip(_AROUND).rstrip(".!,;:").strip(_AROUND)
        for text in (result, result.strip(), bare):
            if text in labels:
                return text
        fits = [name for name in labels if name.casefold() == bare.casefold()]
        if len(fits) == 1:
            return fits[0]
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in labels)
    raise Unreadable(f"{short(result)} is not one of the labels {names}")


def short(value: Any) -> str:
    """A value for a message, not too long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _objects(text: str) -> tuple[list[_Found], bool]:
    """The JSON objects with a `result` that stand in a text, and whether one begins that never ends."""
    decoder, start = json.JSONDecoder(), text.find("{")
    found: list[_Found] = []
    while start >= 0:
        try:
            document, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if start + 1 < len(text) and _is_unended(text, start, error):
                return found, True
            end = start + 1
        except RecursionError:
            return found, True
        else:
            if "result" in document:
                before, after = text[:start].rpartition("\n")[2], text[end:].partition("\n")[0]
                alone = not before.strip(_AROUND) and not after.strip(_AROUND)
                found.append(_Found(document["result"], alone, "steps" in document))
        start = text.find("{", end)
    return found, False


def _is_unended(text: str, start: int, error: json.JSONDecodeError) -> bool:
    """Whether an object was cut off: it begins as one does, and the text ends where the rest is expected."""
    begins = re.match(r'\{\s*"', text[start:]) is not None
    ends_early = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    return begins and ends_early


def _chosen(found: Sequence[_Found]) -> Any:
    """The result that counts. Raises `Unreadable` where it could be one or another."""
    for some in (found, [one for one in found if one.stands_alone], [one for one in found if one.has_steps]):
        distinct = {json.dumps(one.result, sort_keys=True) for one in some}
        if len(distinct) == 1:
            return some[0].result
    told = ", ".join(short(one.result) for one in found)
    raise Unreadable(f"the reply holds several results ({told}), which is not a number or label")


def _written(text: str, low: float, high: float) -> float:
    if match := _PERCENT.fullmatch(text):
        share = _decimal(match[1]) / 100
        return low + share * (high - low) if 0 <= share <= 1 else math.nan
    if match := _FRACTION.fullmatch(text):
        part, whole = _decimal(match[1]), _decimal(match[2])
        if not 0 <= part <= whole or not whole:
            return math.nan
        return part if whole == high else low + part / whole * (high - low)
    return _decimal(text) if _NUMBER.fullmatch(text) else math.nan


def _decimal(text: str) -> float:
    return _float(text.replace(",", "."))


def _float(value: float | str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
