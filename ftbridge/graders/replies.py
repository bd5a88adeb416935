"""How a judge's reply is read: one rule for all, written so that an answer which the judge quotes cannot set its own score.

    <think>…</think>            is left out; a block that never ends has no verdict, nor has a reply that says one thing after
                                the first end of its reasoning and another after the last
    the whole reply is JSON     its `result`, or `score`, `label` … where that is the only such key
    JSON objects in text        the only one with a `result`; of several that differ, the only one that stands on lines of its
                                own, or the only one of those with `steps`; otherwise the reply is ambiguous
    an object without its end   ends the reading: what stands inside it belongs to it
    no object                   the text itself, what follows "score:", "result:", "label:" … on a line of its own, or a first
                                line that stands alone before an explanation

A reply that was cut off at its token limit counts only with a whole object. Where nothing can be read, `UnreadableReply` says
why.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftbridge.graders.sample import NotJson, parse_json

_LONGEST = 300
_TAGS = r"think|thinking|thought|reasoning|analysis|scratchpad|seed:think"
_OPENS = re.compile(rf"\s*(?:<({_TAGS})>|\[THINK\]|<\|channel\|>analysis<\|message\|>)", re.IGNORECASE)
_CLOSES = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]|<\|channel\|>final<\|message\|>", re.IGNORECASE)
_TITLE = r"(?:final\s+|overall\s+|total\s+)?(?:score|result|rating|grade|verdict|label|judge?ment|decision)"
_NAMED = re.compile(
    rf"^\W*(?:(?:the|my)\s+)?{_TITLE}\W*(?::|=|\s[-–—]\s|\bis\b)\s*(.+)$|^#+\s*{_TITLE}\W*\n\s*(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER = re.compile(r"\W*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|choice)\W*(?::|=|\bis\b)\s*(.+)", re.IGNORECASE)
_KEYS = ("result", "score", "rating", "grade", "verdict", "label", "value")
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_PERCENT = re.compile(rf"({_NUMBER.pattern})\s*(?:%|per\s?cent)", re.IGNORECASE)
_FRACTION = re.compile(rf"({_NUMBER.pattern})\s*(?:/|out\s+of|of)\s*({_NUMBER.pattern})", re.IGNORECASE)
_UNIT = re.compile(r"\s*(?:points?|pts|stars?)\Z", re.IGNORECASE)
_ALIAS = re.compile(r"(?:answer|option|choice|response|label|class|category)[\s_#:-]*(.+)", re.IGNORECASE | re.DOTALL)
_AROUND = " \t\r\n\"'`*_“”‘’«»()[]"


class UnreadableReply(ValueError):
    """A reply without a verdict that can be read."""


@dataclass(frozen=True)
class _Found:
    result: Any
    stands_alone: bool
    has_steps: bool


def read_result(text: str, finish_reason: str | None) -> Any:
    """The `result` of a reply, or its text where it is not JSON. Raises `UnreadableReply`."""
    cut = finish_reason == "length"
    ends = list(_CLOSES.finditer(text))
    if _OPENS.match(text):
        if not ends:
            raise UnreadableReply(f"the reply ends inside its reasoning: {short(text)} is not a number or label")
        return _agreed([text[end.end() :] for end in (ends[0], ends[-1])], cut)
    if len(ends) == 1 and not text[: ends[0].start()].rpartition("\n")[2].strip():
        # The template opened the reasoning, so the reply only ends it. An object before the mark must not say otherwise.
        after = text[ends[0].end() :]
        return _agreed([after, text] if _objects(text[: ends[0].start()])[0] else [after], cut)
    return _read(text, cut)


def _agreed(texts: Sequence[str], cut: bool) -> Any:
    """The one result that all of these texts hold. Raises `UnreadableReply`."""
    results = [_read(text, cut) for text in dict.fromkeys(texts)]
    if any(result != results[0] for result in results):
        raise UnreadableReply(
            f"the reply says one thing and another around its reasoning: {short(texts[0])} is not a number or label"
        )
    return results[0]


def _read(text: str, cut: bool) -> Any:
    """The result of a reply without its reasoning. Raises `UnreadableReply`."""
    text = text.strip()
    if not cut:
        lone = re.fullmatch(r"```\w*\n(.*?)\n?```", text, re.DOTALL)
        document = _document(lone[1] if lone is not None and "```" not in lone[1] else text)
        if isinstance(document, list) and len(document) == 1 and isinstance(document[0], dict):
            document = document[0]
        if isinstance(document, dict):
            return _of_object(document)
        if document is not None:
            return document
    objects, unended = _objects(text)
    if objects:
        return _chosen(objects)
    if cut or unended:
        raise UnreadableReply(f"the reply was cut off before its result: {short(text)} is not a number or label")
    if "{" in text:
        return text  # an object that cannot be read: nothing of its inside is taken for a verdict
    named = {(one or other).strip(_AROUND) for one, other in _NAMED.findall(text)}
    if len(named) == 1:
        return named.pop()
    if "\n" not in text and (match := _ANSWER.fullmatch(text)):
        return match[1]
    first, blank, _ = text.partition("\n\n")
    return first if blank and not named and "\n" not in first else text


def _document(text: str) -> Any:
    """The text as JSON, or as an object in Python's notation or with a comma too many; None for anything else."""
    try:
        return parse_json(text)
    except NotJson:
        pass
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        document = ast.literal_eval(re.sub(r"\b(true|false|null)\b", _as_python, text))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return document if isinstance(document, dict) else None


