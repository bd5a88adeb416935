"""Lines, files and counts in a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def lines_of(lines: Sequence[int], *, shown: int = 3, ordered: bool = True) -> str:
    """Lines for a sentence: "line 4", "lines 4 and 9", "lines 4, 9, 12 and 30 more"."""
    ordered_lines = sorted(lines) if ordered else list(lines)
    first = [f"{line:,}" for line in ordered_lines[:shown]]
    rest = len(ordered_lines) - len(first)
    if rest:
        return f"lines {', '.join(first)} and {rest:,} more"
    if len(first) == 1:
        return f"line {first[0]}"
    return f"lines {', '.join(first[:-1])} and {first[-1]}"


def quoted(text: str, longest: int = 40) -> str:
    """A text in a sentence, on one line and cut where it is long."""
    one_line = " ".join(text.split())
    return f'"{one_line}"' if len(one_line) <= longest else f'"{one_line[: longest - 1]}…"'
