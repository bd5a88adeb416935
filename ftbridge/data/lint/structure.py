"""What the rules of structure share: which keys a message has by role, the pieces of a message, and repairs.

Sources of the key sets: OpenAI's published per-line schemas for fine-tuning files (openai-openapi f7f4b05, 2025-07-04), and
llmcomp 1.6.0, which learned from rejections that the service enforces them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from ftbridge.data.lint.rule import JSON, Line, Repair, Spot

SCHEMA = "openai-openapi f7f4b05 (2025-07-04)"
SUPERVISED_SCHEMA = f"{SCHEMA}, FineTuneChatRequestInput"
PREFERENCE_SCHEMA = f"{SCHEMA}, FineTunePreferenceRequestInput"
REINFORCEMENT_SCHEMA = f"{SCHEMA}, FineTuneReinforcementRequestInput"
LLMCOMP = "llmcomp 1.6.0, finetuning/validation.py, learned from what the service refused"
COOKBOOK = "OpenAI cookbook, Chat_finetuning_data_prep.ipynb"

KEYS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "weight", "refusal", "tool_calls", "function_call"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": frozenset({"role", "content", "name"}),
}
"""Keys of a message by its role."""

ALL_KEYS = frozenset().union(*KEYS.values())

LINE_KEYS: dict[str, frozenset[str]] = {
    "supervised": frozenset({"messages", "tools", "parallel_tool_calls", "functions"}),
    "dpo": frozenset({"input", "preferred_output", "non_preferred_output"}),
    "reinforcement": frozenset({"messages", "tools"}),
}
"""Keys of a line by method; a reinforcement line has others, which are its item's fields."""

REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})
"""Keys in which open models' data carry reasoning, which local templates render."""


class ContentPart(NamedTuple):
    """One element of a content list, whatever it is."""

    at: str
    spot: Spot
    value: JSON
    type: str


MOST_PARTS = 10_000
"""Elements of one content list that rules look at: far more than any service reads, few enough for hostile lines."""


def parts(line: Line) -> Iterator[ContentPart]:
    """Every element of every content list, the first `MOST_PARTS` of each; `type` is empty where it is not text."""
    for spot in line.messages:
        content = spot.message.get("content")
        if isinstance(content, list):
            for index, value in enumerate(islice(content, MOST_PARTS)):
                kind = value.get("type") if isinstance(value, dict) else None
                yield ContentPart(f"{spot.at}.content[{index}]", spot, value, kind if isinstance(kind, str) else "")


def calls(line: Line) -> Iterator[tuple[Spot, str, dict[str, JSON]]]:
    """Every tool call of an assistant that is an object, with its message and its path."""
    for spot in line.messages:
        value = spot.message.get("tool_calls")
        if isinstance(value, list) and spot.role == "assistant":
            for index, call in enumerate(value):
                if isinstance(call, dict):
                    yield spot, f"{spot.at}.tool_calls[{index}]", call


def function_of(call: dict[str, JSON]) -> dict[str, JSON]:
    """A call's or tool's function; empty if it has none."""
    function = call.get("function")
    return function if isinstance(function, dict) else {}


def blank(value: JSON) -> bool:
    """Whether it is text without a character that can be seen."""
    return isinstance(value, str) and (not value or value.isspace())


def join(at: str, key: str) -> str:
    """A path, one key deeper."""
    return f"{at}.{key}" if at else key


def shown(value: JSON, longest: int = 40) -> str:
    """A value as JSON, cut."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError):
        return "…"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def listed(names: frozenset[str] | set[str] | list[str] | tuple[str, ...]) -> str:
    """Names in a sentence: "a, b and c"."""
    ordered = sorted(names) if isinstance(names, (set, frozenset)) else list(names)
    return " and ".join([", ".join(ordered[:-1]), ordered[-1]]) if len(ordered) > 1 else "".join(ordered)


def near(key: str, keys: frozenset[str]) -> str | None:
    """The known key that a key is a misspelling of."""
    import difflib

    matches = difflib.get_close_matches(key.strip().lower(), sorted(keys), 1, 0.8)
    return matches[0] if matches else None


def dropped(holder: dict[str, JSON], key: str) -> Repair:
    """Remove a key."""
    return Repair(f"removed {key}", lambda: holder.pop(key, None))


def put(holder: dict[str, JSON], key: str, value: JSON, description: str) -> Repair:
    """Set a key, which keeps its place among the others."""
    return Repair(description, lambda: holder.__setitem__(key, value))


def renamed(holder: dict[str, JSON], old: str, new: str) -> Repair:
    """Rename a key in its place."""

    def apply() -> None:
        pairs = [(new if key == old else key, value) for key, value in holder.items()]
        holder.clear()
        holder.update(pairs)

    return Repair(f"renamed {old} to {new}", apply)
