"""Data, field mapping, and everything needed to run the runs again."""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ftbridge import providers
from ftbridge.data.manifest import Split, SplitName
from ftbridge.report.html.sources import ReportSource
from ftbridge.spec.lowering import FieldReport


@dataclass(frozen=True)
class DataSection:
    """Splits by run and name; `same` says whether several runs were trained on the same bytes, and is empty for one."""

    rows: list[tuple[str, SplitName, Split]]
    same: str
    notes: list[str]


@dataclass(frozen=True)
class FieldMapping:
    """One run's field mapping: how many fields of each outcome in words, and `rows` of fields that were not taken as they were.

    A row is the field, its outcome, the value in the spec, the value that was sent, and how the one became the other.
    """

    provider: str
    amounts: str
    rows: list[tuple[str, str, str, str, str]]


@dataclass(frozen=True)
class Reproduction:
    """What one run was made from, and the command that runs its spec again."""

    source: ReportSource
    facts: list[tuple[str, str]]
    command: str


def countdown(sources: Sequence[ReportSource], now: float | None = None) -> str:
    """The day each run's tuned model stops, and in how many days, where that is known. `now` is in seconds since 1970."""
    today = datetime.datetime.fromtimestamp(time.time() if now is None else now, datetime.timezone.utc).date()
    notices = []
    for source in sources:
        provider = providers.find(source.state.provider)
        if provider is None:
            continue
        model = source.state.tuned.id if source.state.tuned else source.base
        stops = provider.last_day(source.spec, model) or provider.last_day(source.spec, source.base)
        if stops is not None:
            left = (stops - today).days
            when = f"stops in {left} days" if left > 1 else "stops tomorrow" if left == 1 else "stops today"
            if left < 0:
                when = f"stopped {-left} days ago"
            notices.append(f"{model} {when}, on {stops}, with its base model.")
    return " ".join(notices)


def data(sources: Sequence[ReportSource]) -> DataSection | None:
    """Splits with their hashes, and whether the runs were trained on the same bytes; None without runs."""
    if not sources:
        return None
    digests = {source.splits["train"].sha256 for source in sources if "train" in source.splits}
    same = "All runs were" if len(digests) == 1 else "The runs were not"
    return DataSection(
        rows=[(source.run, name, split) for source in sources for name, split in source.splits.items()],
        same=f"{same} trained on the same bytes." if len(sources) > 1 else "",
        notes=list(dict.fromkeys(note for source in sources for note in source.data_notes)),
    )


def mappings(sources: Sequence[ReportSource]) -> list[FieldMapping] | None:
    """The field mapping of each run; None without runs."""
    return [_mapping(source) for source in sources] or None


def reproductions(sources: Sequence[ReportSource]) -> list[Reproduction]:
    """What each run was made from."""
    return [
        Reproduction(
            source,
            list(_facts(source)),
            _command(source),
        )
        for source in sources
    ]


def _command(source: ReportSource) -> str:
    """The command that runs the spec again, with what the provider chose of it: it may choose otherwise another time."""
    chosen = "".join(f" --set hyperparameters.{name}={value:g}" for name, value in source.state.chosen.items())
    return f"ftbridge run {shlex.quote(source.spec_name)} --provider {source.state.provider}{chosen}"


def _mapping(source: ReportSource) -> FieldMapping:
    fields = source.lowering.fields if source.lowering else []
    outcomes = ("exact", "translated", "approximated", "refused", "unused")
    counts = {outcome: sum(field.outcome == outcome for field in fields) for outcome in outcomes}
    return FieldMapping(
        provider=source.state.provider,
        amounts=", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        or "the run stopped before it",
        rows=[
            (field.field, field.outcome, _value(field.requested), _value(field.sent), _how(field))
            for field in source.changed_fields
        ],
    )


def _facts(source: ReportSource) -> Iterator[tuple[str, str]]:
    state = source.state
    yield "provider", state.provider
    yield "state", state.state
    yield "base model", source.base
    yield "tuned model", state.tuned.id if state.tuned else "none"
    yield "method", source.spec.method
    yield "seed", str(source.spec.seed)
    if state.total_steps:
        yield "steps", str(state.total_steps)
    if state.finished is not None:
        yield "took", f"{(state.finished - state.created) / 60:.1f} min"
    if state.continues:
        yield "continues", f"{state.continues.run}, because: {state.continues.reason}"
    yield "ftbridge", source.version


def _how(field: FieldReport) -> str:
    return field.how if field.chosen is None else f"chosen by the provider: {field.chosen:g}"


def _value(value: Any) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
