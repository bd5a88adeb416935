"""A completion read as it comes: what is reasoning, what is text, what is a call. Nothing is told that may turn out otherwise.

    Piece of text ─▶ reasoning ─▶ text ─▶ calls        free: by the family's notation, calls when they are whole
                 └─▶ calls                             forced: JSON by construction, arguments as they come

The notations are those of `ftbridge.data.notation`, which reads the whole completion again at its end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ftbridge.data.notation import Notation, read_reply
from ftbridge.providers.local.hosting.words import overlap

ARGUMENTS = "arguments"
"""The key of a call's arguments in forced calls."""


@dataclass
class Parts:
    """What a stretch of a completion adds: text, reasoning, and pieces of calls as OpenAI streams them."""

    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)


class Reader(Protocol):
    """Reads one completion."""

    def add(self, text: str) -> Parts:
        """What is certain after more text."""
        ...

    def end(self) -> Parts:
        """What was held back, at the end."""
        ...


def call_start(place: int, name: str, call_id: str, arguments: str = "") -> dict[str, Any]:
    """The first piece of a call."""
    return {"index": place, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class PlainReader:
    """A completion that is text and nothing else."""

    def add(self, text: str) -> Parts:
        """All of it."""
        return Parts(text)

    def end(self) -> Parts:
        """Nothing is held back."""
        return Parts()


class FreeReader:
    """A completion in which the model says what it likes."""

    def __init__(
        self, notation: Notation, tools: Sequence[dict[str, Any]], *, thinking_open: bool, call_id: str
    ) -> None:
        self._notation, self._tools, self._call_id = notation, list(tools), call_id
        self._thinking_open = thinking_open
        self._whole = ""
        self._told = 0
        """How far the whole text was told, or passed over."""
        self._said = ""
        self._thought = ""
        self._state = "reasoning" if thinking_open and notation.reasoning else "start"
        if notation.channels or notation.recipients:
            self._state = "held"

    def add(self, text: str) -> Parts:
        """What is certain after more text."""
        self._whole += text
        parts = Parts()
        while self._step(parts):
            pass
        self._said += parts.text
        self._thought += parts.reasoning
        return parts

    def end(self) -> Parts:
        """The rest, by a reading of the whole."""
        reply = read_reply(self._whole, self._notation, self._thinking_open, self._tools)
        parts = Parts(reasoning=_beyond(self._thought, reply.reasoning_content or ""))
        if not self._thought or reply.reasoning_content:
            parts.text = _beyond(self._said, reply.content)
        for place, call in enumerate(reply.tool_calls):
            counted = str(call["id"]).startswith("call_") and str(call["id"])[5:].isdigit()
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            parts.calls.append(call_start(place, name, f"{self._call_id}{place}" if counted else call["id"], arguments))
        return parts

    def _step(self, parts: Parts) -> bool:
        """One change of state; whether there may be another."""
        rest = self._whole[self._told :]
        pair = self._notation.reasoning
        if self._state == "start":
            bare = rest.lstrip()
            opening = pair[0].strip() if pair else ""
            if opening and bare.startswith(opening):
                self._told += len(rest) - len(bare) + len(opening)
                self._state = "reasoning"
                return True
            if opening and opening.startswith(bare):
                return False
            self._state = "text"
            return True
        if self._state == "reasoning":
            assert pair is not None
            closing = pair[1].strip()
            inner, found, _ = rest.partition(closing)
            certain = inner if found else rest[: len(rest) - overlap(rest, closing)]
            certain = certain.rstrip()  # white space at the end is told once something follows
            parts.reasoning += certain if self._thought or parts.reasoning else certain.lstrip()
            self._told += len(certain) if not found else len(inner) + len(closing)
            if not found:
                return False
            self._state = "after"
            return True
        if self._state == "after":
            bare = rest.lstrip()
            self._told += len(rest) - len(bare)
            if not bare:
                return False
            self._state = "text"
            return True
        if self._state == "text":
            self._tell_text(rest, parts)
        return False

    def _tell_text(self, rest: str, parts: Parts) -> None:
        openers = self._openers()
        if openers is None:
            if not self._said and not parts.text:
                bare = rest.lstrip()
                if not bare or bare[0] in "[{<" or bare.startswith("functools"[: len(bare)]):
                    self._state = "held" if bare else "text"
                    return
            openers = ()
        marks = (*openers, *self._notation.wrappers)
        places = [place for mark in marks if (place := rest.find(mark)) >= 0]
        if places:
            certain = rest[: min(places)].rstrip()
            self._state = "held"
        else:
            certain = rest[: len(rest) - max((overlap(rest, mark) for mark in marks), default=0)]
            if openers:  # white space before a call is layout
                certain = certain.rstrip()
        self._told += len(certain)
        parts.text += certain

    def _openers(self) -> tuple[str, ...] | None:
        """Marks before which text is certain; None where calls have none, and a whole answer may be one."""
        if not self._tools or self._notation.form is None:
            return ()
        return self._notation.form.openers if self._notation.form.has_marks else None


class ForcedReader:
    """A completion that is JSON of calls: arguments of one named function, one call, or a list of calls."""

    def __init__(self, names: Sequence[str], *, one: bool, call_id: str) -> None:
        self._name = names[0] if len(names) == 1 and one else None
        self._call_id = call_id
        self._whole = ""
        self._count = 0

    def add(self, text: str) -> Parts:
        """Arguments as they come where the function is known; whole calls elsewhere."""
        if self._name is not None:
            first = not self._whole
            self._whole += text
            if first and text:
                return Parts(calls=[call_start(0, self._name, f"{self._call_id}0", text)])
            return Parts(calls=[{"index": 0, "function": {"arguments": text}}] if text else [])
        self._whole += text
        return Parts(calls=list(self._whole_calls()))

    def end(self) -> Parts:
        """Nothing: a call that was cut short is told of by the reason `length`."""
        return Parts()

    def _whole_calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        decoder = json.JSONDecoder()
        while True:
            self._whole = self._whole.lstrip(" \n[,]")
            try:
                call, end = decoder.raw_decode(self._whole)
            except ValueError:
                return found
            arguments = json.dumps(call[ARGUMENTS], ensure_ascii=False)
            found.append(call_start(self._count, call["name"], f"{self._call_id}{self._count}", arguments))
            self._count += 1
            self._whole = self._whole[end:]


def _beyond(told: str, whole: str) -> str:
    """What of `whole` was not told yet; nothing if what was told is not its beginning, since words cannot be taken back."""
    return whole[len(told) :] if whole.startswith(told) else ""
