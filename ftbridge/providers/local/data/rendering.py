"""Messages to tokens and loss masks, for any chat template.

    text     <|im_start|>user⏎Capital of France?<|im_end|>⏎<|im_start|>assistant⏎Paris.<|im_end|>⏎
             └────────────── prompt(messages before) ──────────────────────────┘
                                                                                └── trained ─┘
    tokens   ├─────────────────── cut here, at every answer ───────────────────┤├─────────────┤

No template marks what is trained, and no list of templates is ever complete, so the mask is derived by rendering:

- The last answer stands after the very prompt that asks for it: the sequence is that prompt, then the answer with its end.
- An earlier answer is trained in the same sequence where the template writes it as it is asked for. Elsewhere (templates that
  drop reasoning from history) it is trained in a sequence of its own (`sequences`), and `notes` says so.
- Reasoning is on or off (`thinking`). Off, the empty block that a template writes before an answer belongs to the prompt. On,
  reasoning in the data is trained. "auto" is on for an example with reasoning that the template can write.
- An answer ends with what the template writes after it (`ends`); a tool's result, and the next header, are never trained.
- What cannot be found is an error that names the message, and so is any message or tool that the template loses. There is no
  silent empty mask.

Text is tokenised from answer to answer, in `example` and `prompt` alike, so that no token straddles a border and the tokens
before an answer are those the model will be asked with. Marks of the template within a message are cut: they stay text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ftbridge.data.examples import ChatExample, Message
from ftbridge.data.notation import Notation, Reply, read_reply, reasoning_of
from ftbridge.providers.local.data.ends import Ends
from ftbridge.providers.local.data.marks import Guard
from ftbridge.providers.local.data.messages import NO_CALLS, for_template, tools_of
from ftbridge.providers.local.data.spans import Span, Spans
from ftbridge.providers.local.data.template import SENTINEL, ChatTemplate, RenderError, TemplateMessage

Edges = tuple[int, int]
Thinking = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Rendered:
    """Tokens of one conversation; `trained[i]` says that the loss falls on predicting token i."""

    input_ids: list[int]
    loss_mask: list[bool]

    @property
    def n_tokens(self) -> int:
        """All tokens."""
        return len(self.input_ids)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens the loss falls on."""
        return sum(self.loss_mask)


def explain(rendered: Rendered, tokenizer: Any) -> list[tuple[str, bool]]:
    """Consecutive pieces of text, each with whether the loss falls on it, for people to look at."""
    pieces: list[tuple[str, bool]] = []
    start = 0
    for length in range(1, rendered.n_tokens + 1):
        if length == rendered.n_tokens or rendered.loss_mask[length] != rendered.loss_mask[start]:
            text = tokenizer.decode(rendered.input_ids[start:length], skip_special_tokens=False)
            pieces.append((text, rendered.loss_mask[start]))
            start = length
    return pieces


_APART = (
    "this chat template writes some earlier answers otherwise than it asks for them, or after another prompt: each of them "
    "is trained after the prompt that asks for it, in a sequence of its own"
)


@dataclass(frozen=True)
class _Written:
    """A conversation as the template writes it: the prompt, then the answer where the last message is one, then layout.

    `earlier` are the answers within the prompt, each with its place in the text.
    """

    messages: list[TemplateMessage]
    tools: list[dict[str, Any]] | None
    text: str
    prompt: str
    completion: str
    earlier: list[tuple[TemplateMessage, Span]]
    spans: Spans
    guard: Guard


