"""Checks of short completions: a sentence around the expected text is welcome, anything that only happens to hold it is not.

Two ways of passing without knowing are closed. A completion that repeats the question passes nothing by what stands in the
question. And a number passes only as the number that a completion ends on: one that counts from 0 to 200 names every sum, and
answers none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Literal, get_args

Check = Literal["eq", "like", "ilike", "word", "first_word", "json"]
CHECKS: tuple[Check, ...] = get_args(Check)

_NUMBER = re.compile(
    r"(?<![\w.,/])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w/]|[.,]\d)"  # 7, -7, 1,200, 3.5; not in 12/5 or v2
)
_MOST_NUMBERS = 12
"""More different numbers than this, apart from those of the question, are a list and no result."""
_ECHO_SHARE, _ECHO_WORDS = 0.6, 6


def passes(check: Check, expected: str, completion: str, prompt: str = "") -> bool:
    """Whether a completion passes. `prompt` is the question; what the completion repeats of it does not count.

    eq            the expected text and nothing else, but for space at the ends
    like, ilike   contains it; ilike without regard to case
    word          contains it as words of its own, without regard to case; a number as the last one that is
                  not the question's, or as the first where the question names it: 1,200 is 1200; -7, 17, 7.5, 7/2 are not 7
    first_word    begins with it, without regard to case and punctuation
    json          the completion, or the only code block in it, is the same JSON; 1 and 1.0 are equal, true and 1 are not
    """
    if check == "eq":
        return completion.strip() == expected
    if check == "word" and (number := _value(expected)) is not None:
        return _ends_on(number, without_question(completion, prompt), prompt)
    return _CHECKS[check](expected, without_question(completion, prompt))


def without_question(completion: str, prompt: str) -> str:
    """The completion without its runs of words that repeat most of the question.

    A run counts from six words and three fifths of the question on, so that a full sentence that takes up the question's words
    is left alone.
    """
    question_words = [_bare(word) for word in prompt.split()]
    words = [(match.start(), match.end(), _bare(match.group())) for match in re.finditer(r"\S+", completion)]
    least = min(len(question_words), max(_ECHO_WORDS, math.ceil(_ECHO_SHARE * len(question_words))))
    parts, position, end = [], 0, 0
    while question_words and position < len(words):
        run = max(_common(question_words[start:], words[position:]) for start in range(len(question_words)))
        if run >= least:
            parts.append(completion[end : words[position][0]])
            end = words[position + run - 1][1]
        position += run if run >= least else 1
    return "".join([*parts, completion[end:]])


def _common(question_words: list[str], words: list[tuple[int, int, str]]) -> int:
    """How many words both begin with."""
    count = 0
    while count < min(len(question_words), len(words)) and question_words[count] == words[count][2]:
        count += 1
    return count


def _bare(word: str) -> str:
    return re.sub(r"^\W+|\W+$", "", word).casefold() or word


def _value(text: str) -> float | None:
    """The number that a text is, or None."""
    return _read(text.strip()) if _NUMBER.fullmatch(text.strip()) else None


def _read(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def _ends_on(expected: float, completion: str, prompt: str) -> bool:
    question_numbers = {_read(number) for number in _NUMBER.findall(prompt)}
    # A minus between two numbers subtracts: 15-8 holds 15 and 8.
    named = [_read(number) for number in _NUMBER.findall(re.sub(r"(?<=\d)\s*[-−]\s*(?=\d)", " ", completion))]
    if expected in question_numbers:  # a choice between numbers: the one named first, or the last and most often
        often = max(named, key=named.count, default=None)
        return bool(named) and (named[0] == expected or named[-1] == often == expected)
    results = [number for number in named if number not in question_numbers]
    return bool(results) and results[-1] == expected and len(set(results)) <= _MOST_NUMBERS


def _word(expected: str, completion: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", completion, re.IGNORECASE) is not None


def _first_word(expected: str, completion: str) -> bool:
    """Whether the completion begins with the word, and does not leave it open: "true or false" says neither."""
    words: list[str] = [*re.findall(r"\w+", completion)[:2], "", ""]
    first, second = words[:2]
    return first.casefold() == expected.casefold() and second.casefold() != "or"


def _json(expected: str, completion: str) -> bool:
    blocks = re.findall(r"```(?:json)?\s*\n(.*?)```", completion, re.DOTALL)
    try:
        return _same(json.loads(blocks[0] if len(blocks) == 1 else completion), json.loads(expected))
    except (ValueError, RecursionError):
        return False


def _same(first: Any, second: Any) -> bool:
    """Equal as JSON: Python's == also takes true for 1."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)


_CHECKS: dict[Check, Callable[[str, str], bool]] = {
    "like": lambda expected, completion: expected in completion,
    "ilike": lambda expected, completion: expected.casefold() in completion.casefold(),
    "word": _word,
    "first_word": _first_word,
    "json": _json,
}
