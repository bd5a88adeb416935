"""What a parsed line looks like: which method it is for, or which other format it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ftbridge.data.detect import Detection, detect_record

if TYPE_CHECKING:
    from ftbridge.data.lint.rule import Method

_PREFERENCES = ("preferences", "preferences: chosen and rejected")
"""Formats of `detect` whose lines are one preference each."""

_CHATS = ("chats", "chat, the answer last", "reinforcement: the question last", "OpenAI preference")
"""Formats of `detect` that are OpenAI's own, whose lines have rules of their own."""


def kind_of_line(document: Any) -> str:
    """`supervised`, `dpo`, `reinforcement`, the name of another format (see `detect`), or `unknown`."""
    if not isinstance(document, dict):
        return "unknown"
    if "input" in document and any(key.endswith(("preferred_output", "preferred_completion")) for key in document):
        return "dpo"
    if "preferred_output" in document or "non_preferred_output" in document:
        return "dpo"
    messages = document.get("messages")
    if isinstance(messages, list) and not is_answered_outside(document):
        last = messages[-1] if messages else None
        role = last.get("role") if isinstance(last, dict) else None
        extra = document.keys() - {"messages", "tools", "parallel_tool_calls", "functions"}
        return "reinforcement" if extra and role in ("user", "developer", "tool") else "supervised"
    detection = other_format(document)
    return detection.name if detection else "unknown"


def is_answered_outside(document: dict[str, Any]) -> bool:
    """Whether a line has `choices` beside its messages: a stored completion, whose answer is not among them."""
    return isinstance(document.get("choices"), list)


def other_format(document: Any) -> Detection | None:
    """The format of a line that is not one of OpenAI's; None where it is, or where the format is unknown."""
    detection = detect_record(document) if isinstance(document, dict) else None
    return None if detection is None or detection.name in _CHATS else detection


def method_of(kinds: Iterable[str]) -> Method:
    """The method most lines are for; supervised when nothing tells."""
    votes = Counter({"preference": 0})
    for kind in kinds:
        if kind in ("supervised", "dpo", "reinforcement"):
            votes[kind] += 1
        elif kind in _PREFERENCES:
            votes["dpo"] += 1
    best, count = votes.most_common(1)[0]
    return best if count and best in ("supervised", "dpo", "reinforcement") else "supervised"  # type: ignore[return-value]
