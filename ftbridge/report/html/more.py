"""What stands beside scores: what was not forgotten, which labels are confused, and the plan against what happened."""

from __future__ import annotations

from collections.abc import Sequence

from ftbridge.evaluation.classification import Classification
from ftbridge.evaluation.retention.judge import ALL, Kept, Retention
from ftbridge.planning.actual import Compared
from ftbridge.report.console import retention_sentence
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.element import Html, element

_SIGNS = {"kept": ("▲", "is-better"), "worse": ("▼", "is-worse"), "not_enough_data": ("?", "is-not_enough_data")}
_MOST_LOST = 50


def retention(contents: Contents) -> Html | None:
    """Scores by kind of question, the verdict, and what was lost with both answers."""
    if not contents.kept:
        return None
    several = len(contents.kept) > 1
    blocks = [_retention(told, name if several else None) for name, told in contents.kept]
    return element("section", element("h2", "What was not forgotten"), blocks, id="retention")


def _retention(told: Retention, name: str | None) -> Html:
    kinds = [*told.kinds, ALL]
    heads = [element("th", "candidate")] + [
        element("th", f"{kind} ({told.candidates[told.baseline][kind].n})", class_="number") for kind in kinds
    ]
    rows = [
        element(
            "tr",
            element("th", candidate, scope="row"),
            [element("td", f"{100 * by[kind].mean:.0f} %", class_="number") for kind in kinds],
        )
        for candidate, by in told.candidates.items()
    ]
    table = element("table", element("thead", element("tr", heads)), element("tbody", rows))
    return element(
        "div",
        element("h3", name) if name else None,
        [_kept(candidate, kept, told) for candidate, kept in told.verdicts.items()],
        element("div", table, class_="wide"),
        [_lost(kept) for kept in told.verdicts.values() if kept.lost],
    )


def _kept(candidate: str, kept: Kept, told: Retention) -> Html:
    sign, kind = _SIGNS[kept.verdict]
    text = retention_sentence(candidate, kept, told)
    return element("p", element("span", sign, class_="sign", aria_hidden="true"), " ", text, class_=f"small {kind}")


def _lost(kept: Kept) -> Html:
    shown = kept.lost[:_MOST_LOST]
    rows = [
        element(
            "tr",
            element("td", lost.prompt),
            element("td", lost.expected),
            element("td", lost.before),
            element("td", lost.after),
        )
        for lost in shown
    ]
    heads = [element("th", text) for text in ("question", "expected", "before", "after")]
    left = len(kept.lost) - len(shown)
    return element(
        "details",
        element("summary", f"{len(kept.lost)} answers that were right before"),
        element("div", element("table", element("thead", element("tr", heads)), element("tbody", rows)), class_="wide"),
        element("p", f"{left} more are in evaluation.json.", class_="quiet") if left else None,
    )


def labels(contents: Contents) -> Html | None:
    """A confusion matrix for each candidate."""
    if not contents.labelled:
        return None
    blocks = [_matrix(name, told) for name, told in contents.labelled]
    about = "Rows are the expected labels, columns the answered ones; darker is more often."
    return element("section", element("h2", "Labels"), element("p", about, class_="quiet"), blocks, id="labels")


def _matrix(name: str, told: Classification) -> Html:
    heads = [element("th", text) for text in ("expected", *told.labels, "no label")]
    scores = [element("th", text, class_="number") for text in ("precision", "recall", "F1")]
    rows: list[Html] = []
    for label, counts in zip(told.labels, told.confusion, strict=True):
        own = told.per_label[label]
        cells = [_cell(count, own.support, right=place == len(rows)) for place, count in enumerate(counts)]
        figures = [element("td", f"{value:.2f}", class_="number") for value in (own.precision, own.recall, own.f1)]
        rows.append(element("tr", element("th", label, scope="row"), cells, figures))
    table = element("table", element("thead", element("tr", heads, scores)), element("tbody", rows), class_="matrix")
    return element(
        "div",
        element("h3", f"{name}: macro F1 {told.macro_f1:.2f}, accuracy {100 * told.accuracy:.1f} %"),
        element("div", table, class_="wide"),
    )


def _cell(count: int, support: int, *, right: bool) -> Html:
    """A count, shaded in five steps by its share of the row."""
    step = 0 if not count else min(4, 1 + 4 * count // (support + 1))
    return element("td", str(count) if count else "", class_=f"number {'hit' if right else 'miss'}{step}")


def planned(contents: Contents) -> Html | None:
    """The plan against what happened, for each run."""
    if not contents.planned:
        return None
    several = len(contents.planned) > 1
    blocks = [_planned(figures, name if several else None) for name, figures in contents.planned]
    return element("section", element("h2", "Plan and reality"), blocks, id="plan")


def _planned(figures: Sequence[Compared], name: str | None) -> Html:
    words = {True: "as planned", False: "otherwise", None: ""}
    rows = [
        element(
            "tr",
            element("th", told.what, scope="row"),
            element("td", told.planned, class_="number"),
            element("td", told.actual, class_="number"),
            element("td", words[told.met], class_="outcome exact" if told.met else "outcome"),
        )
        for told in figures
    ]
    heads = [
        element("th", ""),
        *(element("th", text, class_="number") for text in ("planned", "happened")),
        element("th", ""),
    ]
    table = element("table", element("thead", element("tr", heads)), element("tbody", rows))
    return element("div", element("h3", name) if name else None, element("div", table, class_="wide"))
