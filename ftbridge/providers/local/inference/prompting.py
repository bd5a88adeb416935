"""From an ask to a prompt's tokens, and to what its answer may be and how it is read.

offered tools ─┬─ the template writes them ──▶ prompt in the family's own notation
               └─ it has no place for them ──▶ `tools_prompt` in a system message, calls and results as text
forced call    ──▶ prompt goes on with the family's opening mark, the answer is JSON by construction
reasoning      ──▶ as the ask wants it, else as the model was loaded; JSON by construction leaves no room for any
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftbridge.data.call_forms import HERMES
from ftbridge.data.examples import Message
from ftbridge.data.notation import PLAIN, Notation, tools_prompt, write_calls, write_result
from ftbridge.errors import UsageError
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.thinking import Thinking
from ftbridge.providers.local.inference.channels import reader_of
from ftbridge.providers.local.inference.replies import ForcedReader, PlainReader, Reader
from ftbridge.providers.local.inference.requests import GenerationRequest
from ftbridge.providers.local.inference.shape import Shape, Shapes

_RESERVED = frozenset({"chat_template", "conversation", "messages", "tools", "add_generation_prompt", "tokenize",
                       "continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict",
                       "return_assistant_tokens_mask", "tokenizer_kwargs"})  # fmt: skip
_SWITCHES = ("enable_thinking", "thinking")
"""Variables that switch reasoning on or off, of which the renderer knows which one its template has."""
_MOST_RENDERERS = 16
_OPENING = {"hermes": "<tool_call>\n", "mistral": "[TOOL_CALLS]", "nemotron": "<TOOLCALL>", "phi4": "<|tool_call|>"}
"""What a forced call begins with where the family writes calls as JSON after a mark."""


@dataclass(frozen=True)
class Prepared:
    """One ask, ready to be answered: `shape` and `reader` make those of one answer."""

    prompt: list[int]
    shape: Callable[[], Shape | None]
    reader: Callable[[int], Reader]
    ends: frozenset[int]
    """Tokens that end an answer."""
    stops: tuple[str, ...] = ()
    """Texts that do, where no token does."""
    hidden: frozenset[int] = frozenset()
    """Special tokens that are not part of the answer's text."""