def _as_python(word: re.Match[str]) -> str:
    return {"true": "True", "false": "False", "null": "None"}[word[0]]


def _of_object(document: dict[str, Any]) -> Any:
    """The result of a reply that is one object: `result` in any case, else the only key that stands for it."""
    if "result" in document:
        return document["result"]
    by_name = {str(key).casefold(): value for key, value in document.items()}
    there = [name for name in _KEYS if name in by_name]
    if "result" in there or len(there) == 1:
        return by_name[there[0]]
    return document


def number(result: Any, low: float, high: float) -> float:
    """A result as a score in the range from `low` to `high`, not clipped. Raises `UnreadableReply`.

    A percentage is that share of the range. A fraction whose denominator is the highest score is its numerator, any other is
    that share of the range: 4/5 is 4 from 1 to 5, and 0.8 from 0 to 1. A comma may stand for the decimal point, or part
    thousands where the range reaches so far.
    """
    value = math.nan
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        value = _float(result)
    elif isinstance(result, str):
        bare = result.replace("\u2212", "-").strip(_AROUND).rstrip(".").strip(_AROUND)
        value = _written(_UNIT.sub("", bare), low, high)
    if not math.isfinite(value):
        raise UnreadableReply(f"{short(result)} is not a number")
    return value


def label(result: Any, labels: Sequence[str]) -> str:
    """The label that a result names. Raises `UnreadableReply`.

    Beside the label itself: its value as a number or boolean, quotes, marks and a full stop around it, another case where
    only one label fits, and "answer", "option" or "label" before it.
    """
    if isinstance(result, bool):
        result = str(result).lower()
    elif isinstance(result, (int, float)):
        alike = [name for name in labels if _NUMBER.fullmatch(name) and _float(name) == _float(result)]
        result = alike[0] if len(alike) == 1 else str(result)
    if isinstance(result, str):
        bare = result.strip(_AROUND).rstrip(".!,;:").strip(_AROUND)
        named = _ALIAS.fullmatch(bare)
        for text in (result, result.strip(), bare, *([named[1].strip(_AROUND)] if named else [])):
            if text in labels:
                return text
            fits = [name for name in labels if name.casefold() == text.casefold()]
            if len(fits) == 1:
                return fits[0]
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in labels)
    raise UnreadableReply(f"{short(result)} is not one of the labels {names}")


def short(value: Any) -> str:
    """A value for a message, not too long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _objects(text: str) -> tuple[list[_Found], bool]:
    """The JSON objects with a `result` that stand in a text, and whether one begins that never ends."""
    decoder, start = json.JSONDecoder(), text.find("{")
    objects: list[_Found] = []
    while start >= 0:
        try:
            document, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if start + 1 < len(text) and _is_unended(text, start, error):
                return objects, True
            end = start + 1
        except RecursionError:
            return objects, True
        else:
            if "result" in document:
                before, after = text[:start].rpartition("\n")[2], text[end:].partition("\n")[0]
                alone = not before.strip(_AROUND) and not after.strip(_AROUND)
                objects.append(_Found(document["result"], alone, "steps" in document))
        start = text.find("{", end)
    return objects, False


def _is_unended(text: str, start: int, error: json.JSONDecodeError) -> bool:
    """Whether an object was cut off: it begins as one does, and the text ends where the rest is expected."""
    begins = re.match(r'\{\s*"', text[start:]) is not None
    ends_early = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    return begins and ends_early


def _chosen(objects: Sequence[_Found]) -> Any:
    """The result that counts. Raises `UnreadableReply` where it could be one or another."""
    for some in (objects, [one for one in objects if one.stands_alone], [one for one in objects if one.has_steps]):
        distinct = {json.dumps(one.result, sort_keys=True) for one in some}
        if len(distinct) == 1:
            return some[0].result
    shown = ", ".join(short(one.result) for one in objects)
    raise UnreadableReply(f"the reply holds several results ({shown}), which is not a number or label")


def _written(text: str, low: float, high: float) -> float:
    if match := _PERCENT.fullmatch(text):
        share = _decimal(match[1], 100) / 100
        return low + share * (high - low) if 0 <= share <= 1 else math.nan
    if match := _FRACTION.fullmatch(text):
        part, highest = _decimal(match[1], high), _decimal(match[2], high)
        if not 0 <= part <= highest or not highest:
            return math.nan
        return part if highest == high else low + part / highest * (high - low)
    return _decimal(text, high) if _NUMBER.fullmatch(text) else math.nan


def _decimal(text: str, high: float) -> float:
    """The number; 1,000 is a thousand where scores go so far, else 1 with a decimal comma."""
    if text.count(",") > 1 or "." in text or (_THOUSANDS.fullmatch(text) and high >= 1000):
        return _float(text.replace(",", ""))
    return _float(text.replace(",", "."))


def _float(value: float | str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
