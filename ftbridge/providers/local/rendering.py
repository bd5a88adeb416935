"""Messages to tokens and loss masks, for any chat template.

    text     <|im_start|>user⏎Capital of France?<|im_end|>⏎<|im_start|>assistant⏎Paris.<|im_end|>⏎
             └────────────── prompt(messages before) ──────────────────────────┘
                                                                                └── trained ─┘
No template marks what is trained, and no list of templates is ever complete, so the mask is derived by rendering:

- An assistant message begins where the rendering of the messages before it, with the generation prompt, ends: the model
  is trained on exactly what it will be asked to write.
- It ends with the template's end of turn (found once, by a probe); white space after that is layout, not answer.
- Templates may render a message differently once others follow (reasoning dropped from earlier turns, dates, default
  system prompts). Where a rendered prefix is not a prefix of the whole, the message is found by rendering the whole
  again with a sentinel in its place.
- A span that does not hold the message's own text is an error that names the message. There is no silent empty mask.

The text is tokenised as a whole, if the tokens before each answer are those that the prompt alone has. Where they are
not (a line break that merges with the next, a token that straddles the border), the text is cut at the answer, as it is
at inference: training must see the tokens that the model will be asked with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from ftbridge.data.examples import ChatExample, FunctionCall, Message

Span = tuple[int, int]
_SENTINEL = "ftbridgeSENTINELq7x"
_PROBE_KEY, _PROBE_VALUE = "ftb_probe_key", "ftb_probe_value"


class RenderError(ValueError):
    """A conversation that this chat template cannot express; the message says which message and why."""


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
    """Renders with one tokenizer's chat template. `notes` tells where the template needed help."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise RenderError(
                "this model's tokenizer cannot tell which characters a token covers (it is not a fast one)"
            )
        if not tokenizer.chat_template:
            raise RenderError("this model has no chat template")
        self.tokenizer = tokenizer
        self.notes: list[str] = []
        self._template = json.dumps(tokenizer.chat_template)

    def example(self, example: ChatExample) -> Rendered:
        """Tokens and mask of a whole conversation. Raises `RenderError`."""
        messages = self._for_template(example.messages)
        tools = example.tools or None
        text = self._whole(messages, tools, example)
        spans = [
            self._span(messages, tools, index, text)
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and message["trained"]
        ]
        if not spans:
            raise RenderError("has no assistant message to train on")
        return self._tokens(text, spans)

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Tokens up to where the assistant's answer begins: a prefix of what `example` gives for the conversation."""
        told = self._for_template(messages)
        text = self._render(told, list(tools) or None, generation=True)
        self._require_tools(text, list(tools))
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def end_text(self) -> str:
        """What the template writes after an assistant's answer, without the white space that follows it."""
        text = self._render([_plain("user", "a"), _plain("assistant", _SENTINEL)], None)
        return self._closing(text[text.index(_SENTINEL) + len(_SENTINEL) :])

    @cached_property
    def end_of_turn(self) -> frozenset[int]:
        """Tokens that end an assistant's turn: the template's own, and the tokenizer's end of sequence."""
        ids = {token for token in self._ids(self.end_text) if token in self._special}
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

    @cached_property
    def _special(self) -> dict[int, str]:
        added = self.tokenizer.added_tokens_decoder
        special = {int(i): token.content for i, token in added.items() if token.special}
        special |= dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        return special

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _whole(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, example: ChatExample) -> str:
        text = self._render(messages, tools)
        self._require_tools(text, tools or [])
        for message in messages:
            for call in message.get("tool_calls") or []:
                if call["function"]["name"] not in text:
                    raise RenderError("calls tools, which this model's chat template does not render")
        del example
        return text

    def _require_tools(self, text: str, tools: Sequence[dict[str, Any]]) -> None:
        for tool in tools:
            name = (tool.get("function") or tool).get("name", "")
            if name not in text:
                raise RenderError(f"offers the tool {name!r}, which this model's chat template does not render")

    def _span(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, index: int, text: str) -> Span:
        """Where one assistant message's trained text lies in the whole text."""
        start = end = None
        before = self._try(messages[:index], tools, generation=True)
        if before is not None and text.startswith(before):
            start = len(before)
        through = text if index == len(messages) - 1 else self._try(messages[: index + 1], tools)
        if start is not None and through is not None and text.startswith(through):
            end = start + len(self._without_layout(through[start:]))
        if start is None or end is None or not self._holds(text[start:end], messages[index]):
            start, end = self._span_by_sentinel(messages, tools, index, text, start)
        if not self._holds(text[start:end], messages[index]):
            raise RenderError(f"messages[{index}] cannot be found in what this model's chat template writes")
        return start, end

    def _span_by_sentinel(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        index: int,
        text: str,
        start: int | None,
    ) -> Span:
        """Render again with a sentinel for the message: what stands around it is not the message."""
        stand_in = {**messages[index], "content": _SENTINEL}
        stand_in.pop("tool_calls", None)
        other = self._try([*messages[:index], stand_in, *messages[index + 1 :]], tools)
        if other is None or other.count(_SENTINEL) != 1:
            raise RenderError(f"messages[{index}] cannot be told apart in what this model's chat template writes")
        place = other.index(_SENTINEL)
        after = other[place + len(_SENTINEL) :]
        if not text.endswith(after) or (start is None and not text.startswith(other[:place])):
            raise RenderError(f"messages[{index}] changes how this model's chat template writes the other messages")
        closing = self._closing(after)
        return (place if start is None else start), len(text) - len(after) + len(closing)

    def _without_layout(self, span: str) -> str:
        """A rendered message without the white space after its end-of-turn token; all of it when there is none."""
        bare = span.rstrip()
        return bare if any(bare.endswith(token) for token in self._special.values()) else span

    def _closing(self, after: str) -> str:
        """The end of turn at the start of what follows an answer: special tokens if it begins with any, else layout."""
        place = len(after) - len(after.lstrip())
        token = next((t for t in self._special.values() if t and after.startswith(t, place)), None)
        if token is not None:
            return after[: place + len(token)]
        return after[:place]

    def _holds(self, span: str, message: dict[str, Any]) -> bool:
        """Whether a span holds the message's own text: the end of its content, and the tools it calls."""
        content = message["content"].strip()
        kept = content.rsplit("</think>", 1)[-1].strip() or content
        names = [call["function"]["name"] for call in message.get("tool_calls") or []]
        return bool(span) and kept in span and all(name in span for name in names)

    def _tokens(self, text: str, spans: list[Span]) -> Rendered:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        ids: list[int] = list(encoded["input_ids"])
        if all(self._ids(text[:start]) == ids[: sum(left < start for left, _ in offsets)] for start, _ in spans):
            flags = [any(start <= left < end for start, end in spans) for left, _ in offsets]
            return Rendered(ids, flags)
        ids, flags = [], []
        edges = sorted({0, len(text), *(edge for span in spans for edge in span)})
        for left, right in pairwise(edges):
            part = self._ids(text[left:right])
            ids += part
            flags += [any(start <= left < end for start, end in spans)] * len(part)
        return Rendered(ids, flags)

    def _render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, *, generation: bool = False
    ) -> str:
        """The template's text. Raises `RenderError` with the template's own reason."""
        bare = [{key: value for key, value in message.items() if key != "trained"} for message in messages]
        try:
            text: str = self.tokenizer.apply_chat_template(
                bare, tools=tools, tokenize=False, add_generation_prompt=generation
            )
        except Exception as error:
            if any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
                hint = " (it may not know tool calls)"
            else:
                hint = ""
            raise RenderError(f"is refused by this model's chat template: {error}{hint}") from error
        return text

    def _try(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, *, generation: bool = False
    ) -> str | None:
        try:
            return self._render(messages, tools, generation=generation)
        except RenderError:
            return None

    def _for_template(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages as Hugging Face templates want them; `trained` is ours and never reaches the template."""
        told = [self._one(message, index) for index, message in enumerate(messages)]
        return told if self._takes_system else self._fold_system(told)

    def _one(self, message: Message, index: int) -> dict[str, Any]:
        role = message.role
        if role == "developer" and "developer" not in self._template:
            role = "system"
        for part in message.content if isinstance(message.content, list) else ():
            if part.type not in ("text", "refusal"):
                raise RenderError(
                    f"messages[{index}].content has a part of type {part.type}: only text trains on this machine"
                )
        one: dict[str, Any] = {
            "role": "tool" if role == "function" else role,
            "content": message.text,
            "trained": message.trained,
        }
        if message.name:
            one["name"] = message.name
        if message.tool_call_id:
            one["tool_call_id"] = message.tool_call_id
        calls = [(call.id, call.function) for call in message.tool_calls or ()]
        if message.function_call is not None:
            calls.append((None, message.function_call))
        if calls:
            one["tool_calls"] = [
                {"id": call_id or f"call_{index}", "type": "function", "function": self._call(function, index)}
                for call_id, function in calls
            ]
        return one

    def _call(self, function: FunctionCall, index: int) -> dict[str, Any]:
        form = self._arguments_form
        if form is None:
            raise RenderError("calls tools, which this model's chat template does not render")
        arguments: Any = function.arguments
        if form == "object" and isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError as error:
                raise RenderError(
                    f"messages[{index}]: the arguments of {function.name} are not JSON ({error})"
                ) from None
        if form == "string" and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {"name": function.name, "arguments": arguments}

    @cached_property
    def _arguments_form(self) -> Literal["object", "string"] | None:
        """Whether the template wants a call's arguments as an object or as JSON text; None if it renders no calls.

        The wrong one trains the wrong target: text that a template encodes again comes out escaped.
        """
        arguments = {_PROBE_KEY: _PROBE_VALUE}
        as_object, as_string = (self._probe_call(form) for form in (arguments, json.dumps(arguments)))
        unescaped = re.compile(rf'(?<!\\)"{_PROBE_KEY}(?<!\\)"')
        if unescaped.search(as_object):
            return "object"
        if unescaped.search(as_string):
            return "string"
        if _PROBE_KEY in as_object and _PROBE_VALUE in as_object and f"'{_PROBE_KEY}'" not in as_object:
            return "object"
        return None

    def _probe_call(self, arguments: Any) -> str:
        call = {"id": "call00000", "type": "function", "function": {"name": "probe", "arguments": arguments}}
        asks = {**_plain("assistant", ""), "tool_calls": [call]}
        return self._try([_plain("user", "a"), asks], None) or ""

    @cached_property
    def _takes_system(self) -> bool:
        text = self._try([_plain("system", _SENTINEL), _plain("user", "a")], None, generation=True)
        if text is not None and _SENTINEL in text:
            return True
        self.notes.append(
            "this chat template has no system role; system messages are put before the first user message"
        )
        return False

    def _fold_system(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        system = [message["content"] for message in messages if message["role"] == "system"]
        rest = [message for message in messages if message["role"] != "system"]
        if system and rest and rest[0]["role"] == "user":
            rest[0] = {**rest[0], "content": "\n\n".join([*system, rest[0]["content"]])}
        elif system:
            rest.insert(0, {**_plain("user", "\n\n".join(system))})
        return rest


def _plain(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content, "trained": False}
