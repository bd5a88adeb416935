"""What a parsed line looks like: which method it is for, or which other format it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftbridge.data.rules.base import Method

OTHER_FORMATS = {
    "prompt/completion": ({"prompt", "completion"},),
    "alpaca": ({"instruction", "output"}, {"instruction", "response"}),
    "ShareGPT": ({"conversations"},),
    "chosen/rejected": ({"chosen", "rejected"},),
    "batch request": ({"custom_id", "body"},),
}
"""Keys by which formats that no fine-tuning service of this dialect reads are known; `ftbridge convert` reads most."""


def kind_of_line(document: Any) -> str:
    """`supervised`, `dpo`, `reinforcement`, a name in OTHER_FORMATS, or `unknown`."""
    if not isinstance(document, dict):
        return "unknown"
    if "input" in document and any(key.endswith(("preferred_output", "preferred_completion")) for key in document):
        return "dpo"
    if "preferred_output" in document or "non_preferred_output" in document:
        return "dpo"
    messages = document.get("messages")
    if isinstance(messages, list):
        last = messages[-1] if messages else None
        role = last.get("role") if isinstance(last, dict) else None
        extra = document.keys() - {"messages", "tools", "parallel_tool_calls", "functions"}
        return "reinforcement" if extra and role in ("user", "developer", "tool") else "supervised"
    for name, keys in OTHER_FORMATS.items():
        if any(wanted <= document.keys() for wanted in keys):
            return name
    return "unknown"


def method_of(kinds: Iterable[str]) -> Method:
    """The method most lines are for; supervised when nothing tells."""
    votes = Counter({"preference": 0})
    for kind in kinds:
        if kind in ("supervised", "dpo", "reinforcement"):
            votes[kind] += 1
        elif kind == "chosen/rejected":
            votes["dpo"] += 1
    best, count = votes.most_common(1)[0]
    return best if count and best in ("supervised", "dpo", "reinforcement") else "supervised"  # type: ignore[return-value]
