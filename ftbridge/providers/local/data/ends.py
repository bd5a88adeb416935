"""What ends a completion: tokens and texts that a chat template writes after an answer, found by probes.

after the last answer      <|end|>⏎
after an earlier one       <|end|>⏎<|user|>⏎        the header of the next message is not an end
after a call               "}⏎</tool_call><|call|>  a token that also stands between two calls is not an end
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from ftbridge.providers.local.data.template import OTHER_SENTINEL, SENTINEL, ChatTemplate, TemplateMessage, plain


class Ends:
    """The ends of one chat template. `text` is what ends the last answer, without the white space that is layout."""

    def __init__(self, template: ChatTemplate, eos: str | None, listed: set[str]) -> None:
        self._template = template
        self._listed = listed
        self.eos = eos

    @cached_property
    def text(self) -> str:
        """What ends an answer in the last place; "" when the template writes nothing there.

        White space ends nothing where there is an end of sequence: answers have spaces and lines of their own.
        """
        last, middle = self._after_last, self._after_middle
        if not last or (self.eos and not last.strip()):
            return ""
        common = self._template.common(last, middle) if middle else last
        end = common if common.strip() or not last.strip() else last
        token = self._first_special(end)
        if token is not None:
            return end[: end.index(token) + len(token)]
        return end.rstrip() or end

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All ends, longest first: of last and earlier answers, and of calls."""
        ends = {self.text, self._middle, *self._calls, self.eos or "", *self._listed}
        return tuple(sorted((text for text in ends if text), key=lambda text: (-len(text), text)))

    @cached_property
    def tokens(self) -> frozenset[str]:
        """Ends that are one special token."""
        return frozenset(text for text in self.texts if text in self._special) | {
            token for token in (self._last_special(text) for text in self.texts) if token is not None
        }

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """Ends that are plain text of more than white space."""
        return tuple(text for text in self.texts if text.strip() and self._last_special(text) is None)

    def find(self, text: str, start: int, stop: int) -> int | None:
        """Where the first end within `text[start:stop]` is over; None without one."""
        hits = [
            (position, -len(end))
            for end in self.texts
            if end.strip() and (position := text.find(end, start, stop)) >= 0
        ]
        if not hits:
            return None
        position, length = min(hits)
        return position - length

    # Probes

    @cached_property
    def _special(self) -> set[str]:
        return {token for token in self._template.special.values() if token}

    def _first_special(self, text: str) -> str | None:
        places = [(text.index(token), -len(token), token) for token in self._special if token in text]
        return min(places)[2] if places else None

    def _last_special(self, text: str) -> str | None:
        places = [(text.rindex(token) + len(token), len(token), token) for token in self._special if token in text]
        return max(places)[2] if places else None

    def _write(self, *messages: TemplateMessage) -> str:
        template = self._template
        offers = any(message.get("tool_calls") for message in messages) and template.writes_tools
        return template.probe(list(messages), [_tool()] if offers else None)

    @cached_property
    def _after_last(self) -> str:
        return self._write(plain("user", "a"), plain("assistant", SENTINEL)).partition(SENTINEL)[2]

    @cached_property
    def _after_middle(self) -> str:
        written = self._write(
            plain("user", "a"), plain("assistant", SENTINEL), plain("user", OTHER_SENTINEL), plain("assistant", "c")
        )
        after, parts, _ = written.partition(SENTINEL)[2].partition(OTHER_SENTINEL)
        return after if parts else ""

    @cached_property
    def _middle(self) -> str:
        """The end of an earlier answer: what stands before the header of the user's message that follows it."""
        between = self._after_middle
        if not between or self._template.common(between, self.text) == self.text != "":
            return ""
        first = self._write(plain("user", OTHER_SENTINEL)).partition(OTHER_SENTINEL)[0]
        if first.endswith(between):  # all of it is a header, unless another message ends before it
            before = first[: len(first) - len(between)]
            if not re.search(r"\w", _without(before, self._special)):
                return ""
            return self._first_special(between) or ""
        end = between[: len(between) - len(_common_end(between, first))]
        token = self._first_special(end)
        return end[: end.index(token) + len(token)] if token else ""

    @cached_property
    def _calls(self) -> set[str]:
        """Special tokens that end a message with calls."""
        style = self._template.calls
        if style is None:
            return set()
        form = self._template.notation.form
        closers = set(form.closers) if form else set()
        ends = set()
        for content in ("", "I look."):
            one = self._write(plain("user", "a"), self._asks(content, SENTINEL))
            tail = one.rpartition(SENTINEL)[2] if SENTINEL in one else ""
            if content and content in tail:
                tail = tail.rpartition(content)[2]
            two = self._write(plain("user", "a"), self._asks(content, SENTINEL, OTHER_SENTINEL))
            between = two.partition(SENTINEL)[2].rpartition(OTHER_SENTINEL)[0] if OTHER_SENTINEL in two else ""
            token = self._last_special(tail)
            if token and not (self.text and self.text in tail) and token not in between and token not in closers:
                ends.add(token)
        return ends

    def _asks(self, content: str, *values: str) -> TemplateMessage:
        style = self._template.calls
        assert style is not None
        calls = []
        for index, value in enumerate(values):
            arguments: Any = {"x": value} if style.arguments == "object" else f'{{"x": "{value}"}}'
            calls.append(
                {"id": f"call0000{index}", "type": "function", "function": {"name": "probe", "arguments": arguments}}
            )
        return style.content({**plain("assistant", content), "tool_calls": calls})


def _tool() -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": ["x"]}
    return {"type": "function", "function": {"name": "probe", "description": "probe", "parameters": parameters}}


def _without(text: str, tokens: set[str]) -> str:
    for token in sorted(tokens, key=len, reverse=True):
        text = text.replace(token, "")
    return text


def _common_end(one: str, other: str) -> str:
    """The longest text that both end with, from its first whole mark on."""
    length = 0
    while length < min(len(one), len(other)) and one[-length - 1] == other[-length - 1]:
        length += 1
    end = one[len(one) - length :]
    index = next((i for i, letter in enumerate(end) if letter in "<[\n｜"), None)
    return end if index is None or not re.search(r"^\w*[|>\]]", end) else end[index:]
