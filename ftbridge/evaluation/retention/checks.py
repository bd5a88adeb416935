"""Checks of short answers: a sentence around the answer is welcome, another answer is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Literal, get_args

Check = Literal["eq", "like", "ilike", "word", "first_word", "json"]
CHECKS: tuple[Check, ...] = get_args(Check)


def passes(check: Check, expected: str, answer: str) -> bool:
    """Whether an answer passes.

    eq            the expected text and nothing else, but for space at the ends
    like, ilike   contains it; ilike without regard to case
    word          contains it as words or a number of its own, without regard to case: 7 is not in 17, 1.7 or 7.5
    first_word    begins with it, without regard to case and punctuation
    json          the answer, or the only code block in it, is the same JSON
    """
    return _CHECKS[check](expected, answer)


def _word(expected: str, answer: str) -> bool:
    return re.search(rf"(?<![\w.,]){re.escape(expected)}(?![\w])(?![.,]\d)", answer, re.IGNORECASE) is not None or (
        # Letters may follow a full stop or a comma without a space; digits may not.
        not expected[:1].isdigit()
        and re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", answer, re.IGNORECASE) is not None
    )


def _first_word(expected: str, answer: str) -> bool:
    found = re.search(r"\w+", answer)
    return found is not None and found.group().casefold() == expected.casefold()


def _json(expected: str, answer: str) -> bool:
    blocks = re.findall(r"```(?:json)?\s*\n(.*?)```", answer, re.DOTALL)
    try:
        return bool(json.loads(blocks[0] if len(blocks) == 1 else answer) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


_CHECKS: dict[Check, Callable[[str, str], bool]] = {
    "eq": lambda expected, answer: answer.strip() == expected,
    "like": lambda expected, answer: expected in answer,
    "ilike": lambda expected, answer: expected.casefold() in answer.casefold(),
    "word": _word,
    "first_word": _first_word,
    "json": _json,
}
