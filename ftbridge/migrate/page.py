"""The inventory as one self-contained HTML page, in the style of the reports: nothing is loaded, all text is escaped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftbridge.migrate.summary import InventorySummary, ModelRow, cost_text, days_text, features_text, use_text
from ftbridge.report.formats.tables import write_output
from ftbridge.report.html.rendering import render

_TRAINING = {
    "there": ("", "not downloaded"),
    "downloaded": ("good", "downloaded"),
    "gone": ("unsure", "gone"),
    "refused": ("unsure", "refused"),
    "unknown": ("quiet", "not known"),
}


@dataclass(frozen=True)
class ShownModel:
    """A row of the page in words; `cost` is empty for a model that cannot be recorded any more."""

    id: str
    is_alive: bool
    origin: str
    left: str
    use: str
    training: str
    training_style: str
    features: str
    cost: str
    recording_heading: str


def write_page(summary: InventorySummary, path: Path) -> Path:
    """Write the page and return its path. Raises `UsageError` for a path that cannot be written, and `DiskFull`."""
    write_output(path, inventory_page(summary).encode("utf-8", "replace").decode())
    return path


def inventory_page(summary: InventorySummary) -> str:
    """The whole document as text."""
    alive = [row for row in summary.models if row.answers]
    return render(
        "inventory.html.j2",
        package="ftbridge.migrate",
        summary=summary,
        organizations=", ".join(summary.organizations) or "an unknown organization",
        taken=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(summary.taken)),
        headline=_headline(summary, alive),
        alive=[_shown(row) for row in alive],
        gone=[_shown(row) for row in summary.models if not row.answers],
        details=[(row, list(_facts(row, summary))) for row in summary.models],
    )


def _headline(summary: InventorySummary, alive: Sequence[ModelRow]) -> str:
    if not summary.models:
        return "There are no fine-tuned models, so nothing will stop."
    used = [row for row in alive if row.in_use]
    dated = [row for row in used or alive if row.days_left is not None]
    first = min(dated, key=lambda row: row.days_left or 0, default=None)
    sentence = f"{len(alive)} of {len(summary.models)} tuned models are still available, {len(used)} of them in use."
    if first is not None:
        sentence += f" The first stops in {first.days_left} days, on {first.shutdown}."
    return sentence


def _shown(row: ModelRow) -> ShownModel:
    style, training = _TRAINING[row.training]
    return ShownModel(
        id=row.id,
        is_alive=row.answers,
        origin=" · ".join(_origin(row)),
        left=days_text(row),
        use=use_text(row),
        training=training,
        training_style=style,
        features=features_text(row),
        cost=cost_text(row.recording) if row.answers else "",
        recording_heading=f"to record {row.recording.items:,} items",
    )


def _origin(row: ModelRow) -> Iterator[str]:
    yield row.base
    yield row.method
    if row.checkpoints:
        yield f"{len(row.checkpoints)} checkpoints"
    if len(row.chain) > 1:
        yield f"{len(row.chain)} jobs in a chain"


def _facts(row: ModelRow, summary: InventorySummary) -> Iterator[str]:
    """Who uses a model, whom it is shared with, and its checkpoints."""
    yield from (f"{summary.projects.get(id) or id}: {count:,} requests" for id, count in row.users.items())
    yield from (f"shared with {summary.projects.get(id) or id}" for id in row.shared_with)
    yield from (f"checkpoint {name}" for name in row.checkpoints)
