"""The page of a report: a summary, and the sections that these runs have, each with its own template."""

from __future__ import annotations

from dataclasses import dataclass

from ftbridge.report.html.completions import completions
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.curves import loss_curves
from ftbridge.report.html.measures import (
    classification,
    judges,
    perplexity,
    plan_and_actual,
    preference,
    retention,
    rewards,
    slices,
)
from ftbridge.report.html.rendering import packaged_text, render
from ftbridge.report.html.reproduce import countdown, data, mappings, reproductions
from ftbridge.report.html.scores import scores, usage
from ftbridge.report.html.summary import headline


@dataclass(frozen=True)
class Section:
    """A part of the page. `id` is its address, and names its template in `templates/sections/`; `view` is what that shows."""

    id: str
    title: str
    view: object


def page(contents: Contents, *, now: float | None = None, command: str = "") -> str:
    """The whole document as text. `now` is the time in its foot, in seconds since 1970; `command` is what writes it."""
    sources = contents.sources
    usage_table = usage(contents)
    sections = [
        Section("scores", "Scores", scores(contents)),
        Section("judges", "Judges", judges(contents)),
        Section("slices", "Slices", slices(contents)),
        Section("preference", "Preferences", preference(contents)),
        Section("retention", "Retention", retention(contents)),
        Section("loss", "Loss", loss_curves(contents.curves)),
        Section("rewards", "Rewards", rewards(contents)),
        Section("classification", "Labels", classification(contents)),
        Section("perplexity", "Perplexity", perplexity(contents)),
        Section("usage", usage_table.title if usage_table else "", usage_table),
        Section("plan", "Planned vs actual", plan_and_actual(contents)),
        Section("completions", "Completions", completions(contents)),
        Section("data", "Data", data(sources)),
        Section("spec", "Field mapping", mappings(sources)),
        Section("reproduce", "Reproduce", reproductions(sources)),
    ]
    return render(
        "report.html.j2",
        now=now,
        script=packaged_text("script.js"),
        contents=contents,
        runs=[source.run for source in sources],
        summary=headline(contents),
        countdown=countdown(sources, now),
        sections=[section for section in sections if section.view is not None],
        command=command or f"ftbridge report {' '.join(source.run for source in sources)}",
    )
