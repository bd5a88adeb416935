"""Data, lowering, and everything needed to make the runs again."""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ftbridge import providers
from ftbridge.report.html.element import Html, element
from ftbridge.report.html.sources import Source


def countdown(sources: Sequence[Source], now: float | None = None) -> Html | None:
    """The day each run's tuned model stops, and in how many days, where OpenAI has named one. `now` is seconds since 1970."""
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
    return element("p", " ".join(notices), class_="countdown") if notices else None


def data(sources: Sequence[Source]) -> Html:
    """Splits with their hashes, and whether the runs were trained on the same bytes."""
    rows = [
        element(
            "tr",
            element("th", source.run, scope="row"),
            element("td", name),
            element("td", f"{split.examples:,}", class_="number"),
            element("td", f"{split.tokens:,}", class_="number"),
            element("td", element("code", split.sha256), class_="hash"),
        )
        for source in sources
        for name, split in source.splits.items()
    ]
    heads = ("run", "split", "examples", "tokens", "SHA-256")
    head = element("thead", element("tr", [element("th", text) for text in heads]))
    digests = {source.splits["train"].sha256 for source in sources if "train" in source.splits}
    same = None
    if len(sources) > 1:
        same = (
            "All runs were trained on the same bytes."
            if len(digests) == 1
            else "The runs were not trained on the same bytes."
        )
    notes = dict.fromkeys(note for source in sources for note in source.data_notes)
    return element(
        "section",
        element("h2", "Data"),
        element("p", same) if same else None,
        element(
            "div",
            element("table", head, element("tbody", rows)),
            class_="wide",
            tabindex="0",
            role="region",
            aria_label="Data",
        ),
        element("ul", [element("li", note) for note in notes]) if notes else None,
        id="data",
    )


def lowering(sources: Sequence[Source]) -> Html:
    """The field mapping of each provider: how many fields of each outcome, and those that were not taken as they were."""
    return element("section", element("h2", "Field mapping"), [_lowered(source) for source in sources], id="spec")


def _lowered(source: Source) -> Html:
    fields = source.lowering.fields if source.lowering else []
    outcomes = ("exact", "translated", "approximated", "refused", "unused")
    counts = {outcome: sum(field.outcome == outcome for field in fields) for outcome in outcomes}
    amounts = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "it was stopped before"
    rows = [
        element(
            "tr",
            element("th", element("code", field.field), scope="row"),
            element("td", field.outcome, class_=f"outcome {field.outcome}"),
            element("td", _value(field.requested)),
            element("td", _value(field.sent)),
            element("td", field.how),
        )
        for field in source.changed_fields
    ]
    head = element(
        "thead", element("tr", [element("th", text) for text in ("field", "outcome", "in the spec", "sent", "how")])
    )
    table = element(
        "div",
        element("table", head, element("tbody", rows)),
        class_="wide",
        tabindex="0",
        role="region",
        aria_label=f"Fields, {source.state.provider}",
    )
    return element("div", element("p", f"{source.state.provider}: {amounts}."), table if rows else None)


def reproduce(sources: Sequence[Source], command: str) -> Html:
    """The spec as given, settled values with their reasons, versions, models, and the commands."""
    return element(
        "section",
        element("h2", "Reproduce"),
        [_again(source) for source in sources],
        element("p", "This page: ", element("code", command)),
        id="reproduce",
    )


def _again(source: Source) -> Html:
    run = f"ftbridge run {shlex.quote(source.spec_name)} --provider {source.state.provider}"
    settled = [
        element("li", element("code", f"{field} = {value}"), f": {reason}") for field, value, reason in source.settled
    ]
    return element(
        "div",
        element("h3", source.run),
        element("dl", [(element("dt", name), element("dd", fact)) for name, fact in _facts(source)]),
        element("p", element("code", run)),
        element("details", element("summary", "the spec as given"), element("pre", source.spec_text)),
        element("details", element("summary", 'what "auto" became'), element("ul", settled)) if settled else None,
    )


def _facts(source: Source) -> Iterator[tuple[str, str]]:
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


def _value(value: Any) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
