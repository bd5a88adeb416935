"""A chat template as it really behaves: text for messages, and what it can do, found by rendering probes.

Templates are programs. Whether one knows system messages, tools, or calls with arguments as objects cannot be read from
it, only tried: a sentinel goes in, and is looked for in what comes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

Told = dict[str, Any]
"""A message as templates want it, with two keys of ours that never reach them: `at`, its index in the data; `trained`."""

Tools = Sequence[dict[str, Any]] | None

SENTINEL = "ftbridgeSENTINELq7x"
_OURS = ("at", "trained")
_PROBE_KEY, _PROBE_VALUE = "ftb_probe_key", "ftb_probe_value"


class RenderError(ValueError):
    """A conversation that this chat template cannot express; the message says which message and why."""


class ChatTemplate:
    """One tokenizer's chat template. `notes` tells where it needed help. Raises `RenderError` when there is none."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise RenderError("this model has no chat template")
        self._tokenizer = tokenizer
        self.notes: list[str] = []
        self.source = json.dumps(tokenizer.chat_template)
        if "strftime_now" in self.source:
            self.note("this chat template writes today's date: the same data give other tokens on another day")

    def note(self, text: str) -> None:
        """Note something once."""
        if text not in self.notes:
            self.notes.append(text)

    def render(self, messages: list[Told], tools: Tools, *, generation: bool = False) -> str:
        """The template's text. Raises `RenderError` with the template's own reason."""
        bare = [{key: value for key, value in message.items() if key not in _OURS} for message in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(
                bare, tools=tools, tokenize=False, add_generation_prompt=generation
            )
        except Exception as error:
            calls = any(message.get("tool_calls") or message["role"] == "tool" for message in messages)
            hint = " (it may not know tool calls)" if calls else ""
            raise RenderError(f"is refused by this model's chat template: {error}{hint}") from error
        return text

    def prompt(self, messages: list[Told], tools: Tools) -> str:
        """The text up to where an answer begins."""
        asks = self.render(messages, tools, generation=True)
        if self._header is None:
            return asks
        bare, (header, replaces) = self.render(messages, tools), self._header
        if replaces and not asks.startswith(bare + header):
            return asks  # here this template opens the answer otherwise, or not at all
        return bare + header

    @cached_property
    def _header(self) -> tuple[str, bool] | None:
        """What stands before an answer, and whether it replaces the template's own generation prompt; None to use that."""
        asked = [plain("user", "a")]
        bare, asks = self.probe(asked), self.probe(asked, generation=True)
        whole = self.probe([*asked, plain("assistant", SENTINEL)])
        if not bare or not asks or not whole.startswith(bare) or SENTINEL not in whole:
            return None
        lead = whole[len(bare) : whole.index(SENTINEL)]
        if asks == bare and lead.strip():
            self.note(f"this chat template has no generation prompt; prompts end with its header {lead.rstrip(' ')!r}")
            return lead.rstrip(" "), False
        if whole.startswith(asks) or not asks.startswith(bare):
            return None
        header = common(asks[len(bare) :], lead)
        if not header.strip():
            return None
        left_out = asks[len(bare) + len(header) :]
        self.note(f"prompts leave out {left_out!r}, which this chat template asks with but writes in no conversation")
        return header, True

    def probe(self, messages: list[Told], tools: Tools = None, generation: bool = False) -> str:
        """What the template writes for a conversation of ours; nothing when it refuses."""
        try:
            return self.render(messages, tools, generation=generation)
        except RenderError:
            return ""

    def attempt(self, messages: list[Told], tools: Tools, *, generation: bool = False) -> str | None:
        try:
            return self.prompt(messages, tools) if generation else self.render(messages, tools)
        except RenderError:
            return None

    @cached_property
    def writes_tools(self) -> bool:
        tools, asked = [_probe_tool(SENTINEL)], [plain("user", "a")]
        return any(
            SENTINEL in self.probe(messages, tools, generation=True)
            for messages in (asked, [plain("system", "s"), *asked])
        )

    @cached_property
    def wants_short_ids(self) -> bool:
        arguments: Any = {} if self.arguments_form == "object" else "{}"
        return bool(self._probe_call(arguments)) and not self._probe_call(arguments, "call_0123456789abcdef")

    @cached_property
    def arguments_form(self) -> Literal["object", "string"] | None:
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

    def _probe_call(self, arguments: Any, call_id: str = "call00000") -> str:
        call = {"id": call_id, "type": "function", "function": {"name": "probe", "arguments": arguments}}
        asks = {**plain("assistant", ""), "tool_calls": [call]}
        return self.probe([plain("user", "a"), asks], [_probe_tool("probe")] if self.writes_tools else None)

    @cached_property
    def takes_system(self) -> bool:
        return SENTINEL in self.probe([plain("system", SENTINEL), plain("user", "a")], generation=True)


def plain(role: str, content: str) -> Told:
    """A message of a probe."""
    return {"role": role, "content": content, "at": 0, "trained": False}


def common(one: str, other: str) -> str:
    """The longest text both begin with."""
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return min(one, other, key=len) if length is None else one[:length]


def _probe_tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": ["x"]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}
