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


class PlainChat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A plain line."""

    messages: Annotated[list[System | User | Assistant], msgspec.Meta(min_length=1)]


ROLES: dict[type, str] = {System: "system", User: "user", Assistant: "assistant"}

decode: Callable[[bytes], PlainChat] = msgspec.json.Decoder(PlainChat).decode
"""Raises `msgspec.DecodeError` (and `UnicodeDecodeError`) for every line that is not plain."""


class PlainShape(NamedTuple):
    """What lines with the same roles and weights have in common."""

    clean: bool
    """Whether the line rules find nothing in such a line, if none of its texts is blank."""
    roles: tuple[str, ...]
    loss_mask: tuple[bool, ...]
    completion_index: int
    """Where the last assistant message stands; the number of messages if there is none."""
    systems: tuple[int, ...]
    """Where the system messages stand."""
    quotes: int
    """Quotation marks of such a line, those in its texts aside."""


class PlainShapes:
    """The shapes met so far. `judge` tells whether the line rules find something in a sample document."""

    def __init__(self, judge: Callable[[dict[str, object]], bool]) -> None:
        self._judge = judge
        self._known: dict[tuple[object, ...], PlainShape] = {}
        self._room = _ROOM

    def of(self, messages: list[System | User | Assistant]) -> PlainShape:
        """The shape of a line with these messages."""
        key = tuple([message.weight if type(message) is Assistant else type(message) for message in messages])
        shape = self._known.get(key)
        if shape is None:
            self._room -= len(key)
            if self._room < 0:
                self._known.clear()
                self._room = _ROOM
            shape = self._known[key] = self._describe(messages)
        return shape

    def _describe(self, messages: list[System | User | Assistant]) -> PlainShape:
        roles = tuple(ROLES[type(message)] for message in messages)
        weights = [message.weight for message in messages if isinstance(message, Assistant)]
        weighted = sum(weight is not msgspec.UNSET for weight in weights)
        return PlainShape(
            clean=not self._judge(_sample(messages)),
            roles=roles,
            loss_mask=tuple(isinstance(message, Assistant) and message.weight != 0 for message in messages),
            completion_index=max(
                (index for index, role in enumerate(roles) if role == "assistant"), default=len(roles)
            ),
            systems=tuple(index for index, role in enumerate(roles) if role == "system"),
            quotes=2 + 8 * len(roles) + 2 * weighted,
        )


_ROOM = 300_000
"""Messages of all shapes that are remembered."""


def plain(raw: bytes, shapes: PlainShapes) -> tuple[list[str], PlainShape] | None:
    r"""The texts and the shape of a line in which no line rule finds anything; None for every other line.

    The line must not spell ASCII as \u escapes. No object in it has a key twice: a text's own quotation marks are
    escaped, so those of the line are its keys', its texts' ends and the marks in its texts, which are all counted.
    """
    try:
        messages = decode(raw).messages
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    shape = shapes.of(messages)
    contents = [message.content for message in messages]
    if not shape.clean or any(map(str.isspace, contents)):
        return None
    if raw.count(b'"') != shape.quotes + "".join(contents).count('"'):
        return None
    return contents, shape


def _sample(messages: Iterable[System | User | Assistant]) -> dict[str, object]:
    sample: list[dict[str, object]] = []
    for message in messages:
        fields: dict[str, object] = {"role": ROLES[type(message)], "content": f"Text number {len(sample)}."}
        if isinstance(message, Assistant) and message.weight is not msgspec.UNSET:
            fields["weight"] = message.weight
        sample.append(fields)
    return {"messages": sample}
