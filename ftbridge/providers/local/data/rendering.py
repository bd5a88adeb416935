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

The template with and without reasoning is in `thinking`, what ends a completion and reads it in `completions`, what a template
must not lose in `lost_content`.

Text is tokenised from answer to answer, in `example` and `prompt` alike, so that no token straddles a border and the tokens
before an answer are those the model will be asked with. Marks of the template within a message are cut: they stay text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftbridge.data.examples import ChatExample, Message
from ftbridge.data.notation import Notation, reasoning_of
from ftbridge.providers.local.data.completions import CompletionReader
from ftbridge.providers.local.data.lost_content import require_answer, require_messages, require_tools
from ftbridge.providers.local.data.marks import Guard
from ftbridge.providers.local.data.messages import for_template, tools_of
from ftbridge.providers.local.data.spans import Span, Spans
from ftbridge.providers.local.data.template import RenderError, TemplateMessage
from ftbridge.providers.local.data.thinking import Thinking, ThinkingModes
from ftbridge.providers.local.data.tokens import CutTokenizer, Rendered

_APART = (
    "this chat template writes some earlier completions differently in the history than when it generates them: each "
    "of them is trained in a separate sequence, after the prompt that leads to it"
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

    `modes` are the template with reasoning and without it; `completions` reads what the model returns.
    Raises `RenderError` when the tokenizer has no offsets, no chat template, or nothing that can end an answer.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking = "auto") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise RenderError(
                "this model's tokenizer cannot tell which characters a token covers (it is not a fast one)"
            )
        self.tokenizer = tokenizer
        self.modes = ThinkingModes(tokenizer, thinking)
        self._tokens = CutTokenizer(tokenizer)
        self.completions = CompletionReader(self.modes, self._tokens)
        self.modes.template.opening(False)  # what is wrong with the template is reported before any example

    @property
    def notes(self) -> list[str]:
        """Where the template needed help, each said once."""
        return self.modes.notes

    def example(self, example: ChatExample) -> Rendered:
        """Tokens and mask of a whole conversation, each answer trained where the template writes it. Raises `RenderError`."""
        written = self._written(example, self.modes.thinks(example.messages), strict=True)
        chosen = [(message, span) for message, span in written.earlier if message["trained"]]
        if not all(span.aligned for _, span in chosen):
            self.modes.note(_APART)
        if not chosen and not (written.completion and written.messages[-1]["trained"]):
            raise RenderError("has no assistant message to train on")
        return self._rendered(written, [span for _, span in chosen], last=written.messages[-1]["trained"])

    def sequences(self, example: ChatExample) -> list[Rendered]:
        """What is trained of a conversation: every answer after the very prompt that asks for it. Raises `RenderError`.

        One sequence holds all answers that stand in it as they would be asked for and written alone. Where the template
        writes an earlier answer otherwise in history (without its reasoning, after another prompt, without an end that stops
        generation), that answer is trained in a sequence of its own, which ends with it.
        """
        thinks = self.modes.thinks(example.messages)
        waiting = [index for index, message in enumerate(example.messages) if message.has_loss]
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
            self.modes.note(_APART)
        return sequences

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), thinking: bool | None = None
    ) -> list[int]:
        """Tokens up to where the assistant's answer begins: a prefix of what `example` gives for the conversation.

        `thinking` asks with reasoning or without it; None is the renderer's own choice.
        """
        thinks = self.modes.thinks_in_prompts() if thinking is None else thinking
        template, spans = self.modes.of(thinks)
        guard = Guard(template, messages, list(tools) or None)
        documents, offered = for_template(guard.messages, template), guard.tools
        text = template.prompt(documents, offered)
        require_tools(text, offered, template)
        require_messages(documents, offered, text, template)
        untrained = [{**message, "trained": False} for message in documents]
        cuts = [edge for edges in spans.edges(untrained, offered, text) for edge in edges]
        return self._tokens.rendered(text, cuts, [], guard).input_ids

    @property
    def notation(self) -> Notation:
        """How the template writes reasoning and calls."""
        return self.modes.template.notation

    @cached_property
    def pad_id(self) -> int:
        """A valid id for padding. It may equal an end of turn: padding is masked by position, never by id."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    def _written(self, example: ChatExample, thinks: bool, *, strict: bool = False) -> _Written:
        """A conversation as the template writes it. Raises `RenderError`, also for a lost earlier answer where `strict`."""
        self.modes.saw_reasoning |= thinks and any(reasoning_of(one) for one in example.messages if one.has_loss)
        template, spans = self.modes.of(thinks)
        guard = Guard(template, example.messages, tools_of(example))
        messages, tools = for_template(guard.messages, template), guard.tools
        if messages[-1]["role"] == "assistant":
            before, (completion, layout) = messages[:-1], spans.last(messages, tools)
        else:
            before, (completion, layout) = messages, ("", "")
        prompt = template.prompt(before, tools)
        text = prompt + completion + layout
        require_tools(text, tools, template)
        require_messages(messages, tools, text, template)
        if completion:
            require_answer(messages[-1], completion)
        self.modes.note_lost_reasoning(example.messages if strict else example.messages[-1:], text, template)
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
            self.completions.look_within(written.text[left:right])
        return self._tokens.rendered(written.text, [*cuts, start, end], loss_spans, written.guard)

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
        if ending in self.completions.stop_strings:
            return True
        ends = self.completions.ends_behind(part.text[: span.start])
        return any(token in ends for token in self._tokens.ids(ending))
