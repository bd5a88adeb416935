"""The items of an evaluation on which a candidate scores otherwise than the first, for the terminal."""

from __future__ import annotations

from rich.console import RenderableType

from ftbridge.report.html.contents import Contents, Row
from ftbridge.report.terminal.comparison import changed_items


def changed(contents: Contents) -> list[RenderableType]:
    """A handful of items, those where candidates lose most against the first before the others, and a count of the rest."""
    labels = [column.label for column in contents.columns]
    rows = sorted((row for row in contents.rows if _differs(row)), key=lambda row: (_worst(row), row.line))
    return changed_items(
        [
            (
                row.line,
                row.prompt[-1][1] if row.prompt else "",
                [(name, completion.text) for name, completion in zip(labels, row.completions, strict=True)],
            )
            for row in rows
        ],
        sum(_worst(row) < 0 for row in rows),
    )


def _differs(row: Row) -> bool:
    first, *others = row.completions
    return any(change for other in others for change in first.changes(other).values())


def _worst(row: Row) -> float:
    """The largest loss of any candidate against the first, over all graders: negative where something was lost."""
    first, *others = row.completions
    return min(sum(first.changes(other).values()) for other in others)
