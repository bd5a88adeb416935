"""A chat template as it really behaves: text for messages, and what it can do, found by rendering probes.

Templates are programs. Whether one knows system messages, tools, reasoning, or calls with arguments as objects cannot be read
from it, only tried: a sentinel goes in, and is looked for in what comes out.

    generation prompt     <|im_start|>assistant⏎<think>⏎        what the template asks with
    lead                  <|im_start|>assistant⏎                what it writes before an answer without reasoning
    opening               the end of every prompt: the first, unless reasoning is off and the lead says otherwise
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from ftbridge.data.notation import REASONING_KEYS, Notation, notation_of
from ftbridge.providers.local.data.call_style import CallStyle, find_call_style

TemplateMessage = dict[str, Any]
"""A message as templates want it, with keys of ours that never reach them: `at`, its index in the data; `trained`."""

Tools = Sequence[dict[str, Any]] | None

SENTINEL = "ftbridgeSENTINELq7x"
OTHER_SENTINEL = "QvSENTINELftbridge"
_OURS = ("at", "trained")
_SWITCHES = ("enable_thinking", "thinking")


class RenderError(ValueError):
    """A conversation that this chat template cannot express; the message says which message and why."""


class ChatTemplate:
    """One tokenizer's chat template, asked with or without reasoning. `notes` tells where it needed help.

    `thinking` sets the template's own switch, where it has one. Raises `RenderError` when there is no chat template.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False, notes: list[str] | None = None) -> None:
        if not tokenizer.chat_template:
            raise RenderError("this model has no chat template")
        self._tokenizer = tokenizer
        self.thinking = thinking
        self.notes: list[str] = [] if notes is None else notes
        self.source = _source(tokenizer.chat_template)
        self.notation: Notation = notation_of(self.source)
        self._switches = {name: thinking for name in _SWITCHES if re.search(rf"(?<![.'\w]){name}\b", self.source)}
        if "strftime_now" in self.source:
            self.note("this chat template writes today's date, so the same data give other tokens on another day")

    def note(self, text: str) -> None:
        """Note something once."""
        if text not in self.notes:
            self.notes.append(text)

    def render(self, messages: Sequence[TemplateMessage], tools: Tools, *, generation: bool = False) -> str:
        """The template's text. Raises `RenderError` with the template's own reason."""
        bare = [{key: value for key, value in message.items() if key not in _OURS} for message in messages]
        if self.takes_parts:
            bare = [_in_parts(message) for message in bare]
        try:
            text: str = self._tokenizer.apply_chat_template(
                bare, tools=tools, tokenize=False, add_generation_prompt=generation, **self._switches
            )
        except Exception as error:
            calls = any(message.get("tool_calls") or message["role"] == "tool" for message in messages)
            hint = " (it may not know tool calls)" if calls else ""
            if not tools and self._needs_tools(bare, generation):
                hint = " (it cannot render a conversation without tools: give each line a `tools` list)"
            raise RenderError(f"is refused by this model's chat template: {error}{hint}") from error
        return text

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it reads contents only as lists of parts, as templates of models that also see images do."""
        messages = [{"role": "user", "content": SENTINEL}, {"role": "assistant", "content": OTHER_SENTINEL}]

        def writes(messages: list[TemplateMessage]) -> bool:
            try:
                text = self._tokenizer.apply_chat_template(messages, tokenize=False, **self._switches)
            except Exception:
                return False
            shown = "'text':" in text or '"text":' in text  # parts as Python or JSON writes them are not text
            return SENTINEL in text and OTHER_SENTINEL in text and not shown

        return not writes(messages) and writes([_in_parts(message) for message in messages])

    def _needs_tools(self, bare: list[TemplateMessage], generation: bool) -> bool:
        try:
            self._tokenizer.apply_chat_template(
                bare, tools=[_probe_tool("probe")], tokenize=False, add_generation_prompt=generation, **self._switches
            )
        except Exception:
            return False
        return True

    def prompt(self, messages: Sequence[TemplateMessage], tools: Tools) -> str:
        """The text up to where an answer begins."""
        asks = self.render(messages, tools, generation=True)
        generation, opening = self.generation_prompt, self.opening(bool(tools))
        if generation == opening or not asks.endswith(generation):
            return asks  # here this template opens the answer otherwise, or not at all
        return asks[: len(asks) - len(generation)] + opening

    @cached_property
    def generation_prompt(self) -> str:
        """What the template adds when it is asked for an answer to a user."""
        bare, asks = self._alone
        return asks[len(bare) :] if asks.startswith(bare) else ""

    @cached_property
    def lead(self) -> str | None:
        """What it writes before an answer without reasoning in the last place; None when that cannot be told."""
        messages = [plain("user", "a")]
        written = self.probe([*messages, plain("assistant", SENTINEL)])
        bare = self._alone[0]
        if not bare or SENTINEL not in written or not written.startswith(bare):
            return None
        return written[len(bare) : written.index(SENTINEL)]

    @cached_property
    def _alone(self) -> tuple[str, str]:
        messages = [plain("user", "a")]
        return self.probe(messages), self.probe(messages, generation=True)

    @cached_property
    def header(self) -> str:
        """What any answer begins with: the part of the opening that the lead has too."""
        return self.common(self.generation_prompt or self.opening(False), self.lead or "")

    def opening(self, offers_tools: bool) -> str:
        """What every prompt ends with.

        Without reasoning, it holds the empty block that the template writes before such an answer, and no opened block. Where
        no tools are offered, it holds whatever else stands before every answer, such as the name of a channel.
        """
        return self._opening_with_tools if offers_tools else self._opening_without_tools

    @cached_property
    def _opening_without_tools(self) -> str:
        return self._find_opening(False)

    @cached_property
    def _opening_with_tools(self) -> str:
        return self._find_opening(True)

    def _find_opening(self, offers_tools: bool) -> str:
        asks, lead = self.generation_prompt, self.lead
        if lead is None:
            return asks
        if not asks and lead.strip():
            if offers_tools and not self._calls_begin_with(lead):
                return asks  # what stands before a text stands before no call
            header = lead.rstrip(" ")
            self.note(f"this chat template has no generation prompt; prompts end with its header {header!r}")
            return header
        if self.thinking or lead == asks:
            return asks
        if lead.startswith(asks):
            more = lead[len(asks) :]
            if self.is_empty_reasoning(more) or (self._opens(asks) and self._closes(more)):
                return lead
            return lead if more.strip() and not offers_tools else asks
        if self._opens(asks) or self._closes(lead):
            if not self._closes(lead):
                left_out = asks[len(self.common(asks, lead)) :]
                self.note(
                    f"prompts leave out {left_out!r}: this chat template writes it in prompts, but never in a "
                    "complete conversation"
                )
            return lead.rstrip(" ") if not self._closes(lead) else lead
        return asks

    def _calls_begin_with(self, lead: str) -> bool:
        """Whether an answer that calls begins as one that is text does."""
        if self.calls is None:
            return True
        tools = [_probe_tool("probe")] if self.writes_tools else None
        bare, plain_and_call = self.probe([plain("user", "a")], tools), self._with_call({})
        return not plain_and_call.startswith(bare) or plain_and_call.startswith(lead, len(bare))

    # Reasoning

    def _opens(self, text: str) -> bool:
        pair = self.notation.reasoning
        return pair is not None and text.rstrip().endswith(pair[0].strip())

    def _closes(self, text: str) -> bool:
        pair = self.notation.reasoning
        return pair is not None and text.rstrip().endswith(pair[1].strip())

    def opens_reasoning(self, prompt: str) -> bool:
        """Whether a prompt ends within a block of reasoning."""
        return self._opens(prompt)

    def is_empty_reasoning(self, text: str) -> bool:
        """Whether a text is a block of reasoning with nothing in it."""
        return bool(text.strip()) and self.empty_reasoning(text) == len(text)

    def empty_reasoning(self, text: str) -> int:
        """Length of the empty block of reasoning, or of the rest of one, that a text begins with; 0 without one."""
        pair = self.notation.reasoning
        if pair is None:
            return 0
        opening, closing = (re.escape(mark.strip()) for mark in pair)
        match = re.match(rf"\s*(?:{opening}\s*)?{closing}\s*", text)
        return match.end() if match else 0

    @cached_property
    def reasoning_key(self) -> str | None:
        """The key under which the template takes reasoning; None where it writes none that is given beside the text."""
        for key in REASONING_KEYS:
            written = self.probe([plain("user", "a"), {**plain("assistant", "b"), key: SENTINEL}])
            if SENTINEL in written:
                return key
        return None

    @cached_property
    def writes_inline_reasoning(self) -> bool:
        """Whether it writes reasoning that stands at the beginning of the text, and no block of its own before it."""
        pair = self.notation.reasoning
        if pair is None:
            return True
        text = f"{pair[0].strip()}\n{SENTINEL}\n{pair[1].strip()}\n\nb"
        written = self.probe([plain("user", "a"), plain("assistant", text)])
        return SENTINEL in written and pair[1].strip() not in written[: written.index(SENTINEL)]

    @cached_property
    def names_reasoning(self) -> bool:
        """Whether its source knows the mark that ends reasoning: only such a model was shown reasoning in its text."""
        pair = self.notation.reasoning
        return pair is not None and pair[1].strip() in self.source

    @cached_property
    def after_reasoning(self) -> str:
        """What it writes between reasoning and text."""
        if self.reasoning_key is None:
            return ""
        reply = {**plain("assistant", OTHER_SENTINEL), self.reasoning_key: SENTINEL}
        written = self.probe([plain("user", "a"), reply])
        between, parts, _ = written.partition(SENTINEL)[2].partition(OTHER_SENTINEL)
        return between if parts else ""

    @cached_property
    def can_reason(self) -> bool:
        """Whether a prompt leaves room for reasoning: one that ends with a closed block does not."""
        return not self._closes(self.generation_prompt)

    # Probes

    def probe(self, messages: list[TemplateMessage], tools: Tools = None, generation: bool = False) -> str:
        """What the template writes for a conversation of ours; nothing when it refuses. Where it needs tools, it gets one."""
        for offered in (tools, tools or [_probe_tool("probe")]):
            try:
                return self.render(messages, offered, generation=generation)
            except RenderError:
                continue
        return ""

    def attempt(self, messages: Sequence[TemplateMessage], tools: Tools, *, generation: bool = False) -> str | None:
        """The text, or the prompt; None when the template refuses."""
        try:
            return self.prompt(messages, tools) if generation else self.render(messages, tools)
        except RenderError:
            return None

    @cached_property
    def writes_tools(self) -> bool:
        """Whether it offers tools."""
        tools, probe_tools = [_probe_tool(SENTINEL)], [plain("user", "a")]
        return any(
            SENTINEL in self.probe(messages, tools, generation=True)
            for messages in (probe_tools, [plain("system", "s"), *probe_tools])
        )

    @cached_property
    def calls(self) -> CallStyle | None:
        """How it wants calls; None if it renders none."""
        tools = [_probe_tool("probe")] if self.writes_tools else None
        return find_call_style(lambda messages: self.probe(messages, tools))

    @cached_property
    def takes_plans(self) -> bool:
        """Whether it takes reasoning before calls as `tool_plan`, as Command R's does."""
        return SENTINEL in self._with_call({"tool_plan": SENTINEL})

    @cached_property
    def writes_text_beside_calls(self) -> bool:
        """Whether text of a message that also calls is written."""
        return SENTINEL in self._with_call({"content": SENTINEL})

    def _with_call(self, more: TemplateMessage) -> str:
        """What it writes for a message with a call and these keys."""
        if self.calls is None:
            return ""
        arguments: Any = {"x": "a"} if self.calls.arguments == "object" else '{"x": "a"}'
        call = {"id": "call00000", "type": "function", "function": {"name": "probe", "arguments": arguments}}
        asks = self.calls.content({**plain("assistant", ""), "tool_calls": [call], **more})
        return self.probe([plain("user", "a"), asks], [_probe_tool("probe")] if self.writes_tools else None)

    def takes_role(self, role: str) -> bool:
        """Whether it writes a first message of this role."""
        if role not in self._roles:
            self._roles[role] = SENTINEL in self.probe([plain(role, SENTINEL), plain("user", "a")], generation=True)
        return self._roles[role]

    @cached_property
    def _roles(self) -> dict[str, bool]:
        return {}

    # Special tokens

    @cached_property
    def special(self) -> dict[int, str]:
        """Special tokens by id, and added ones that the template writes."""
        added = self._tokenizer.added_tokens_decoder
        special = {int(i): token.content for i, token in added.items() if token.special}
        special |= dict(zip(self._tokenizer.all_special_ids, self._tokenizer.all_special_tokens, strict=True))
        return special

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Texts that are one token each and draw the conversation: special tokens, and those that the template writes."""
        added = self._tokenizer.added_tokens_decoder.values()
        written = {
            token.content for token in added if token.content in self.source and re.search(r"[^\s\w]", token.content)
        }
        marks = {mark for mark in {*self.special.values(), *written} if len(mark.strip()) > 1}
        pair = self.notation.reasoning or ()
        return tuple(sorted({*marks, *(mark.strip() for mark in pair)}, key=lambda mark: (-len(mark), mark)))

    @cached_property
    def _pieces(self) -> re.Pattern[str]:
        return re.compile("|".join([*(re.escape(mark) for mark in self.marks), r"\s", r"[^\s<\[|]+", "."]), re.DOTALL)

    def pieces(self, text: str) -> Iterable[str]:
        """A text cut into marks, words and white space."""
        return self._pieces.findall(text)

    def common(self, one: str, other: str) -> str:
        """The longest text both begin with, in whole marks and words."""
        same = []
        for first, second in zip(self.pieces(one), self.pieces(other), strict=False):
            if first != second:
                break
            same.append(first)
        return "".join(same)


def _source(chat_template: Any) -> str:
    """The text of a template, or of all where a tokenizer has several with names."""
    if isinstance(chat_template, str):
        return chat_template
    several = chat_template.values() if isinstance(chat_template, dict) else [one["template"] for one in chat_template]
    return "\n".join(str(one) for one in several)


def plain(role: str, content: str) -> TemplateMessage:
    """A message of a probe."""
    return {"role": role, "content": content, "at": 0, "trained": False}


def _in_parts(message: TemplateMessage) -> TemplateMessage:
    """A message with its text as a list of one part."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _probe_tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": ["x"]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}