class Prompter:
    """Prepares the asks of one model."""

    def __init__(self, renderer: Renderer, shapes: Shapes) -> None:
        self._shapes, self._tokenizer = shapes, renderer.tokenizer
        self._plain = renderer
        self._renderers: dict[str, Renderer] = {}

    def prepare(self, ask: GenerationRequest) -> Prepared:
        """Raises `UsageError` or `RenderError` for what this model cannot answer."""
        if ask.prompt is not None:
            return self._continuation(ask)
        by_construction = ask.must_call is not None or ask.json_schema is not None
        renderer = self._renderer(ask, by_construction)
        notation, messages, tools = self._offered(ask, renderer)
        prompt = renderer.prompt(messages, tools)
        thinking = renderer.completions.opens_reasoning(prompt)
        if by_construction and thinking and notation.reasoning:
            prompt, thinking = prompt + self._ids(notation.reasoning[1] + "\n\n"), False
        call_id = f"call_{ask.id[-16:]}"
        ending = renderer.completions.end_of_turn if by_construction else renderer.completions.ends_after(prompt)
        ends: dict[str, Any] = {"ends": ending, "stops": renderer.completions.stop_strings}
        if ask.must_call:
            names, one = ask.must_call, not ask.parallel or len(ask.must_call) == 1
            prompt = prompt + self._ids(_OPENING.get(notation.name, ""))
            shape = self._shapes.calls(ask.tools, names, one=one)
            hidden = renderer.completions.hidden(PLAIN)
            reader = lambda index: ForcedReader(names, one=one, call_id=f"{call_id}{index}")  # noqa: E731
            return Prepared(prompt, shape.copy, reader, hidden=hidden, **ends)
        return Prepared(
            prompt,
            self._shape(ask, notation),
            lambda index: reader_of(
                notation,
                ask.tools,
                thinking_open=thinking,
                call_id=f"{call_id}{index}",
                at_end=ask.at_end,
                one=not ask.parallel,
            ),
            hidden=renderer.completions.hidden(notation),
            **ends,
        )

    def _continuation(self, ask: GenerationRequest) -> Prepared:
        ids = self._ids(ask.prompt) if isinstance(ask.prompt, str) else list(ask.prompt or ())
        size = len(self._tokenizer)
        if beyond := [token for token in ids if not 0 <= token < size]:
            raise UsageError(f"the prompt names token {beyond[0]}; this model's tokens are 0 to {size - 1:,}.")
        start = self._tokenizer.bos_token_id
        if not ids:
            ids = [self._plain.pad_id if start is None else int(start)]
        plain = self._plain.completions
        return Prepared(
            ids, self._shape(ask, PLAIN), lambda _: PlainReader(), plain.end_of_turn, hidden=plain.hidden(_NO_MARKS)
        )

    def _shape(self, ask: GenerationRequest, notation: Notation) -> Callable[[], Shape | None]:
        if ask.json_schema is not None:
            return self._shapes.shape(ask.json_schema, lenient=ask.lenient).copy
        strict = self._shapes.strict_calls(ask.tools) if notation.form is HERMES and ask.tools else None
        return strict.copy if strict is not None else lambda: None

    def _offered(
        self, ask: GenerationRequest, renderer: Renderer
    ) -> tuple[Notation, Sequence[Message], list[dict[str, Any]]]:
        """The notation of the answer, and messages and tools as the template takes them."""
        template = renderer.modes.template
        speaks_of_calls = any(message.tool_calls or message.role in ("tool", "function") for message in ask.messages)
        has_place = template.writes_tools or not ask.tools
        if not speaks_of_calls and has_place:
            return renderer.notation, ask.messages, ask.tools
        if has_place and template.calls is not None and self._takes_results(ask, renderer):
            return renderer.notation, ask.messages, ask.tools
        notation = replace(renderer.notation, name="hermes", form=HERMES, wrappers=())
        return notation, in_text(ask.messages, ask.tools), []

    def _takes_results(self, ask: GenerationRequest, renderer: Renderer) -> bool:
        """Whether the template renders this conversation as it is, calls and results included."""
        try:
            renderer.prompt(ask.messages, ask.tools)
        except ValueError:
            return False
        return True

    def _renderer(self, ask: GenerationRequest, by_construction: bool) -> Renderer:
        """A renderer whose template sees the ask's variables, with reasoning as the ask wants it. Raises `UsageError`."""
        variables = dict(ask.template)
        if reserved := sorted(_RESERVED & set(variables)):
            raise UsageError(f"chat_template_kwargs cannot set {reserved[0]!r}.")
        switches = [variables.pop(name) for name in _SWITCHES if isinstance(variables.get(name), bool)]
        thinking = ask.thinking or self._plain.modes.thinking
        if ask.effort is not None:
            thinking = self._with_effort(ask.effort, variables)
        if switches:
            thinking = "on" if switches[0] else "off"
        if by_construction and thinking == "on":
            thinking = "off"
        if not variables and thinking == self._plain.modes.thinking:
            return self._plain
        key = json.dumps([thinking, variables], sort_keys=True)
        if key not in self._renderers:
            if len(self._renderers) >= _MOST_RENDERERS:
                self._renderers.pop(next(iter(self._renderers)))
            tokenizer = _Tokenizer(self._tokenizer, variables) if variables else self._tokenizer
            self._renderers[key] = Renderer(tokenizer, thinking)
        return self._renderers[key]

    def _with_effort(self, effort: str, variables: dict[str, Any]) -> Thinking:
        """Whether to reason for an effort; the template's own variable for it, where it has one, is set."""
        if effort == "none":
            return "off"
        if not self._plain.modes.reasons:
            raise UsageError("'reasoning_effort' has no effect: this model does not reason. Leave it out.")
        if self._plain.modes.takes_effort:
            variables.setdefault("reasoning_effort", effort)
        return "on"

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids


_NO_MARKS = Notation("plain")


def in_text(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """A conversation for a template that has no place for tools: offers in the system message, calls and results as text.

    Offers follow the first system message, or are one. Results are user's messages; those that follow each other are one.
    """
    messages_in_text: list[Message] = []
    names: dict[str, str] = {}
    if tools:
        first = messages[0] if messages and messages[0].role in ("system", "developer") else None
        text = "\n\n".join(part for part in (first.text if first else "", tools_prompt(tools)) if part)
        messages_in_text.append(Message(role="system", content=text))
        messages = messages[1:] if first else messages
    for message in messages:
        if message.tool_calls or message.function_call:
            calls = [call.model_dump() for call in message.tool_calls or ()]
            if message.function_call:
                calls.append({"function": message.function_call.model_dump()})
            names |= {call.id: call.function.name for call in message.tool_calls or () if call.id}
            messages_in_text.append(
                _said("assistant", "\n".join(part for part in (message.text, write_calls(calls)) if part))
            )
        elif message.role in ("tool", "function"):
            result = write_result(message.name or names.get(message.tool_call_id or ""), message.text)
            if (
                messages_in_text
                and messages_in_text[-1].role == "user"
                and messages_in_text[-1].text.startswith("<tool_response>")
            ):
                result = f"{messages_in_text.pop().text}\n{result}"
            messages_in_text.append(_said("user", result))
        else:
            messages_in_text.append(message)
    return messages_in_text


def _said(role: str, text: str) -> Message:
    return Message.model_validate({"role": role, "content": text})


class _Tokenizer:
    """A tokenizer whose template sees more variables."""

    def __init__(self, tokenizer: Any, variables: dict[str, Any]) -> None:
        self._tokenizer, self._variables = tokenizer, variables

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        """The template's text."""
        return self._tokenizer.apply_chat_template(messages, **options, **self._variables)

    def __call__(self, text: Any, **options: Any) -> Any:
        """Tokens of a text, or of each of several."""
        return self._tokenizer(text, **options)
