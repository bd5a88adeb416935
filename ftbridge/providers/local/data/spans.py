"""Where each assistant message lies in what a chat template writes for a conversation.

    …<|im_start|>assistant⏎I look.<tool_call>{"name": "f", "arguments": {"x": "y"}}</tool_call><|im_end|>⏎<|im_start|>tool…
                           ├──────────────── own region, found with sentinels ───┤
                           └───────────────────────── span, with its end ──────────────────────┘

The prompt for an earlier message should be a prefix of the whole. Where a template writes history otherwise than it asks, the
span begins after the header, and is marked as not aligned: the last answer is always trained after the very prompt that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ftbridge.providers.local.data.ends import Ends
from ftbridge.providers.local.data.template import (
    OTHER_SENTINEL,
    SENTINEL,
    ChatTemplate,
    RenderError,
    TemplateMessage,
    Tools,
)

Write = Callable[[Sequence[TemplateMessage]], str | None]
"""Writes changed messages as the text under inspection was written; None when the template refuses them."""


class Span(NamedTuple):
    """Characters `start` to `end`; `aligned`: the text before them is the prompt that asks for them.

    `whole`: no tool's result is written within the message.
    """

    start: int
    end: int
    aligned: bool = True
    is_whole: bool = True


@dataclass(frozen=True)
class Spans:
    """Finds spans with one template and its ends."""

    template: ChatTemplate
    ends: Ends

    def earlier(
        self, messages: Sequence[TemplateMessage], tools: Tools, text: str
    ) -> list[tuple[TemplateMessage, Span]]:
        """Every assistant message with its span in `text`, the prompt of `messages`, in order.

        One that is not trained and cannot be found is left out. Raises `RenderError` for one that is trained.
        """
        spans: list[tuple[TemplateMessage, Span]] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            reached = spans[-1][1].end if spans else 0
            try:
                spans.append((message, self._earlier(messages, tools, index, text, reached)))
            except RenderError:
                if message["trained"]:
                    raise
        return spans

    def edges(self, messages: Sequence[TemplateMessage], tools: Tools, text: str) -> list[tuple[int, int]]:
        """Where earlier answers begin and end in a prompt: those of `earlier`, but found without rendering where that is plain.

        A header with a mark of the template stands nowhere but before an answer, since marks within messages are guarded. If
        the answer's own text and its end follow, the answer is there. So a long conversation is rendered once, and not once
        for each answer.
        """
        header, end = self.template.header, self.ends.text
        plain = bool(end.strip()) and any(mark in header for mark in self.template.marks)
        edges: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            reached = edges[-1][1] if edges else 0
            edge = self._plain(message, text, header, end, reached) if plain else None
            if edge is None:
                try:
                    edge = self._earlier(messages, tools, index, text, reached)[:2]
                except RenderError:
                    continue
            edges.append(edge)
        return edges

    def _plain(
        self, message: TemplateMessage, text: str, header: str, end: str, reached: int
    ) -> tuple[int, int] | None:
        content = message.get("content")
        start = text.find(header, reached)
        if start < 0 or not content or message.get("tool_calls"):
            return None
        start += len(header)
        for written in (content, content.strip()):
            if written and text.startswith(written + end, start):
                return start, start + len(written) + len(end)
        return None

    def last(self, messages: Sequence[TemplateMessage], tools: Tools) -> tuple[str, str]:
        """What the last message, an assistant's, adds to the prompt of those before it: its text with its end, and layout."""
        template, index = self.template, len(messages) - 1
        before, message = messages[:-1], messages[-1]
        text = template.render(messages, tools)
        prompt = template.prompt(before, tools)
        write: Write = lambda changed: template.attempt(changed, tools)  # noqa: E731
        first, last = self._region(write, messages, index, text)
        start = self._start(messages, tools, index, text, first, 0, prompt, write)
        start += self._skipped(text[start:first], prompt)
        end = self._end(text, last, len(text), None)
        body = text[start:end]
        if template.opens_reasoning(prompt) and not self._closes_in(text[start:first], message):
            pair = template.notation.reasoning
            assert pair is not None
            body = f"\n{pair[1].strip()}\n\n{body.lstrip()}"
        rest = text[end:]
        return self._ended(body), "" if rest.strip() else rest

    def bare(self, text: str) -> str:
        """An answer without the ends behind it."""
        while (end := next((one for one in self.ends.texts if text.endswith(one)), None)) is not None:
            text = text[: -len(end)]
        return text

    # One earlier message

    def _earlier(self, messages: Sequence[TemplateMessage], tools: Tools, index: int, text: str, reached: int) -> Span:
        template, at = self.template, messages[index]["at"]
        prompt = template.attempt(messages[:index], tools, generation=True)
        aligned = prompt is not None and text.startswith(prompt)
        write: Write = lambda changed: template.attempt(changed, tools, generation=True)  # noqa: E731
        first, last = self._region(write, messages, index, text)
        bound = self._bound(messages, tools, index, text, last)
        header = template.header
        again = aligned and header.strip() and prompt is not None and text.startswith(header, len(prompt))
        if aligned and prompt is not None and len(prompt) <= first and not again:
            start = len(prompt)
        else:
            aligned = False
            start = self._start(messages, tools, index, text, first, reached, prompt, write)
            start += template.empty_reasoning(text[start:first]) if not template.thinking else 0
        if start < reached:
            raise RenderError(f"messages[{at}] is not written after the completion before it")
        through = template.attempt(messages[: index + 1], tools)
        end = self._end(text, last, bound, through)
        span = Span(start, end, aligned)
        return self._without_results(messages, tools, index, text, span, through)

    def _region(self, write: Write, messages: Sequence[TemplateMessage], index: int, text: str) -> tuple[int, int]:
        """First and last character of what the message itself says: what changes when it does."""
        message = messages[index]
        content = (message.get("content") or "").strip()
        first = last = None
        for variant, ends in self._variants(message):
            other = write([*messages[:index], variant, *messages[index + 1 :]])
            if other is None or SENTINEL not in other:
                continue
            lead, after = other[: other.index(SENTINEL)], other[other.rindex(SENTINEL) + len(SENTINEL) :]
            length = len(lead) if text.startswith(lead) else len(self.template.common(text, lead))
            shared = len(after) if text.endswith(after) else _common_end(text, after)
            end = len(text) - shared
            if not text.startswith(lead) and end <= length:
                continue
            first = length if first is None else min(first, length)
            if ends:
                last = end if last is None else max(last, end)
        if first is None or last is None or last < first or (content and not _holds(text[first:last], message)):
            if content and text.count(content) == 1:
                return text.index(content), text.index(content) + len(content)
            if message.get("tool_calls") and content and content not in text:
                raise RenderError(
                    f"messages[{message['at']}] has text beside its calls, which this model's chat template leaves out"
                )
            raise RenderError(
                f"messages[{message['at']}] cannot be found in the text that this model's chat template writes"
            )
        return first, last

    def _variants(self, message: TemplateMessage) -> list[tuple[TemplateMessage, bool]]:
        """The message with a sentinel in place of its text, its reasoning, its calls' names and their arguments.

        With each, whether it tells where the message ends: a call's name may be written again with its result.
        """
        variants = []
        key, calls = self.template.reasoning_key, message.get("tool_calls") or []
        if message.get("content") or not calls:
            variants.append(({**message, "content": SENTINEL}, True))
        if key is not None and message.get(key):
            variants.append(({**message, key: SENTINEL}, True))
        style = self.template.calls
        if calls and style is not None:
            value: Any = {"x": SENTINEL} if style.arguments == "object" else f'{{"x": "{SENTINEL}"}}'
            for index in {0, len(calls) - 1}:
                changed = {**calls[index], "function": {**calls[index]["function"], "arguments": value}}
                variants.append(({**message, "tool_calls": [*calls[:index], changed, *calls[index + 1 :]]}, True))
            changed = {**calls[0], "function": {**calls[0]["function"], "name": SENTINEL}}
            variants.append(({**message, "tool_calls": [changed, *calls[1:]]}, False))
        return variants

    def _start(
        self,
        messages: Sequence[TemplateMessage],
        tools: Tools,
        index: int,
        text: str,
        first: int,
        reached: int,
        prompt: str | None,
        write: Write,
    ) -> int:
        """Where the message begins: after its prompt, or after the header of an answer."""
        header = self.template.header
        if prompt is not None and text.startswith(prompt) and len(prompt) <= first:
            again = header.strip() and text.startswith(header, len(prompt)) and len(prompt) + len(header) <= first
            return len(prompt) + (len(header) if again else 0)
        written = self.template.attempt(messages[:index], tools)
        if written is not None and text.startswith(written):
            reached = max(reached, min(len(written), first))
            if header and text.startswith(header, len(written)):
                return len(written) + len(header)
        behind, tail = self._behind(messages, tools, index, text, first, write)
        reached = max(reached, behind)
        for one in (header, header.rstrip()):
            start = text.rfind(one, reached, first) if one.strip() else -1
            if start >= 0:
                return start + len(one)
        for one in self._tails(tail):
            start = text.rfind(one, reached, first)
            if start >= 0:
                return start + len(one)
        if prompt is not None:
            shared = len(self.template.common(text, prompt))
            calls = messages[index].get("tool_calls")
            if reached <= shared <= first and (calls or not self._has_words(text[shared:first])):
                return shared
        return max(reached, first)

    def _has_words(self, text: str) -> bool:
        """Whether a text has letters beside the template's marks: someone's words, or a header's."""
        marks = set(self.template.marks)
        return any(piece not in marks and any(map(str.isalnum, piece)) for piece in self.template.pieces(text))

    def _behind(
        self, messages: Sequence[TemplateMessage], tools: Tools, index: int, text: str, first: int, write: Write
    ) -> tuple[int, str]:
        """Where the text of the message before ends, so that none of it is trained, and what its prompt has after that."""
        if index == 0:
            return 0, ""
        changed = [*messages[: index - 1], {**messages[index - 1], "content": OTHER_SENTINEL}, *messages[index:]]
        prompt = self.template.attempt(changed[:index], tools, generation=True) or ""
        tail = prompt.rpartition(OTHER_SENTINEL)[2] if OTHER_SENTINEL in prompt else ""
        other = write(changed)
        if other is None or OTHER_SENTINEL not in other:
            return 0, tail
        after = other.rpartition(OTHER_SENTINEL)[2]
        end = len(text) - len(after)
        return (end if text.endswith(after) and end <= first else 0), tail

    def _tails(self, text: str) -> list[str]:
        """The ends of a text from each of its marks and words on, longest first, each also without white space at its end."""
        pieces = list(self.template.pieces(text))
        tails = ["".join(pieces[index:]) for index in range(len(pieces)) if pieces[index].strip()]
        return [one for tail in tails for one in dict.fromkeys((tail, tail.rstrip()))]

    def _skipped(self, between: str, prompt: str) -> int:
        """Characters between header and text that the prompt has already, or that reasoning turned off leaves out."""
        template = self.template
        if template.thinking:
            pair = template.notation.reasoning
            if pair is not None and template.opens_reasoning(prompt) and between.lstrip().startswith(pair[0].strip()):
                return between.index(pair[0].strip()) + len(pair[0].strip())
            return 0
        if template.empty_reasoning(between):
            return template.empty_reasoning(between)
        lead = (template.lead or "").removeprefix(template.header)
        if lead.strip() and prompt.endswith(lead) and between.startswith(lead):
            return len(lead)
        return 0

    def _closes_in(self, between: str, message: TemplateMessage) -> bool:
        pair = self.template.notation.reasoning
        key = self.template.reasoning_key
        if pair is None or (key is not None and message.get(key)):
            return True
        return pair[1].strip() in between or pair[1].strip() in (message.get("content") or "")

    # The end

    def _bound(self, messages: Sequence[TemplateMessage], tools: Tools, index: int, text: str, last: int) -> int:
        """Where the next message says something: no end of this one lies beyond."""
        for index_after in range(index + 1, len(messages)):
            variant = {**messages[index_after], "content": OTHER_SENTINEL}
            other = self.template.attempt(
                [*messages[:index_after], variant, *messages[index_after + 1 :]], tools, generation=True
            )
            if other is not None and OTHER_SENTINEL in other:
                end = other.index(OTHER_SENTINEL)
                return end if end >= last and text[:end] == other[:end] else len(text)
        return len(text)

    def _end(self, text: str, last: int, bound: int, through: str | None) -> int:
        """After the first end that stands behind the text, or after what the template writes there in any place."""
        tail = text[last:bound]
        if through is not None:
            alone = through[last:] if through[:last] == text[:last] else ""
            common_end = self.template.common(tail, alone)
            if (end := self.ends.find(common_end, 0, len(common_end))) is not None:
                return last + end
            if common_end.strip():
                return last + len(common_end.rstrip())
        if (end := self.ends.find(tail, 0, len(tail))) is not None:
            return last + end
        blank = self.ends.text
        if blank and not blank.strip() and text.startswith(blank, last):
            return last + len(blank)
        if through is None and bound == len(text):
            return last + len(tail.rstrip())
        return last

    def _ended(self, body: str) -> str:
        """A last answer that the template does not end, with the end of sequence."""
        ends = self.ends
        if any(body.endswith(end) for end in ends.texts):
            return body
        eos = ends.eos
        if not eos:
            raise RenderError(
                "cannot be trained on: neither this model's chat template nor its tokenizer ends a completion"
            )
        self.template.note(f"this chat template does not end the last completion; {eos} is put after it")
        return body + eos

    def _without_results(
        self, messages: Sequence[TemplateMessage], tools: Tools, index: int, text: str, span: Span, through: str | None
    ) -> Span:
        """The span up to the first result of a tool that the template writes within it."""
        if not messages[index].get("tool_calls"):
            return span
        for index_after in range(index + 1, len(messages)):
            if messages[index_after]["role"] != "tool":
                break
            variant = {**messages[index_after], "content": OTHER_SENTINEL}
            other = self.template.attempt(
                [*messages[:index_after], variant, *messages[index_after + 1 :]], tools, generation=True
            )
            if other is None or OTHER_SENTINEL not in other:
                continue
            position = other.index(OTHER_SENTINEL)
            if span.start <= position < span.end:
                shared = len(self.template.common(text, through or ""))
                end = min(shared, position) if shared > span.start else position
                stop = self.ends.find(text, end, position)
                if stop is not None and text[end:stop].strip() in self.ends.texts:  # the call's own end
                    end = stop
                calls_end = max(
                    (text.rfind(call["function"]["name"], span.start, end) for call in messages[index]["tool_calls"]),
                    default=-1,
                )
                if calls_end < 0:
                    raise RenderError(
                        f"messages[{messages[index]['at']}]: this model's chat template writes the tool's result "
                        "inside it, where the call cannot be separated"
                    )
                self.template.note(
                    "this chat template writes a tool's result inside the message that calls it; only the part of "
                    "that message before the result is trained on"
                )
                return Span(span.start, end, span.aligned, is_whole=False)
            break
        return span


def _holds(span: str, message: TemplateMessage) -> bool:
    """Whether a span holds the end of the message's own text."""
    content = (message.get("content") or "").strip()
    visible = content.rsplit("</think>", 1)[-1].strip() or content
    return visible in span


def _common_end(one: str, other: str) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-length - 1] == other[-length - 1]:
        length += 1
    return length
