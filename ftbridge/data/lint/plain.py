"""The fast path: prove at C speed that a line is a plain chat example in which no line rule can find anything.

Most lines of most files are a list of system, user and assistant messages with text. Such a line is decoded into typed
structs, which checks JSON, UTF-8, keys, types and bounds at once. What is left is its *shape*, the sequence of roles and
weights. The line rules judge each new shape once, on a sample document; the verdict holds for every line of that shape,
because line rules do not look into text (text rules do, and are found by their screens). A line that is not proved clean
is looked at by every rule, so the fast path can only cost time, never a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

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

Shape = tuple[object, ...]


class Shapes:
    """Which shapes the line rules find nothing in. `judge` tells whether they find something in a sample document."""

    def __init__(self, judge: Callable[[dict[str, object]], bool]) -> None:
        self._judge = judge
        self._clean: dict[Shape, bool] = {}

    def clean(self, chat: Chat) -> bool:
        """Whether no line rule can find anything in this line, given that its texts are not blank."""
        messages = chat.messages
        shape: Shape = tuple(
            [type(message) if type(message) is not Assistant else message.weight for message in messages]
        )
        known = self._clean.get(shape)
        if known is None:
            if len(self._clean) > 10_000:
                self._clean.clear()
            known = self._clean[shape] = not self._judge(_sample(messages))
        return known and not any([message.content.isspace() for message in messages])


def _sample(messages: Iterable[System | User | Assistant]) -> dict[str, object]:
    sample: list[dict[str, object]] = []
    for message in messages:
        said: dict[str, object] = {"role": ROLES[type(message)], "content": f"Text number {len(sample)}."}
        if isinstance(message, Assistant) and message.weight is not msgspec.UNSET:
            said["weight"] = message.weight
        sample.append(said)
    return {"messages": sample}


def no_key_twice(raw: bytes, chats: Iterable[Chat]) -> bool:
    """Whether no object in these bytes has a key twice, given what was decoded from them.

    A key's bytes cannot stand inside a text, where quotes are escaped; so counting them counts keys, and texts that are
    exactly such a word. Keys spelled with \\u escapes are not seen: lines that escape ASCII are for the slow path.
    """
    lines = messages = weights = 0
    for chat in chats:
        lines += 1
        messages += len(chat.messages)
        for message in chat.messages:
            weights += type(message) is Assistant and message.weight is not msgspec.UNSET
    return (
        raw.count(b'"role"') == messages
        and raw.count(b'"content"') == messages
        and raw.count(b'"messages"') == lines
        and raw.count(b'"weight"') == weights
    )
