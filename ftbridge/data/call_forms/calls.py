"""What a form of tool calls is, and the JSON that most forms hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Tools = Sequence[Mapping[str, Any]]


class Call(NamedTuple):
    """One call: arguments as JSON values, or the text where they are not JSON."""

    name: str
    arguments: Any
    id: str | None = None


class NotACall(ValueError):
    """A text that is not in this form."""


_Reader = Callable[[str, Tools], tuple[str, list[Call]]]


@dataclass(frozen=True)
class CallForm:
    """One form of calls.

    A completion with calls holds one of `openers`; a chat template of the form holds all of `signs`, and none of `not_signs`.
    `also` names forms that models of the family write as well. Without openers the whole completion must be calls.
    """

    name: str
    read: _Reader
    openers: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    not_signs: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def has_marks(self) -> bool:
        """Whether a call can be told from text by a mark."""
        return bool(self.openers)

    @property
    def marks(self) -> tuple[str, ...]:
        """Tokens that belong to the form."""
        return (*self.openers, *self.signs, *self.closers)

    def is_written_in(self, template: str) -> bool:
        """Whether a chat template's source writes this form."""
        return (
            bool(self.signs)
            and all(sign in template for sign in self.signs)
            and not any(sign in template for sign in self.not_signs)
        )

    def write(self, calls: Sequence[Mapping[str, Any]]) -> str:
        """Calls in Hermes' form; the others are written by chat templates alone."""
        blocks = []
        for call in calls:
            function = call.get("function", call)
            arguments = json_or_text(function.get("arguments") or "{}")
            line = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
            blocks.append(f"<tool_call>\n{line}\n</tool_call>")
        return "\n".join(blocks)


def as_json(arguments: Any) -> str:
    """Arguments as JSON text; text that is not JSON stays as it is."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def whole_characters(text: str) -> str:
    """The text with U+FFFD for halves of characters, which models can write as JSON escapes and UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_or_text(text: Any) -> Any:
    """JSON values of a text, or the text itself."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text.strip() or "{}")
    except (ValueError, RecursionError):
        return text.strip()


def whole_json(text: str) -> Any:
    """JSON values of a text. Raises `NotACall` for a text that is not JSON, as one that was cut."""
    try:
        return json.loads(text.strip() or "{}")
    except (ValueError, RecursionError):
        raise NotACall from None


# JSON

_NAMES = ("name", "tool_name", "function_name", "tool", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_IDS = ("id", "tool_call_id", "call_id")


def _call_of(document: Any) -> Call:
    if not isinstance(document, Mapping):
        raise NotACall
    inner = document.get("function")
    call = {**document, **inner} if isinstance(inner, Mapping) else document
    name = next((call[key] for key in _NAMES if isinstance(call.get(key), str)), None)
    if name is None:
        raise NotACall
    arguments = next((call[key] for key in _ARGUMENTS if key in call), None)
    if arguments is None:
        raise NotACall
    call_id = next((str(document[key]) for key in _IDS if isinstance(document.get(key), str | int)), None)
    return Call(name, json_or_text(arguments), call_id)


def documents_in(text: str, separators: str = " \n\r\t;,") -> list[Any]:
    """All JSON documents of a text that holds nothing else but separators."""
    decoder, position = json.JSONDecoder(), 0
    documents: list[Any] = []
    while True:
        while position < len(text) and text[position] in separators:
            position += 1
        if position == len(text):
            return documents
        try:
            document, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            raise NotACall from None
        documents.append(document)


def calls_in(text: str) -> list[Call]:
    documents = [one for each in documents_in(text) for one in (each if isinstance(each, list) else [each])]
    if not documents:
        raise NotACall
    return [_call_of(document) for document in documents]


def leading_calls(text: str) -> tuple[list[Call], str]:
    """Calls of the JSON document at the start of a text, and what follows it."""
    bare = text.lstrip()
    try:
        document, end = json.JSONDecoder().raw_decode(bare)
    except (ValueError, RecursionError):
        raise NotACall from None
    return [_call_of(one) for one in (document if isinstance(document, list) else [document])], bare[end:]


def between(opening: str, closing: str, inner: Callable[[str, Tools], list[Call]]) -> _Reader:
    """A reader of blocks between two marks; the last may lack its closing mark, which may be the end of turn."""
    pattern = re.compile(re.escape(opening) + r"(.*?)(?:" + re.escape(closing) + r"|$)", re.DOTALL)

    def read(text: str, tools: Tools) -> tuple[str, list[Call]]:
        calls = [call for block in pattern.findall(text) for call in inner(block.strip(), tools)]
        return pattern.sub("", text), calls

    return read


def after(opening: str, inner: Callable[[str, Tools], list[Call]]) -> _Reader:
    """A reader of calls that go on from a mark to the end."""

    def read(text: str, tools: Tools) -> tuple[str, list[Call]]:
        before, separator, after = text.partition(opening)
        if not separator:
            raise NotACall
        return before, inner(after, tools)

    return read
