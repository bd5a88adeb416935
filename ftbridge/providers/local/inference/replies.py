"""A completion read as it comes: what is reasoning, what is text, what is a call. Nothing is told that may turn out otherwise.

    Piece of text ─▶ reasoning ─▶ text ─▶ calls        free: by the family's notation, calls when they are whole
                 ├─▶ analysis · final · calls          channels: the same for gpt-oss
                 └─▶ calls                             forced: JSON by construction, arguments as they come

The notations are those of `ftbridge.data.notation`. Its reader, which the evaluator uses, has the last word: it reads the whole
completion at its end, and what was not streamed yet is sent then. Where nobody waits for pieces (`at_end`), it alone
decides. One thing shows too late for a stream: reasoning whose opening mark the model left out is sent as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ftbridge.data.call_forms import whole_characters
from ftbridge.data.notation import PLAIN, Notation, forms_of, read_reply
from ftbridge.providers.local.inference.text import overlap

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

    @property
    def reasoning(self) -> bool:
        """Whether the completion is within its reasoning."""
        ...

    def add(self, text: str) -> Parts:
        """What is certain after more text."""
        ...

    def end(self) -> Parts:
        """What was held back, at the end."""
        ...


def call_start(position: int, name: str, call_id: str, arguments: str = "") -> dict[str, Any]:
    """The first piece of a call."""
    return {"index": position, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class PlainReader:
    """A completion that is text and nothing else."""

    reasoning = False

    def add(self, text: str) -> Parts:
        """All of it."""
        return Parts(text)

    def end(self) -> Parts:
        """Nothing is held back."""
        return Parts()


class FreeReader:
    """A completion in which the model writes what it likes."""

    def __init__(
        self,
        notation: Notation,
        tools: Sequence[dict[str, Any]],
        *,
        thinking_open: bool,
        call_id: str,
        at_end: bool = False,
        one: bool = False,
    ) -> None:
        """`thinking_open`: the prompt ends within reasoning. `at_end`: events come only at the end. `one`: no second call."""
        self._most = 1 if one else None
        self._notation, self._tools, self._call_id = notation, list(tools), call_id
        self._thinking_open, self._at_end = thinking_open, at_end
        self._whole = ""
        self._rest = ""
        """Of the whole, without marks around the text, what was neither told nor passed over."""
        self._mark = ""
        """What may be the beginning of a mark around the text."""
        self._text = ""
        self._thought = ""
        self._pairs = tuple(dict.fromkeys(pair for pair in (notation.reasoning, PLAIN.reasoning) if pair))
        self._pair = notation.reasoning
        forms = forms_of(notation) if tools else []
        self._may_be_bare = not all(form.has_marks for form in forms)
        """Whether a whole completion may be a call without marks; it begins with one of `_beginnings`."""
        bare = ("{", "[{") if self._may_be_bare else ()  # such a call may follow text as well
        self._openers = (*{mark for form in forms for mark in form.openers or form.closers}, *bare)
        """Marks before which text is certain."""
        self._beginnings = ("[", "{", "<", "functools", *(str(tool["function"]["name"]) for tool in tools))
        self._reasoned = thinking_open
        self._state = "reasoning" if thinking_open and notation.reasoning else "start"
        if notation.recipients:
            self._state = "held"

    @property
    def reasoning(self) -> bool:
        """Whether the completion is within its reasoning."""
        return self._state == "reasoning"

    def add(self, text: str) -> Parts:
        """What is certain after more text."""
        self._whole += text
        self._rest += self._unwrapped(text)
        parts = Parts()
        while self._step(parts):
            pass
        if self._at_end:
            return Parts()
        self._text += parts.text
        self._thought += parts.reasoning
        return parts

    def end(self) -> Parts:
        """The rest, by a reading of the whole."""
        reply = read_reply(self._whole, self._notation, self._thinking_open, self._tools)
        parts = Parts(reasoning=beyond(self._thought, reply.reasoning_content or ""))
        if not self._thought or reply.reasoning_content:
            parts.text = beyond(self._text, reply.content)
        for index, call in enumerate(reply.tool_calls[: self._most]):
            counted = str(call["id"]).startswith("call_") and str(call["id"])[5:].isdigit()
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            parts.calls.append(call_start(index, name, f"{self._call_id}{index}" if counted else call["id"], arguments))
        return parts

    def _unwrapped(self, text: str) -> str:
        """More text without the marks around all of it."""
        wrappers = self._notation.wrappers
        text = self._mark + text
        for wrapper in wrappers:
            text = text.replace(wrapper, "")
        split = len(text) - longest_overlap(text, wrappers)
        self._mark = text[split:]
        return text[:split]

    def _step(self, parts: Parts) -> bool:
        """One change of state; whether there may be another."""
        match self._state:
            case "start":
                return self._start()
            case "reasoning":
                return self._tell_reasoning(parts)
            case "after":
                self._rest = self._rest.lstrip()
                self._state = "text" if self._rest else "after"
                return bool(self._rest)
            case "text":
                self._tell_text(parts)
        return False

    def _start(self) -> bool:
        """Reasoning begins with its mark, anything else is text."""
        bare = self._rest.lstrip()
        openings = {pair: pair[0].strip() for pair in self._pairs}
        for pair, opening in openings.items():
            if bare.startswith(opening):
                self._rest = bare[len(opening) :]
                self._pair, self._state, self._reasoned = pair, "reasoning", True
                return True
        if any(opening.startswith(bare) for opening in openings.values()):
            return False
        self._state = "text"
        return True

    def _tell_reasoning(self, parts: Parts) -> bool:
        assert self._pair is not None
        closing = self._pair[1].strip()
        inner, closing_parts, rest = self._rest.partition(closing)
        if not closing_parts and (self._pair != self._notation.reasoning or self._notation is PLAIN):
            return False  # only its end makes it reasoning: the family has other marks, or none
        certain = (inner if closing_parts else inner[: len(inner) - overlap(inner, closing)]).rstrip()
        parts.reasoning += certain if self._thought else certain.lstrip()
        self._rest = rest if closing_parts else self._rest[len(certain) :]
        self._state = "after" if closing_parts else "reasoning"
        return bool(closing_parts)

    def _tell_text(self, parts: Parts) -> None:
        """Text up to what may be a call."""
        rest, openers = self._rest, self._openers
        if self._may_be_bare and not self._text:
            bare = rest.lstrip()
            if any(bare.startswith(beginning) for beginning in self._beginnings):
                self._state = "held"
            if self._state == "held" or any(beginning.startswith(bare) for beginning in self._beginnings):
                return
        places = [position for mark in openers if (position := rest.find(mark)) >= 0]
        certain = rest[: min(places)] if places else rest[: len(rest) - longest_overlap(rest, openers)]
        if openers or self._reasoned:  # white space at the end is layout if nothing follows
            certain = certain.rstrip()
        self._rest = rest[len(certain) :]
        parts.text += certain
        if places:
            self._state = "held"


def longest_overlap(text: str, marks: Sequence[str]) -> int:
    """How many last characters of a text may be the beginning of a mark."""
    return max((overlap(text, mark) for mark in marks), default=0)


class ForcedReader:
    """A completion that is JSON of calls: arguments of one named function, one call, or a list of calls."""

    reasoning = False

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
        calls: list[dict[str, Any]] = []
        decoder = json.JSONDecoder()
        while True:
            self._whole = self._whole.lstrip(" \n[,]")
            try:
                call, end = decoder.raw_decode(self._whole)
            except ValueError:
                return calls
            arguments = whole_characters(json.dumps(call[ARGUMENTS], ensure_ascii=False))
            calls.append(call_start(self._count, call["name"], f"{self._call_id}{self._count}", arguments))
            self._count += 1
            self._whole = self._whole[end:]


def beyond(sent: str, complete: str) -> str:
    """What of `whole` was not told yet, white space before it aside; nothing if what was told is not its beginning.

    Words cannot be taken back.
    """
    if complete.startswith(sent):
        return complete[len(sent) :]
    sent, complete = sent.lstrip(), complete.lstrip()
    return complete[len(sent) :] if complete.startswith(sent) else ""
