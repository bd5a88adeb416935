"""A template's own marks inside a message stay text: `<|im_end|>` in what a user wrote ends no turn.

Before the messages are rendered, a character that stands nowhere in them goes into every mark; afterwards it is taken out of
the text, and the text is tokenised from cut to cut there. No part holds a whole mark, so none becomes its token.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from ftbridge.data.examples import Message
from ftbridge.data.notation import split_reasoning
from ftbridge.providers.local.data.template import ChatTemplate

_PRIVATE = range(0xE000, 0xF8FF)


class Guard:
    """Messages and tools whose marks are guarded. `cuts`, after `open`, are where the text is cut."""

    def __init__(self, template: ChatTemplate, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> None:
        self.messages, self.tools = list(messages), tools
        self.cuts: list[int] = []
        self._letter = ""
        self._marks = template.marks
        texts = json.dumps([[one.model_dump(exclude_none=True) for one in messages], tools], ensure_ascii=False)
        if not any(json.dumps(mark, ensure_ascii=False)[1:-1] in texts for mark in self._marks):
            return
        self._letter = next(chr(code) for code in _PRIVATE if chr(code) not in texts)
        self._reasoning = tuple(mark.strip() for mark in template.notation.reasoning or ())
        self.messages = [self._message(message) for message in messages]
        self.tools = self._value(tools) if tools else tools

    def open(self, text: str) -> tuple[str, Callable[[int], int]]:
        """The text without guards, and a function from places in the guarded text to places in it."""
        if not self._letter:
            return text, lambda index: index
        text = text.replace(json.dumps(self._letter)[1:-1], self._letter)
        guards = [index for index, letter in enumerate(text) if letter == self._letter]
        self.cuts = [index - before for before, index in enumerate(guards)]
        return text.replace(self._letter, ""), lambda index: index - bisect_left(guards, index)

    def _message(self, message: Message) -> Message:
        document = message.model_dump(exclude_unset=True)
        guarded = self._value(document, skip=("role", "type", "id", "tool_call_id", "weight"))
        if message.role == "assistant" and isinstance(message.content, str):
            reasoning, rest = split_reasoning(message.content)
            if reasoning is not None:  # its own block stays a block
                opening, closing = "<think>", "</think>"
                guarded["content"] = f"{opening}{self._text(reasoning)}{closing}\n\n{self._text(rest)}"
        return Message.model_validate(guarded)

    def _value(self, value: Any, skip: Sequence[str] = ()) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list | tuple):
            return [self._value(one, skip) for one in value]
        if isinstance(value, dict):
            return {key: one if key in skip else self._value(one, skip) for key, one in value.items()}
        return value

    def _text(self, text: str) -> str:
        for mark in self._marks:
            if mark in text:
                text = text.replace(mark, mark[0] + self._letter + mark[1:])
        return text
