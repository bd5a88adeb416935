"""What a migration found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ftbridge.migrate.manifest import Manifest, ManifestFile
from ftbridge.migrate.status import Asset, Status
from ftbridge.migrate.summary import (
    InventorySummary,
    ModelRow,
    cost_text,
    days_text,
    features_text,
    use_text,
)

_STATE_STYLE = {"there": "yellow", "downloaded": "green", "gone": "red", "refused": "red", "unknown": "dim"}
_ASSET_STYLE = {
    "saved": "green",
    "at_risk": "yellow",
    "lost": "red",
    "partly": "yellow",
    "to_do": "dim",
    "not_needed": "dim",
}


def inventory_parts(summary: InventorySummary) -> Iterator[RenderableType]:
    """The inventory: a heading, one block a model in the order of use, and what could not be seen."""
    organizations = ", ".join(summary.organizations) or "unknown organization"
    counts = [(len(summary.models), "tuned model"), (summary.jobs, "job"), (summary.files, "file")]
    counted = ", ".join(_count(number, noun) for number, noun in counts)
    yield Text(f"{organizations} at {summary.service}, {summary.today}: {counted}", style="bold")
    if not summary.complete:
        yield Text("The inventory is not complete: run the same command again.", style="yellow")
    if summary.clock_skew_seconds:
        yield Text(_skew(summary.clock_skew_seconds), style="yellow")
    if not summary.models:
        yield Text("There are no fine-tuned models, so nothing will stop and nothing needs to be done.", style="green")
    for row in summary.models:
        yield _model(row)
    if summary.unseen:
        table = Table(title="Not seen", title_justify="left", title_style="bold yellow", box=None, show_header=False)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold", style="dim")
        for unseen in summary.unseen:
            where = f" ({unseen.place})" if unseen.place else ""
            needs = f"the key lacks {unseen.scope}" if unseen.source and unseen.scope else _short(unseen.why)
            table.add_row(f"{unseen.what}{where}", needs)
        yield table


def _model(row: ModelRow) -> Table:
    urgent = row.answers and row.in_use
    title_style = "bold" if urgent else "dim"
    table = Table(box=None, show_header=False, title=Text(row.id), title_justify="left", title_style=title_style)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    left = Text(days_text(row), style="red" if not row.answers else "yellow" if (row.days_left or 99) < 14 else "")
    if row.answers and row.shutdown is not None:
        left.append(f" (stops {row.shutdown})", style="dim")
    table.add_row("  left", left)
    table.add_row("  used", use_text(row))
    earlier = f", after {_count(len(row.chain) - 1, 'earlier job')}" if len(row.chain) > 1 else ""
    table.add_row("  base", f"{row.base}, {row.method}{earlier}")
    table.add_row("  training file", Text(row.training, style=_STATE_STYLE[row.training]))
    if row.checkpoints:
        table.add_row("  checkpoints", ", ".join(name.rsplit(":", 1)[-1] for name in row.checkpoints))
    table.add_row("  clients use", features_text(row))
    if row.answers:
        cost = row.recording
        note = f" ({'; '.join(cost.assumed)} assumed)" if cost.assumed else ""
        table.add_row("  recording", f"{cost.items:,} items x {1 + cost.samples}: {cost_text(cost)}{note}")
    return table


def _skew(seconds: float) -> str:
    by = f"{abs(seconds) / 3600:.1f} h" if abs(seconds) >= 3600 else f"{abs(seconds) / 60:.0f} min"
    way = "behind" if seconds > 0 else "ahead of"
    return f"This machine's clock is {by} {way} the service's; days are counted by the service's clock."


def download_parts(manifest: Manifest) -> Iterator[RenderableType]:
    """What was downloaded, what was not and what can stand in for it."""
    table = Table(box=None, pad_edge=False)
    for name in ("file", "role", "state", "size", "lint"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold", header_style="dim")
    for entry in manifest.files:
        size = f"{entry.bytes:,}" if entry.bytes is not None else ""
        state = Text(entry.state, style=_STATE_STYLE.get(entry.state, "yellow"))
        table.add_row(entry.id, entry.role, state, size, _lint(entry))
    yield table
    for entry in manifest.files:
        for note in entry.notes:
            yield Text(f"{entry.id}: {note}", style="dim")
        if entry.state in ("gone", "refused"):
            yield Text(f"{entry.id} is {entry.state}: {entry.why}", style="yellow")
            for stand_in in entry.stand_ins:
                yield Text(f"  instead: {stand_in}")
    counted = [_count(manifest.events, "event"), _count(manifest.checkpoints, "checkpoint")]
    if manifest.stored_completions:
        counted.append(
            f"{_count(manifest.stored_completions, 'stored completion')} ({manifest.stored_with_inputs:,} with inputs)"
        )
    yield Text(f"{', '.join(counted)}; sizes and SHA-256 in {manifest.folder}/manifest.json", style="dim")


def _lint(entry: ManifestFile) -> str:
    if entry.lint is None:
        return ""
    if not entry.lint.errors and not entry.lint.warnings:
        return f"{entry.lint.examples:,} examples, clean"
    worst = ", ".join(list(entry.lint.rules)[:3])
    counts = f"{_count(entry.lint.errors, 'error')}, {_count(entry.lint.warnings, 'warning')}"
    return f"{entry.lint.examples:,} examples, {counts} ({worst})"


def status_parts(current: Status) -> Iterator[RenderableType]:
    """A block a model, that with the nearest deadline first: what is saved of it and what is at risk."""
    for model in dict.fromkeys(asset.model for asset in current.assets):
        assets = [asset for asset in current.assets if asset.model == model]
        stops = next((asset for asset in assets if asset.what == "completions"), assets[0])
        title = Text(model, style="bold" if stops.in_use else "dim")
        if stops.deadline is not None:
            over = stops.days_left is not None and stops.days_left <= 0
            title.append(f"  stopped {stops.deadline}" if over else f"  stops {stops.deadline}: {stops.days_left} days")
        yield title
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, style="dim", min_width=15)
        table.add_column(no_wrap=True, min_width=8)
        table.add_column(overflow="fold")
        for asset in assets:
            style = "bold red" if asset.urgent else _ASSET_STYLE[asset.state]
            until = f" (until {asset.deadline})" if asset.what == "training data" and asset.deadline else ""
            state = Text(asset.state.replace("_", " "), style=style)
            table.add_row(f"  {asset.what}", state, f"{asset.detail}{until}")
        yield table
    commands = list(dict.fromkeys(asset.command for asset in current.assets if asset.command and _is_next(asset)))
    if commands:
        yield Text("next", style="bold")
        for command in commands[:5]:
            yield Text(f"  {command}")
    if current.inventory_age_days > 7:
        age = f"The inventory is {current.inventory_age_days} days old: ftbridge migrate inventory --refresh"
        yield Text(age, style="yellow")


def _is_next(asset: Asset) -> bool:
    return asset.in_use and asset.state in ("at_risk", "to_do")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:159]}…"
