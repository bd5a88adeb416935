"""Messages to tokens and loss masks, for any chat template.

    text     <|im_start|>user⏎Capital of France?<|im_end|>⏎<|im_start|>assistant⏎Paris.<|im_end|>⏎
             └────────────── prompt(messages before) ──────────────────────────┘
                                                                                └── trained ─┘
    tokens   ├─────────────────── cut here, at every answer ───────────────────┤├─────────────┤

No template marks what is trained, and no list of templates is ever complete, so the mask is derived by rendering:

- An assistant message begins where the prompt for it ends: the model is trained on exactly what it will be asked to
  write. The prompt is the rendering with the template's generation prompt; where the template has none, or opens
  reasoning there that it does not write in conversations, it is the header found by a probe, and `notes` says so.
- It ends with the template's end of turn (found by a probe); white space after that is layout, not answer. Where the
  template writes nothing after a last answer, the tokenizer's end of sequence is added: a model must learn to stop.
- Templates may render a message differently once others follow (reasoning dropped from earlier turns). Where a rendered
  prefix is not a prefix of the whole, the message is found by rendering the whole again with a sentinel in its place.
  For such a message, and for no other, the prompt is not a prefix of the example: the template sees to that.
- A span that does not hold the message's own text is an error that names the message, and so is any message or tool that
  the template loses. There is no silent empty mask.

Text is tokenised from answer to answer, in `example` and `prompt` alike, so that no token straddles the border and the
tokens before an answer are those the model will be asked with. At the borders most templates draw (a special token, a
line break before a word) this gives the tokens of the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from ftbridge.data.examples import ChatExample, Message
from ftbridge.providers.local.messages import NO_CALLS, REASONING, for_template, tools_of
from ftbridge.providers.local.template import SENTINEL, ChatTemplate, RenderError, Told, common, plain

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """Tokens of one conversation; `trained[i]` says that the loss falls on predicting token i."""

    input_ids: list[int]
    trained: list[bool]

    @property
    def n_tokens(self) -> int:
        """All tokens."""
        return len(self.input_ids)

    @property
    def n_trained(self) -> int:
        """Tokens the loss falls on."""
        return sum(self.trained)


def explain(rendered: Rendered, tokenizer: Any) -> list[tuple[str, bool]]:
    """Consecutive pieces of text, each with whether the loss falls on it, for people to look at."""
    pieces: list[tuple[str, bool]] = []
    start = 0
    for place in range(1, rendered.n_tokens + 1):
        if place == rendered.n_tokens or rendered.trained[place] != rendered.trained[start]:
            text = tokenizer.decode(rendered.input_ids[start:place], skip_special_tokens=False)
            pieces.append((text, rendered.trained[start]))
            start = place
    return pieces


class Renderer:
    """Renders with one tokenizer's chat template.

    `notes` tells where the template needed help; `end_of_turn` holds the tokens that stop generation. Raises `RenderError`
    when the tokenizer has no offsets, no chat template, or nothing that can end an answer.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise RenderError(
                "this model's tokenizer cannot tell which characters a token covers (it is not a fast one)"
            )
        self.tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self.notes = self._template.notes
        self.end_of_turn = self._find_ends()

    def example(self, example: ChatExample) -> Rendered:
        """Tokens and mask of a whole conversation. Raises `RenderError`."""
        messages = for_template(example.messages, self._template)
        tools = tools_of(example)
        text = self._template.render(messages, tools)
        self._require_tools(text, tools)
        self._require_messages(messages, tools, text)
        if messages[-1]["role"] == "assistant":
            text += self._added_end
        found = self._spans(messages, tools, text)
        spans = [span for message, span in found if message["trained"]]
        if not spans:
            raise RenderError("has no assistant message to train on")
        return self._tokens(text, [start for _, (start, _) in found], spans)

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Tokens up to where the assistant's answer begins: a prefix of what `example` gives for the conversation."""
        told = for_template(messages, self._template)
        text = self._template.prompt(told, list(tools) or None)
        self._require_tools(text, tools)
        self._require_messages(told, list(tools) or None, text)
        untrained = [{**message, "trained": False} for message in told]
        starts = [start for _, (start, _) in self._spans(untrained, list(tools) or None, text, generation=True)]
        return self._tokens(text, starts, []).input_ids

    @cached_property
    def end_text(self) -> str:
        """What the template writes after every assistant's answer, without the white space that follows it."""
        last = self._after_sentinel([plain("user", "a"), plain("assistant", SENTINEL)])
        middle = [plain("user", "a"), plain("assistant", SENTINEL), plain("user", "b"), plain("assistant", "c")]
        both = common(last or "", self._after_sentinel(middle) or last or "")
        return both.rstrip() or (last or "").rstrip() or both or self._added_end

    def _find_ends(self) -> frozenset[int]:
        """Tokens that end an assistant's turn: the template's own, and the tokenizer's end of sequence."""
        written = self._ids(self.end_text)
        ids = {token for token in written if token in self._special}
        if not ids and len(written) == 1:
            ids = set(written)
        if not ids:
            self._template.note(
                f"no single token ends an answer in this chat template ({self.end_text!r}): answers may run on"
            )
        elif not self.end_text.strip():
            self._template.note(
                "only white space ends an answer in this chat template: answers stop at the first of it"
            )
        if self.tokenizer.eos_token_id is not None:
            ids.add(int(self.tokenizer.eos_token_id))
        return frozenset(ids)

    @cached_property
    def pad_id(self) -> int:
        """A valid id for padding. It may equal an end of turn: padding is masked by position, never by id."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    # Where each answer lies

    def _spans(
        self, messages: list[Told], tools: list[dict[str, Any]] | None, text: str, *, generation: bool = False
    ) -> list[tuple[Told, Span]]:
        """Every assistant message with its span, in order. One that is not trained and cannot be found is left out."""
        found: list[tuple[Told, Span]] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            try:
                span = self._span(messages, tools, index, text, generation)
                if found and span[0] < found[-1][1][1]:
                    raise RenderError(f"messages[{message['at']}] is not written after the answer before it")
            except RenderError:
                if message["trained"]:
                    raise
                continue
            found.append((message, span))
            if message["trained"]:
                self._note_lost_reasoning(message, text[slice(*span)])
        return found

    def _span(
        self, messages: list[Told], tools: list[dict[str, Any]] | None, index: int, text: str, generation: bool
    ) -> Span:
        """Where one assistant message's trained text lies in the whole text."""
        start = end = None
        before = self._template.attempt(messages[:index], tools, generation=True)
        if before is not None and text.startswith(before):
            start = len(before)
        is_last = index == len(messages) - 1 and not generation
        through = text if is_last else self._template.attempt(messages[: index + 1], tools)
        if start is not None and through is not None and text.startswith(through):
            end = start + len(self._without_layout(through[start:]))
        if start is None or end is None or not _holds(text[start:end], messages[index]):
            start, end = self._span_by_sentinel(messages, tools, index, text, start, generation)
        if not _holds(text[start:end], messages[index]):
            at = messages[index]["at"]
            raise RenderError(f"messages[{at}] cannot be found in what this model's chat template writes")
        return start, end

    def _span_by_sentinel(
        self,
        messages: list[Told],
        tools: list[dict[str, Any]] | None,
        index: int,
        text: str,
        start: int | None,
        generation: bool,
    ) -> Span:
        """Render again with a sentinel for the message: what stands around it is not the message."""
        stand_in = {**messages[index], "content": SENTINEL}
        stand_in.pop("tool_calls", None)
        at = messages[index]["at"]
        other = self._template.attempt(
            [*messages[:index], stand_in, *messages[index + 1 :]], tools, generation=generation
        )
        if other is None or other.count(SENTINEL) != 1:
            raise RenderError(f"messages[{at}] cannot be told apart in what this model's chat template writes")
        if not generation and messages[-1]["role"] == "assistant":
            other += self._added_end
        lead, after = other.split(SENTINEL)
        if not text.endswith(after) or (start is None and not text.startswith(lead)):
            raise RenderError(f"messages[{at}] changes how this model's chat template writes the other messages")
        return (len(lead) if start is None else start), len(text) - len(after) + len(self._closing(after))

    def _without_layout(self, span: str) -> str:
        """A rendered message without the white space after its end of turn; all of it when there is no such end."""
        bare = span.rstrip()
        ends = (self.end_text.strip(), *self._special.values())
        return bare if any(end and bare.endswith(end) for end in ends) else span

    def _closing(self, after: str) -> str:
        """The end of turn at the start of what follows an answer."""
        if self.end_text:
            return self.end_text if after.startswith(self.end_text) else ""
        place = len(after) - len(after.lstrip())
        token = next((t for t in self._special.values() if t and after.startswith(t, place)), None)
        return after[:place] + (token or "")

    def _after_sentinel(self, messages: list[Told]) -> str | None:
        text = self._template.attempt(messages, None)
        return text.split(SENTINEL, 1)[1] if text is not None and SENTINEL in text else None

    @cached_property
    def _added_end(self) -> str:
        """The end of sequence that is added where the template writes nothing at all after a last answer."""
        if self._after_sentinel([plain("user", "a"), plain("assistant", SENTINEL)]) != "":
            return ""
        if not self.tokenizer.eos_token:
            raise RenderError("cannot be trained: neither this model's chat template nor its tokenizer ends an answer")
        self._template.note(
            f"this chat template does not end its last answer; {self.tokenizer.eos_token} is put after it"
        )
        return str(self.tokenizer.eos_token)

    def _note_lost_reasoning(self, message: Told, span: str) -> None:
        thoughts = [message[key] for key in REASONING if isinstance(message.get(key), str)]
        thoughts += re.findall(r"<think>(.*?)</think>", message["content"], re.DOTALL)
        if any(thought.strip() not in span for thought in thoughts):
            self._template.note(
                "this chat template leaves out the reasoning of some answers; what it leaves out is not trained"
            )

    # Text to tokens

    def _tokens(self, text: str, cuts: Sequence[int], spans: Sequence[Span]) -> Rendered:
        """Tokens of the text, cut at the answers; a token is trained when it begins within a span."""
        edges = sorted({0, len(text), *cuts})
        ids: list[int] = []
        flags: list[bool] = []
        for part, offsets in self._encode([text[left:right] for left, right in pairwise(edges)]):
            ids += part
            flags += [False] * len(part)
            first = len(flags) - len(part)
            for start, end in spans:
                for place, (left, right) in enumerate(offsets, first):
                    if left < end and (left >= start or right > start):
                        flags[place] = True
        return Rendered(ids, flags)

    def _encode(self, parts: Sequence[str]) -> list[tuple[list[int], list[Span]]]:
        """Each part's tokens and the characters of the whole text they cover."""
        if not self._prepends_space or len(parts) == 1:
            encoded = self.tokenizer(list(parts), add_special_tokens=False, return_offsets_mapping=True)
            found, shift = [], 0
            for part, ids, offsets in zip(parts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
                found.append((list(ids), _covered(offsets, shift)))
                shift += len(part)
            return found
        found, shift = self._encode(parts[:1]), len(parts[0])
        for part in parts[1:]:
            tail = self._continued(part, shift)
            if tail is None:
                return self._encode(["".join(parts)])
            found.append(tail)
            shift += len(part)
        return found

    def _continued(self, part: str, shift: int) -> tuple[list[int], list[Span]] | None:
        """Tokens of text that goes on, for tokenizers that put a space before a text; None if they cannot be had."""
        for anchor in ("\n", self.tokenizer.eos_token or ".", "."):
            lead = self._ids(anchor)
            encoded = self.tokenizer(anchor + part, add_special_tokens=False, return_offsets_mapping=True)
            offsets = encoded["offset_mapping"][len(lead) :]
            if encoded["input_ids"][: len(lead)] == lead and all(left >= len(anchor) for left, _ in offsets):
                kept = [(left - len(anchor), right - len(anchor)) for left, right in offsets]
                return list(encoded["input_ids"][len(lead) :]), _covered(kept, shift)
        return None

    @cached_property
    def _prepends_space(self) -> bool:
        """Whether the tokenizer puts a space before every text, as SentencePiece's do: a part is not such a text."""
        return bool(self._ids("a") != self._ids("\na")[-len(self._ids("a")) :])

    @cached_property
    def _special(self) -> dict[int, str]:
        added = self.tokenizer.added_tokens_decoder
        special = {int(i): token.content for i, token in added.items() if token.special}
        special |= dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        return special

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    # What the template must not lose

    def _require_tools(self, text: str, tools: Sequence[dict[str, Any]] | None) -> None:
        for tool in tools or ():
            name = (tool.get("function") or tool).get("name", "")
            if name not in text or not self._template.writes_tools:
                raise RenderError(f"offers the tool {name!r}, which this model's chat template does not render")

    def _require_messages(self, messages: list[Told], tools: list[dict[str, Any]] | None, text: str) -> None:
        for index, message in enumerate(messages):
            if any(call["function"]["name"] not in text for call in message.get("tool_calls") or ()):
                raise RenderError(NO_CALLS)
            content = message["content"].strip()
            if message["role"] == "assistant" or content in text:
                continue
            # Not there word for word: as JSON, or in part, is well; a template that ignores the message is not.
            other = self._template.attempt(
                [*messages[:index], {**message, "content": SENTINEL}, *messages[index + 1 :]], tools
            )
            if other is not None and SENTINEL not in other:
                at, role = message["at"], message["role"]
                raise RenderError(f"messages[{at}] (role {role}) is left out by this model's chat template")


def _holds(span: str, message: Told) -> bool:
    """Whether a span holds the message's own text: the end of its content, and the tools it calls."""
    content = message["content"].strip()
    kept = content.rsplit("</think>", 1)[-1].strip() or content
    names = [call["function"]["name"] for call in message.get("tool_calls") or []]
    return bool(span) and kept in span and all(name in span for name in names)


def _covered(offsets: Sequence[Span], shift: int) -> list[Span]:
    """Characters each token covers, with the white space before it, which some tokenizers leave out of their offsets."""
    covered: list[Span] = []
    reached = 0
    for left, right in offsets:
        covered.append((min(left, reached) + shift, right + shift))
        reached = max(reached, right)
    return covered
