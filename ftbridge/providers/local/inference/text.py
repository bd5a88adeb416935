"""Tokens to text as they come: never half a character, never past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_WINDOW = 8
"""Tokens decoded before the new ones, since a token's text may depend on what stands before it."""


class Words:
    """One answer's text so far. `add` gives the text that is certain; `rest` what was held back."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), hidden: frozenset[int] = frozenset()) -> None:
        """`hidden` are special tokens that are not text."""
        self._tokenizer, self._hidden = tokenizer, hidden
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._decoded = 0
        self._held = ""
        self.stopped = False
        """Whether a stop string was met; it and what follows are not text of the answer."""

    def add(self, token: int) -> str:
        """Take one more token; return the new text that no later token can change."""
        self._ids.append(token)
        start = max(0, self._decoded - _WINDOW)
        before = self._text(start, self._decoded)
        text = self._text(start, len(self._ids))
        if text.endswith("�") and len(self._ids) - self._decoded < _WINDOW:
            return ""
        self._decoded = len(self._ids)
        return self._release(self._held + text[len(before) :])

    def rest(self) -> str:
        """The text held back, at the end of an answer."""
        if self.stopped:
            return ""
        start = max(0, self._decoded - _WINDOW)
        tail = self._text(start, len(self._ids))[len(self._text(start, self._decoded)) :]
        self._decoded = len(self._ids)
        text = self._release(self._held + tail)
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _release(self, text: str) -> str:
        places = [position for position in (text.find(stop) for stop in self._stops) if position >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _text(self, start: int, end: int) -> str:
        ids = [token for token in self._ids[start:end] if token not in self._hidden]
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text


def overlap(text: str, stop: str) -> int:
    """How many last characters of `text` may be the beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
