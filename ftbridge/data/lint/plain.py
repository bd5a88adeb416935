"""The fast path: prove at C speed that a line is a plain chat example in which no line rule can find anything.

Most lines of most files are a list of system, user and assistant messages with text. Such a line is decoded into typed
structs, which checks JSON, UTF-8, keys, types and bounds at once. What is left is its *shape*, the sequence of roles and
weights. The line rules judge each new shape once, on a sample document; the verdict holds for every line of that shape,
because line rules do not look into text (text rules do, and are found by their screens). A line that is not proved clean
is looked at by every rule, so the fast path can only cost time, never a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class System(msgspec.Struct, tag_field="role", tag="system", forbid_unknown_fields=True, gc=False):
    """A system message with text."""

    content: _Text


class User(msgspec.Struct, tag_field="role", tag="user", forbid_unknown_fields=True, gc=False):
    """A user message with text."""

    content: _Text


class Assistant(msgspec.Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True, gc=False):
    """An assistant message with text."""

    content: _Text
    weight: Literal[0, 1] | msgspec.UnsetType = msgspec.UNSET


class Chat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A plain line."""

    messages: Annotated[list[System | User | Assistant], msgspec.Meta(min_length=1)]


ROLES: dict[type, str] = {System: "system", User: "user", Assistant: "assistant"}

decode: Callable[[bytes], Chat] = msgspec.json.Decoder(Chat).decode
"""Raises `msgspec.DecodeError` (and `UnicodeDecodeError`) for every line that is not plain."""

class Shape(NamedTuple):
    """What lines with the same roles and weights have in common."""

    clean: bool
    """Whether the line rules find nothing in such a line, if none of its texts is blank."""
    roles: tuple[str, ...]
    trained: tuple[bool, ...]
    weights: int
    """How many messages have a weight."""
    answer: int
    """Where the last assistant message stands; the number of messages if there is none."""


class Shapes:
    """The shapes met so far. `judge` tells whether the line rules find something in a sample document."""

    def __init__(self, judge: Callable[[dict[str, object]], bool]) -> None:
        self._judge = judge
        self._known: dict[tuple[object, ...], Shape] = {}

    def of(self, chat: Chat) -> Shape:
        """A line's shape."""
        messages = chat.messages
        key = tuple([message.weight if type(message) is Assistant else type(message) for message in messages])
        shape = self._known.get(key)
        if shape is None:
            if len(self._known) > 10_000:
                self._known.clear()
            shape = self._known[key] = self._describe(messages)
        return shape

    def _describe(self, messages: list[System | User | Assistant]) -> Shape:
        roles = tuple(ROLES[type(message)] for message in messages)
        weights = [message.weight if isinstance(message, Assistant) else None for message in messages]
        trained = tuple(weight is not None and weight != 0 for weight in weights)
        given = sum(weight in (0, 1) for weight in weights)
        last = max((place for place, role in enumerate(roles) if role == "assistant"), default=len(roles))
        return Shape(not self._judge(_sample(messages)), roles, trained, given, last)


def _sample(messages: Iterable[System | User | Assistant]) -> dict[str, object]:
    sample: list[dict[str, object]] = []
    for message in messages:
        said: dict[str, object] = {"role": ROLES[type(message)], "content": f"Text number {len(sample)}."}
        if isinstance(message, Assistant) and message.weight is not msgspec.UNSET:
            said["weight"] = message.weight
        sample.append(said)
    return {"messages": sample}


def no_key_twice(raw: bytes, chats: Iterable[tuple[Chat, Shape]]) -> bool:
    r"""Whether no object in these bytes has a key twice, given what was decoded from them.

    A key's bytes cannot stand inside a text, where quotes are escaped; so counting them counts keys, and texts that are
    exactly such a word. Keys spelled with \\u escapes are not seen: lines that escape ASCII are for the slow path.
    """
    lines = messages = weights = 0
    for _, shape in chats:
        lines += 1
        messages += len(shape.roles)
        weights += shape.weights
    return (
        raw.count(b'"role"') == messages
        and raw.count(b'"content"') == messages
        and raw.count(b'"messages"') == lines
        and raw.count(b'"weight"') == weights
    )
