"""The inventory as one self-contained HTML page, in the style of the reports: nothing is loaded, all text is escaped."""

from __future__ import annotations

import time
from pathlib import Path

from ftbridge.migrate.summary import InventorySummary, ModelRow, cost_text, days_text, features_text, use_text
from ftbridge.report.formats.tables import write_output
from ftbridge.report.html.element import Html, element, table
from ftbridge.report.html.page import document

_TRAINING = {
    "there": (None, "not downloaded"),
    "downloaded": ("good", "downloaded"),
    "gone": ("unsure", "gone"),
    "refused": ("unsure", "refused"),
    "unknown": ("quiet", "not known"),
}


def write_page(summary: InventorySummary, path: Path) -> Path:
    """Write the page and return its path. Raises `UsageError` for a path that cannot be written, and `DiskFull`."""
    write_output(path, inventory_page(summary).encode("utf-8", "replace").decode())
    return path


def inventory_page(summary: InventorySummary) -> str:
    """The whole document as text."""
    organizations = ", ".join(summary.organizations) or "an unknown organization"
    alive = [row for row in summary.models if row.answers]
    gone = [row for row in summary.models if not row.answers]
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(summary.taken))
    header = element(
        "header",
        element("h1", f"Fine-tuned models of {organizations}"),
        element("p", f"{summary.service} · taken {moment} · migration {summary.migration}", class_="quiet"),
        element("p", _headline(summary, alive), class_="verdict"),
        _notes(summary),
    )
    main = element(
        "main",
        _section("Models that still answer", alive) if alive else None,
        _section("Models that have stopped", gone) if gone else None,
        _unseen(summary),
        _details(summary),
        element("p", f"Costs by the price list of {summary.prices_as_of}.", class_="quiet"),
    )
    return document(f"Inventory of {organizations}: ftbridge", [header, main])


def _headline(summary: InventorySummary, alive: list[ModelRow]) -> str:
    if not summary.models:
        return "There are no fine-tuned models: there is nothing that stops."
    used = [row for row in alive if row.in_use]
    dated = [row for row in used or alive if row.days_left is not None]
    first = min(dated, key=lambda row: row.days_left or 0, default=None)
    sentence = f"{len(alive)} of {len(summary.models)} tuned models still answer, {len(used)} of them in use."
    if first is not None:
        sentence += f" The first stops in {first.days_left} days, on {first.shutdown}."
    return sentence


def _notes(summary: InventorySummary) -> Html | None:
    notes = []
    if not summary.complete:
        notes.append("The inventory is not complete: it was interrupted. Run ftbridge migrate inventory again.")
    if summary.clock_skew_seconds:
        notes.append("The clock of the machine that took it is wrong; days are counted by the service's clock.")
    return element("ul", [element("li", note) for note in notes], class_="notes") if notes else None


def _section(title: str, rows: list[ModelRow]) -> Html:
    items = rows[0].recording.items
    words = ["model", "left", "used", "training file", "clients use"]
    rest = [f"to record {items:,} items"]
    cells = [
        [
            element(
                "th", element("span", row.id), element("div", _origin(row), class_="quiet"), scope="row", class_="name"
            ),
            element("td", days_text(row), class_=None if row.answers else "quiet"),
            element("td", use_text(row)),
            element("td", _TRAINING[row.training][1], class_=_TRAINING[row.training][0]),
            element("td", features_text(row)),
            element("td", cost_text(row.recording) if row.answers else "", class_="quiet"),
        ]
        for row in rows
    ]
    return element("section", element("h2", title), table(words, [], cells, rest, label=title))


def _origin(row: ModelRow) -> str:
    parts = [row.base, row.method]
    if row.checkpoints:
        parts.append(f"{len(row.checkpoints)} checkpoints")
    if len(row.chain) > 1:
        parts.append(f"{len(row.chain)} jobs in a chain")
    return " · ".join(parts)


def _unseen(summary: InventorySummary) -> Html | None:
    if not summary.unseen:
        return None
    lines = [
        [
            element("td", f"{one.what}{f' ({one.place})' if one.place else ''}"),
            element("td", one.scope or ""),
            element("td", one.why, class_="quiet"),
        ]
        for one in summary.unseen
    ]
    return element("section", element("h2", "Not seen"), table(["what", "needs", "why"], [], lines, label="Not seen"))


def _details(summary: InventorySummary) -> Html | None:
    """Files, checkpoints and users of each model, folded."""
    folds = []
    for row in summary.models:
        files = [
            [
                element("th", need.id, scope="row", class_="name"),
                element("td", need.role),
                element("td", need.state, class_="good" if need.state == "downloaded" else None),
                element("td", f"{need.bytes:,}" if need.bytes is not None else "", class_="number"),
                element("td", need.job, class_="quiet"),
            ]
            for need in row.files
        ]
        users = [f"{summary.projects.get(id) or id}: {count:,} requests" for id, count in row.users.items()]
        shared = [f"shared with {summary.projects.get(id) or id}" for id in row.shared_with]
        listed = [*users, *shared, *(f"checkpoint {name}" for name in row.checkpoints)]
        folds.append(
            element(
                "details",
                element("summary", row.id),
                element("ul", [element("li", text) for text in listed]) if listed else None,
                table(["file", "role", "state"], ["bytes"], files, ["job"]) if files else None,
            )
        )
    return element("section", element("h2", "Files and users"), folds) if folds else None
