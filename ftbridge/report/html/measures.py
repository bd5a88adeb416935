"""Sections beside the scores: old skills kept, labels and their mix-ups, perplexity, and the plan against what came."""

from __future__ import annotations

from collections.abc import Sequence

from ftbridge.planning.actual import Compared
from ftbridge.report.amounts import amount, planned
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.element import Html, element, table
from ftbridge.report.measured import Classification, Retention

_KEPT = {
    "kept": ("≈", "is-not_worse", "Old skills are kept"),
    "worse": ("▼", "is-worse", "Old skills are lost"),
    "not_enough_data": ("?", "is-not_enough_data", "Not enough data to tell whether old skills are kept"),
}
_SHADES = 5
_MOST_LOST = 20


def retention(contents: Contents) -> Html | None:
    """What tuning did to questions that it was not about."""
    told = [(one.label, one.checks.retention) for one in contents.measured if one.checks.retention]
    if not told:
        return None
    blocks = [_retained(label, found) for label, found in told if found is not None]
    return element("section", element("h2", "Old skills"), blocks, id="retention")


def _retained(label: str, found: Retention) -> Html:
    said = None
    if found.verdict is not None:
        sign, style, text = _KEPT[found.verdict.verdict]
        points, low, high = (100 * value for value in (found.verdict.difference, *found.verdict.ci95))
        margin = f", margin {100 * found.margin:g} points" if found.margin is not None else ""
        facts = f"{points:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, {found.items} questions{margin}"
        mark = element("span", sign, class_="sign", aria_hidden="true")
        said = element("p", mark, f" {text} ({facts}).", class_=style)
    kinds = [*found.kinds, "all"]
    rows = []
    for name, by in found.candidates.items():
        cells = [f"{100 * by[kind].mean:.1f} %" if kind in by else "" for kind in kinds]
        rows.append([element("th", name, scope="row"), *(element("td", cell, class_="number") for cell in cells)])
    lost = [
        element(
            "li",
            element("p", element("b", item.kind), " ", item.prompt, class_="text"),
            element("p", f"expected {item.expected}", class_="text quiet"),
            element("p", "before ", element("del", item.before), ", after ", element("ins", item.after), class_="text"),
        )
        for item in found.lost[:_MOST_LOST]
    ]
    rest = len(found.lost) - len(lost)
    more = f", the first {len(lost)} of {len(found.lost)}" if rest else ""
    return element(
        "div",
        element("h3", label) if label else None,
        said,
        table(["candidate"], kinds, rows),
        element("details", element("summary", f"lost questions{more}"), element("ul", lost)) if lost else None,
        [element("p", note, class_="quiet") for note in found.notes],
    )


def classification(contents: Contents) -> Html | None:
    """For each candidate a heat table: rows are what was expected, columns what was answered."""
    blocks = [
        _classified(f"{name} · {one.label}" if one.label else name, found)
        for one in contents.measured
        for name, found in one.checks.classification.items()
    ]
    if not blocks:
        return None
    about = "Rows: the expected label. Columns: the answered one. Darker: a larger share of the row."
    return element(
        "section",
        element("h2", "Labels"),
        element("p", about, class_="quiet"),
        element("div", blocks, class_="heats"),
        id="classification",
    )


def _classified(name: str, found: Classification) -> Html:
    columns = found.labels + [""] * (max(map(len, found.confusion), default=0) - len(found.labels))
    rows = []
    for place, counts in enumerate(found.confusion):
        whole = sum(counts)
        label = found.labels[place] if place < len(found.labels) else "other"
        cells = [
            element("td", f"{count:,}" if count else "·", class_=_shade(count, whole, place == at))
            for at, count in enumerate(counts)
        ]
        scores = found.per_label.get(label)
        f1 = f"{100 * scores.f1:.0f} %" if scores else ""
        rows.append([element("th", label, scope="row"), *cells, element("td", f1, class_="number quiet")])
    heads = [text or "other" for text in columns]
    return element(
        "div",
        element("h3", name, element("span", f"  accuracy {100 * found.accuracy:.1f} %", class_="quiet"),
                element("span", f", macro F1 {100 * found.macro_f1:.1f} %", class_="quiet")),
        table(["expected"], [*heads, "F1"], rows, kind="heat"),
    )  # fmt: skip


def _shade(count: int, whole: int, right: bool) -> str:
    level = -(-count * _SHADES // whole) if whole else 0
    return f"number heat{level} {'right' if right else 'wrong'}"


def perplexity(contents: Contents) -> Html | None:
    """How well each candidate foresaw the references; less is better."""
    rows = []
    for one in contents.measured:
        best = min(one.checks.perplexity.values(), default=0.0)
        for name, value in one.checks.perplexity.items():
            label = f"{name} · {one.label}" if one.label else name
            style = "number best" if value == best else "number"
            rows.append([element("th", label, scope="row"), element("td", f"{value:,.2f}", class_=style)])
    if not rows:
        return None
    about = "Of the expected answers; 1 is certainty, less is better. Only models with one tokenizer can be compared."
    return element(
        "section",
        element("h2", "Perplexity"),
        element("p", about, class_="quiet"),
        table(["candidate"], ["perplexity"], rows, kind="narrow"),
        id="perplexity",
    )


def plan_against_actual(contents: Contents) -> Html | None:
    """What was foreseen before anything was spent, beside what came."""
    blocks = [(one.label, one.compared) for one in contents.measured if one.compared]
    if not blocks:
        return None
    return element(
        "section",
        element("h2", "Plan against actual"),
        [(element("h3", label) if label else None, _compared(told)) for label, told in blocks],
        id="plan",
    )


def _compared(told: Sequence[Compared]) -> Html:
    rows = [
        [
            element("th", one.what, scope="row"),
            element("td", planned(one), class_="number"),
            element("td", amount(one.actual, one.unit), class_="number"),
            element("td", *_met(one.met)),
            element("td", one.why, class_="quiet"),
        ]
        for one in told
    ]
    return table(["figure"], ["planned", "actual"], rows, ["", "why"])


def _met(met: bool | None) -> tuple[Html | str, ...]:
    if met is None:
        return ("",)
    return (element("span", "as planned" if met else "not as planned", class_="good" if met else "unsure"),)
