"""A completion of gpt-oss read as it comes: messages with channels, of reasoning, of text and of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftbridge.data.notation import Notation, channel_of
from ftbridge.providers.local.inference.replies import FreeReader, Parts, beyond, longest_overlap


class ChannelReader:
    """A completion of messages with channels, as gpt-oss writes them.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…
    └──────── head ──────────────┘└ body ┘
    """

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
        """As a `FreeReader`'s."""
        self._last = FreeReader(notation, tools, thinking_open=thinking_open, call_id=call_id, at_end=True, one=one)
        self._tools, self._thinking_open, self._at_end = list(tools), thinking_open, at_end
        self._rest, self._fresh, self._first = "", True, False
        self._kind = "lead"
        self._told = {"analysis": "", "final": ""}
        self._bodies = {"analysis": 0, "final": 0}

    @property
    def reasoning(self) -> bool:
        """Whether the completion is within a message of its reasoning."""
        return self._kind == "analysis"

    def add(self, text: str) -> Parts:
        """What is certain after more text."""
        self._last.add(text)
        self._rest += text
        before = dict(self._told)
        while self._step():
            pass
        if self._at_end:
            return Parts()
        final, analysis = (self._told[kind][len(before[kind]) :] for kind in ("final", "analysis"))
        return Parts(final, analysis)

    def end(self) -> Parts:
        """The rest, by a reading of the whole."""
        parts = self._last.end()
        if not self._at_end:
            parts.text = beyond(self._told["final"], parts.text)
            parts.reasoning = beyond(self._told["analysis"], parts.reasoning)
        return parts

    def _step(self) -> bool:
        """Read one head or body; whether there may be another."""
        if self._kind == "lead":
            bare = self._rest.lstrip()
            if not any(one.startswith(bare[: len(one)]) for one in ("<|", "to=", "assistant")):
                self._begin("analysis" if self._thinking_open else "final")  # the prompt had opened the channel
                self._first = True
            elif "<|" in bare:
                self._kind = "head"
            return self._kind != "lead"
        if self._kind == "head":
            head, parts, rest = self._rest.partition(_MESSAGE_MARK)
            if not parts:
                return False
            self._rest = rest
            self._begin(channel_of(head, self._tools)[0])
            return True
        marks = (*_BODY_ENDS, "<|channel|>", _MESSAGE_MARK) if self._first else _BODY_ENDS
        ends = [(end, mark) for mark in marks if (end := self._rest.find(mark)) >= 0]
        end, _ = min(ends, default=(len(self._rest) - longest_overlap(self._rest, marks), ""))
        self._tell(self._rest[:end], ended=bool(ends))
        if ends:
            self._rest = self._rest[end:]
            self._kind, self._first = "head", False
        return bool(ends)

    def _begin(self, kind: str) -> None:
        self._kind = kind
        self._fresh = True

    def _tell(self, body: str, *, ended: bool) -> None:
        """Tell a body's text but for white space at its end, which is layout if nothing follows."""
        if self._kind == "call":
            return
        blank = None if self._kind == "analysis" else "\n"
        certain = body.rstrip(blank)
        if self._fresh:
            certain = certain.lstrip(blank)
            if certain or ended:
                certain = ("\n" if self._bodies[self._kind] else "") + certain
                self._bodies[self._kind] += 1
                self._fresh = False
        self._told[self._kind] += certain
        self._rest = self._rest[len(body.rstrip(blank)) :] if not ended else self._rest


_MESSAGE_MARK = "<|message|>"
_BODY_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>")


def reader_of(notation: Notation, tools: Sequence[dict[str, Any]], **how: Any) -> FreeReader | ChannelReader:
    """A reader of completions in a notation."""
    return (ChannelReader if notation.channels else FreeReader)(notation, tools, **how)