class Renderer:
    """Renders with one tokenizer's chat template.

    Args:
        tokenizer: A fast tokenizer, or a `LightTokenizer`.
        thinking: Whether prompts ask for reasoning, and reasoning in the data is trained. "auto": as each example has it; once
            an example with reasoning was rendered, prompts ask for reasoning too.

    `notes` tells where the template needed help; `end_of_turn` holds the tokens that stop generation, `stop_strings` the texts.
    Raises `RenderError` when the tokenizer has no offsets, no chat template, or nothing that can end an answer.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking = "auto") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise RenderError(
                "this model's tokenizer cannot tell which characters a token covers (it is not a fast one)"
            )
        self.tokenizer = tokenizer
        self.thinking: Thinking = thinking
        self.notes: list[str] = []
        self._saw_reasoning = False
        self._within: frozenset[int] = frozenset()
        self._by_thinking: dict[bool, tuple[ChatTemplate, Spans]] = {}
        self._listed = _listed_ends(tokenizer)
        self._all_ends = self._find_ends()
        self._spans.template.opening(False)  # what is wrong with the template is told before any example

    def example(self, example: ChatExample) -> Rendered:
        """Tokens and mask of a whole conversation, each answer trained where the template writes it. Raises `RenderError`."""
        written = self._written(example, self._thinks(example.messages), strict=True)
        chosen = [(message, span) for message, span in written.earlier if message["trained"]]
        if not all(span.aligned for _, span in chosen):
            self.note(_APART)
        if not chosen and not (written.completion and written.messages[-1]["trained"]):
            raise RenderError("has no assistant message to train on")
        return self._rendered(written, [span for _, span in chosen], last=written.messages[-1]["trained"])

    def sequences(self, example: ChatExample) -> list[Rendered]:
        """What is trained of a conversation: every answer after the very prompt that asks for it. Raises `RenderError`.

        One sequence holds all answers that stand in it as they would be asked for and written alone. Where the template
        writes an earlier answer otherwise in history (without its reasoning, after another prompt, without an end that stops
        generation), that answer is trained in a sequence of its own, which ends with it.
        """
        thinks = self._thinks(example.messages)
        waiting = [index for index, message in enumerate(example.messages) if message.trained]
        if not waiting:
            raise RenderError("has no assistant message to train on")
        if len(waiting) == 1 and waiting[0] == len(example.messages) - 1:
            return [self.example(example)]
        sequences: list[Rendered] = []
        while waiting:
            last = waiting.pop()
            part = self._written(example.model_copy(update={"messages": example.messages[: last + 1]}), thinks)
            chosen = {
                message["at"]: span
                for message, span in part.earlier
                if message["at"] in waiting and self._stands_alone(part, message, span)
            }
            waiting = [at for at in waiting if at not in chosen]
            sequences.append(self._rendered(part, list(chosen.values()), last=True))
        if len(sequences) > 1:
            self.note(_APART)
        return sequences

    def _stands_alone(self, part: _Written, message: TemplateMessage, span: Span) -> bool:
        """Whether an earlier answer is written in history as it is asked for, and ends with what stops generation."""
        if not (span.aligned and span.is_whole):
            return False
        index = next(index for index, one in enumerate(part.messages) if one["at"] == message["at"])
        text = part.text[span.start : span.end]
        try:
            completion, _ = part.spans.last(part.messages[: index + 1], part.tools)
        except RenderError:
            return True  # the template writes it nowhere else
        bare = part.spans.bare(text)
        if bare != part.spans.bare(completion):
            return False
        ending = text[len(bare) :]
        if ending in self.stop_strings:
            return True
        ends = self._ends_behind(part.text[: span.start])
        return any(token in ends for token in self._ids(ending))

    def _written(self, example: ChatExample, thinks: bool, *, strict: bool = False) -> _Written:
        """A conversation as the template writes it. Raises `RenderError`, also for a lost earlier answer where `strict`."""
        self._saw_reasoning |= thinks and any(reasoning_of(one) for one in example.messages if one.trained)
        template, spans = self._with(thinks)
        guard = Guard(template, example.messages, tools_of(example))
        messages, tools = for_template(guard.messages, template), guard.tools
        if messages[-1]["role"] == "assistant":
            before, (completion, layout) = messages[:-1], spans.last(messages, tools)
        else:
            before, (completion, layout) = messages, ("", "")
        prompt = template.prompt(before, tools)
        text = prompt + completion + layout
        self._require_tools(text, tools, template)
        self._require_messages(messages, tools, text, template)
        if completion:
            self._require_answer(messages[-1], completion)
        self._note_lost_reasoning(example.messages if strict else example.messages[-1:], text, template)
        history = before if strict else [{**message, "trained": False} for message in before]
        earlier = spans.earlier(history, tools, prompt)
        return _Written(messages, tools, text, prompt, completion, earlier, spans, guard)

    def _rendered(self, written: _Written, chosen: Sequence[Span], *, last: bool) -> Rendered:
        """Tokens of a conversation, trained within the chosen spans and, where `last`, within the last answer."""
        start, end = len(written.prompt), len(written.prompt) + len(written.completion)
        loss_spans = [(span.start, span.end) for span in chosen]
        if written.completion and last:
            loss_spans.append((start, end))
        cuts = [edge for _, span in written.earlier for edge in (span.start, span.end)]
        for left, right in loss_spans:
            self._look_within(written.text[left:right])
        return self._tokens(written.text, [*cuts, start, end], loss_spans, written.guard)

    def _look_within(self, completion: str) -> None:
        """Find ends that stand within an answer, before more of its text: they end a part of it."""
        special = self._template.special
        for token in self._all_ends & set(special):
            rest = completion.partition(special[token])[2]
            for text in special.values() if rest else ():
                rest = rest.replace(text, "")
            if any(map(str.isalnum, rest)):
                self._within |= {token}

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), thinking: bool | None = None
    ) -> list[int]:
        """Tokens up to where the assistant's answer begins: a prefix of what `example` gives for the conversation.

        `thinking` asks with reasoning or without it; None is the renderer's own choice.
        """
        thinks = self._thinks_in_prompts(messages) if thinking is None else thinking
        template, spans = self._with(thinks)
        guard = Guard(template, messages, list(tools) or None)
        documents, offered = for_template(guard.messages, template), guard.tools
        text = template.prompt(documents, offered)
        self._require_tools(text, offered, template)
        self._require_messages(documents, offered, text, template)
        untrained = [{**message, "trained": False} for message in documents]
        cuts = [edge for edges in spans.edges(untrained, offered, text) for edge in edges]
        return self._tokens(text, cuts, [], guard).input_ids

    def read(self, prompt: Sequence[int], new: Sequence[int], tools: Sequence[dict[str, Any]] | None = None) -> Reply:
        """A completion's text, reasoning and calls. `new` may go on behind the end of the turn; `prompt` is what it answers."""
        text = self.text_of(new, prompt)
        return read_reply(text, self.notation, self.opens_reasoning(prompt), tools)

    def text_of(self, new: Sequence[int], prompt: Sequence[int] = ()) -> str:
        """A completion's text up to its end, with the special tokens of the template's notation and no others."""
        end = self.end_of(new, prompt)
        hidden = self.hidden(self.notation)
        shown = [token for token in (new if end is None else new[:end]) if token not in hidden]
        text: str = self.tokenizer.decode(shown, skip_special_tokens=False)
        places = [start for string in self.stop_strings if (start := text.find(string)) >= 0]
        return text[: min(places)] if places else text

    def hidden(self, notation: Notation) -> frozenset[int]:
        """The special tokens that are not part of a completion's text: all but the marks of its notation."""
        marks = notation.marks
        return frozenset(
            token for token, text in self._template.special.items() if not any(text in mark for mark in marks)
        )

    @property
    def reasons(self) -> bool:
        """Whether the template knows reasoning: its marks, its channels, or a variable that switches it."""
        template = self._template
        switched = self._with(True)[0].generation_prompt != self._with(False)[0].generation_prompt
        return template.names_reasoning or template.notation.channels or switched

    @property
    def takes_effort(self) -> bool:
        """Whether the template has a variable for how much to reason, as gpt-oss's has."""
        return "reasoning_effort" in self._template.source

    def end_of(self, new: Sequence[int], prompt: Sequence[int] = ()) -> int | None:
        """The place of the token that ends a completion; None while it goes on. `prompt` is what it answers, where known."""
        ends = self.ends_after(prompt)
        return next((index for index, token in enumerate(new) if token in ends), None)

    def ends_after(self, prompt: Sequence[int]) -> frozenset[int]:
        """Tokens that stop generation after this prompt.

        Where a completion may be several messages with channels, what ends one that is not the last stops nothing.
        """
        if not prompt or not self.notation.channels:
            return self.end_of_turn
        return self._ends_behind(self.tokenizer.decode(list(prompt[-1:]), skip_special_tokens=False))

    def _ends_behind(self, prompt: str) -> frozenset[int]:
        several = self.notation.channels and not prompt.rstrip().endswith("<|message|>")
        return self.end_of_turn - self._after_reasoning if several else self.end_of_turn

    def stops(self, new: Sequence[int]) -> bool:
        """Whether a text that ends an answer stands in these tokens."""
        if not self.stop_strings:
            return False
        text: str = self.tokenizer.decode(list(new), skip_special_tokens=False)
        return any(string in text for string in self.stop_strings)

    def opens_reasoning(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends within a block of reasoning."""
        tail: str = self.tokenizer.decode(list(prompt[-24:]), skip_special_tokens=False)
        return self._template.opens_reasoning(tail)

    @property
    def notation(self) -> Notation:
        """How the template writes reasoning and calls."""
        return self._template.notation

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer and are not a single token."""
        return tuple(text for text in self._ends.strings if len(self._ids(text)) > 1)

    @property
    def end_text(self) -> str:
        """What the template writes after an assistant's last answer, without the white space that follows it."""
        return self._ends.text or self._ends.eos or ""

    @property
    def end_of_turn(self) -> frozenset[int]:
        """Tokens that stop generation.

        What ends the reasoning of a completion does not, where completions have reasoning, nor what was seen within an answer.
        """
        ends = self._all_ends - self._within
        if self.thinking == "off" or not (self.thinking == "on" or self._saw_reasoning):
            return ends
        return ends - self._after_reasoning

    @cached_property
    def _after_reasoning(self) -> frozenset[int]:
        template = self._with(True)[0]
        return frozenset(n for n, token in template.special.items() if token and token in template.after_reasoning)

    def _find_ends(self) -> frozenset[int]:
        """Tokens that end an assistant's turn: all that the template writes, and the model's ends of sequence."""
        ends = self._ends
        special_ids = {text: number for number, text in self._template.special.items()}
        ids = {special_ids[token] for token in ends.tokens if token in special_ids}
        written = self._ids(ends.text)
        if not any(token in special_ids for token in (ends.text, *ends.tokens)) or (ends.text and not ids):
            ids |= set(written) if len(written) == 1 else set()
        if ends.text and not ends.text.strip():
            ids |= set(written) if len(written) == 1 else set()
            self.note("only white space ends an answer in this chat template: answers stop at the first of it")
        elif self.stop_strings:
            self.note(
                f"no single token ends an answer in this chat template ({ends.text!r}): elsewhere answers may run on"
            )
        if not ends.text and not ends.eos:
            raise RenderError("cannot be trained: neither this model's chat template nor its tokenizer ends an answer")
        if self.tokenizer.eos_token_id is not None:
            ids.add(int(self.tokenizer.eos_token_id))
        return frozenset(ids | self._listed)

    @cached_property
    def pad_id(self) -> int:
        """A valid id for padding. It may equal an end of turn: padding is masked by position, never by id."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    # Reasoning

    def _thinks(self, messages: Sequence[Message]) -> bool:
        """Whether an example is rendered with reasoning."""
        if self.thinking != "auto":
            return self.thinking == "on" and self._with(True)[0].can_reason
        if not any(reasoning_of(message) for message in messages if message.trained):
            return False
        template, _ = self._with(True)
        return template.can_reason and (template.reasoning_key is not None or template.writes_inline_reasoning)

    def _thinks_in_prompts(self, messages: Sequence[Message]) -> bool:
        wanted = self.thinking == "on" or (self.thinking == "auto" and self._saw_reasoning)
        return wanted and self._with(True)[0].can_reason

    def _with(self, thinking: bool) -> tuple[ChatTemplate, Spans]:
        if thinking not in self._by_thinking:
            template = ChatTemplate(self.tokenizer, thinking, self.notes)
            names = {token for number, token in template.special.items() if number in self._listed}
            eos = str(self.tokenizer.eos_token) if self.tokenizer.eos_token else None
            self._by_thinking[thinking] = template, Spans(template, Ends(template, eos, names))
        return self._by_thinking[thinking]

    @property
    def _template(self) -> ChatTemplate:
        return self._with(self.thinking == "on")[0]

    @property
    def _spans(self) -> Spans:
        return self._with(self.thinking == "on")[1]

    @property
    def _ends(self) -> Ends:
        return self._spans.ends

    def note(self, text: str) -> None:
        """Note something once."""
        if text not in self.notes:
            self.notes.append(text)

    def _note_lost_reasoning(self, messages: Sequence[Message], text: str, template: ChatTemplate) -> None:
        thoughts = [reasoning_of(message) for message in messages if message.trained]
        if not any(thought and thought.strip() not in text for thought in thoughts):
            return
        if template.thinking:
            self.note("this chat template leaves out the reasoning of some answers; what it leaves out is not trained")
        elif self.thinking == "off":
            self.note("reasoning that is given is not trained: local.thinking is off")
        else:
            self.note(
                "reasoning that is given is not trained: this chat template leaves out the reasoning of answers, or asks "
                "with an empty block of it"
            )

    # Text to tokens

    def _tokens(self, text: str, cuts: Sequence[int], spans: Sequence[Edges], guard: Guard) -> Rendered:
        """Tokens of the text, cut at the answers; a token is trained when it begins within a span."""
        text, move = guard.open(text)
        spans = [(move(start), move(end)) for start, end in spans]
        edges = sorted({0, len(text), *(move(cut) for cut in cuts), *guard.cuts})
        ids: list[int] = []
        flags: list[bool] = []
        for part, offsets in self._encode([text[left:right] for left, right in pairwise(edges)]):
            ids += part
            flags += [False] * len(part)
            first = len(flags) - len(part)
            for start, end in spans:
                for index, (left, right) in enumerate(offsets, first):
                    if left < end and (left >= start or right > start):
                        flags[index] = True
        return Rendered(ids, flags)

    def _encode(self, parts: Sequence[str]) -> list[tuple[list[int], list[Edges]]]:
        """Each part's tokens and the characters of the whole text they cover."""
        if not self._prepends_space or len(parts) == 1:
            encoded = self.tokenizer(list(parts), add_special_tokens=False, return_offsets_mapping=True)
            encoded_parts, shift = [], 0
            for part, ids, offsets in zip(parts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
                encoded_parts.append((list(ids), _covered(offsets, shift)))
                shift += len(part)
            return encoded_parts
        encoded_parts, shift = self._encode(parts[:1]), len(parts[0])
        for part in parts[1:]:
            tail = self._continued(part, shift)
            if tail is None:
                return self._encode(["".join(parts)])
            encoded_parts.append(tail)
            shift += len(part)
        return encoded_parts

    def _continued(self, part: str, shift: int) -> tuple[list[int], list[Edges]] | None:
        """Tokens of text that goes on, for tokenizers that put a space before a text; None if they cannot be had."""
        for anchor in ("\n", self.tokenizer.eos_token or ".", "."):
            lead = self._ids(anchor)
            encoded = self.tokenizer(anchor + part, add_special_tokens=False, return_offsets_mapping=True)
            offsets = encoded["offset_mapping"][len(lead) :]
            if encoded["input_ids"][: len(lead)] == lead and all(left >= len(anchor) for left, _ in offsets):
                shifted = [(left - len(anchor), right - len(anchor)) for left, right in offsets]
                return list(encoded["input_ids"][len(lead) :]), _covered(shifted, shift)
        return None

    @cached_property
    def _prepends_space(self) -> bool:
        """Whether the tokenizer puts a space before every text, as SentencePiece's do: a part is not such a text."""
        return bool(self._ids("a") != self._ids("\na")[-len(self._ids("a")) :])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    # What the template must not lose

    def _require_tools(self, text: str, tools: Sequence[dict[str, Any]] | None, template: ChatTemplate) -> None:
        for tool in tools or ():
            name = (tool.get("function") or tool).get("name", "")
            if name not in text or not template.writes_tools:
                raise RenderError(f"offers the tool {name!r}, which this model's chat template does not render")

    def _require_messages(
        self, messages: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None, text: str, template: ChatTemplate
    ) -> None:
        for index, message in enumerate(messages):
            calls = message.get("tool_calls") or []
            if any(call["function"]["name"] not in text for call in calls):
                raise RenderError(NO_CALLS)
            if len(calls) > 1:
                last_call = {**calls[-1], "function": {**calls[-1]["function"], "name": SENTINEL}}
                asks = {**message, "tool_calls": [*calls[:-1], last_call]}
                other = template.attempt([*messages[:index], asks, *messages[index + 1 :]], tools)
                if other is not None and SENTINEL not in other:
                    raise RenderError(
                        f"messages[{message['at']}] makes {len(calls)} calls at once, of which this model's chat template "
                        "does not write all"
                    )
            content = (message.get("content") or "").strip()
            if message["role"] == "assistant" or content in text:
                continue
            # Not there word for word: as JSON, or in part, is well; a template that ignores the message is not.
            changed = [*messages[:index], {**message, "content": SENTINEL}, *messages[index + 1 :]]
            last = changed[-1]["role"] == "assistant"
            other = template.attempt(changed[:-1] if last else changed, tools, generation=True)
            if other is not None and SENTINEL not in other:
                at, role = message["at"], message["role"]
                raise RenderError(f"messages[{at}] (role {role}) is left out by this model's chat template")

    def _require_answer(self, message: TemplateMessage, completion: str) -> None:
        content = (message.get("content") or "").strip()
        text = content.rsplit("</think>", 1)[-1].strip() or content
        names = [call["function"]["name"] for call in message.get("tool_calls") or []]
        if text not in completion or any(name not in completion for name in names):
            raise RenderError(f"messages[{message['at']}] cannot be found in what this model's chat template writes")


def _listed_ends(tokenizer: Any) -> frozenset[int]:
    """The ends of sequence that the model's generation_config.json lists, beside its tokenizer's own."""
    file = Path(str(getattr(tokenizer, "name_or_path", "") or "")) / "generation_config.json"
    try:
        listed = json.loads(file.read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return frozenset()
    numbers = listed if isinstance(listed, list) else [listed]
    return frozenset(number for number in numbers if isinstance(number, int) and not isinstance(number, bool))


def _covered(offsets: Sequence[Edges], shift: int) -> list[Edges]:
    """Characters each token covers, with the white space before it, which some tokenizers leave out of their offsets."""
    covered: list[Edges] = []
    reached = 0
    for left, right in offsets:
        covered.append((min(left, reached) + shift, right + shift))
        reached = max(reached, right)
    return covered
