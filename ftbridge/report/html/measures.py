"""Sections beside the scores: old skills kept, labels and their mix-ups, perplexity, and the plan against what came."""

from __future__ import annotations

from collections.abc import Sequence

from ftbridge.evaluation import preference as preferences
from ftbridge.evaluation.classification import Classification
from ftbridge.evaluation.retention.measure import ALL, Lost, RetainedSkill, Retention
from ftbridge.evaluation.score import Score, Slice
from ftbridge.planning.actual import Compared
from ftbridge.report.amounts import amount, planned
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.element import Html, element, table
from ftbridge.report.terminal.judges import judge_sentences
from ftbridge.report.terminal.tables import retention_sentence

_KEPT = {"kept": ("≈", "is-not_worse"), "worse": ("▼", "is-worse"), "not_enough_data": ("?", "is-not_enough_data")}
_SHADES = 5
_MOST_LOST = 20


def retention(contents: Contents) -> Html | None:
    """What tuning did to questions that it was not about."""
    measured = [(one.label, one.evaluation.retention) for one in contents.measured if one.evaluation is not None]
    blocks = [_retained(label, measurement) for label, measurement in measured if measurement is not None]
    return element("section", element("h2", "Retention"), blocks, id="retention") if blocks else None


def _retained(label: str, measured: Retention) -> Html:
    kinds = [*measured.kinds, ALL]
    heads = [f"{kind} ({measured.candidates[measured.baseline][kind].n})" for kind in kinds]
    rows = []
    for name, by in measured.candidates.items():
        cells = [f"{100 * by[kind].mean:.1f} %" for kind in kinds]
        rows.append([element("th", name, scope="row"), *(element("td", cell, class_="number") for cell in cells)])
    return element(
        "div",
        element("h3", label) if label else None,
        [_verdict(name, change, measured) for name, change in measured.verdicts.items()],
        table(["candidate"], heads, rows),
        [_lost(change.lost) for change in measured.verdicts.values() if change.lost],
    )


def _verdict(name: str, change: RetainedSkill, measured: Retention) -> Html:
    sign, style = _KEPT[change.verdict]
    mark = element("span", sign, class_="sign", aria_hidden="true")
    return element("p", mark, " ", retention_sentence(name, change, measured), class_=style)


def _lost(lost: Sequence[Lost]) -> Html:
    shown = [
        element(
            "li",
            element("p", element("b", item.kind), " ", item.prompt, class_="text"),
            element("p", f"expected {item.expected}", class_="text quiet"),
            element("p", "before ", element("span", item.before, class_="kept"), class_="text"),
            element("p", "after ", element("span", item.after, class_="lost"), class_="text"),
        )
        for item in lost[:_MOST_LOST]
    ]
    more = f", the first {len(shown)} of {len(lost)}" if len(lost) > len(shown) else ""
    return element("details", element("summary", f"lost questions{more}"), element("ul", shown))


def slices(contents: Contents) -> Html | None:
    """Scores of the items that share a value of a field: a table for each field and grader."""
    blocks = [
        _sliced(
            one.label,
            field,
            grader,
            [slice_scores for slice_scores in one.evaluation.slices if slice_scores.field == field],
        )
        for one in contents.measured
        if one.evaluation is not None
        for field in dict.fromkeys(slice_scores.field for slice_scores in one.evaluation.slices)
        for grader in one.evaluation.graders
    ]
    if not blocks:
        return None
    about = (
        "Mean score and its 95 % interval of the items that share a value. For looking where a candidate is weak: among "
        "many slices some differ by chance, so there are no verdicts."
    )
    return element("section", element("h2", "Slices"), element("p", about, class_="quiet"), blocks, id="slices")


def _sliced(label: str, field: str, grader: str, slice_scores: Sequence[Slice]) -> Html:
    names = list(slice_scores[0].candidates)
    rows = [
        [
            element("th", f"{one.value or '(empty)'} ({one.items})", scope="row"),
            *(_slice_cell(name, one.candidates[name][grader]) for name in names),
        ]
        for one in slice_scores
    ]
    heading = f"{field}: {grader}" + (f" · {label}" if label else "")
    return element("div", element("h3", heading), table([field], [], rows, names, kind="cards", label=heading))


def _slice_cell(name: str, score: Score) -> Html:
    low, high = (f"{100 * end:.0f}" for end in score.ci95)
    if not score.n:
        return element("td", "no score", class_="quiet", data_head=name)
    return element(
        "td", f"{100 * score.mean:.1f} % ", element("span", f"{low} to {high}", class_="quiet"), data_head=name
    )


def judges(contents: Contents) -> Html | None:
    """How far judges agree, win rates at equal length, and graders beside people."""
    sentences = [
        (one.label, judge_sentences(one.evaluation)) for one in contents.measured if one.evaluation is not None
    ]
    blocks = [
        element(
            "div",
            element("h3", label) if label else None,
            element("ul", [element("li", sentence) for sentence in sentences]),
        )
        for label, sentences in sentences
        if sentences
    ]
    return element("section", element("h2", "Judges"), blocks, id="judges") if blocks else None


def classification(contents: Contents) -> Html | None:
    """For each candidate a heat table: rows are what was expected, columns what was answered."""
    blocks = [
        _classified(f"{name} · {one.label}" if one.label else name, report)
        for one in contents.measured
        if one.evaluation is not None
        for name, report in one.evaluation.classification.items()
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


def _classified(name: str, report: Classification) -> Html:
    columns = report.labels + [""] * (max(map(len, report.confusion), default=0) - len(report.labels))
    rows = []
    for index, counts in enumerate(report.confusion):
        total = sum(counts)
        label = report.labels[index] if index < len(report.labels) else "other"
        cells = [
            element("td", f"{count:,}" if count else "·", class_=_shade(count, total, index == at))
            for at, count in enumerate(counts)
        ]
        scores = report.per_label.get(label)
        f1 = f"{100 * scores.f1:.0f} %" if scores else ""
        rows.append([element("th", label, scope="row"), *cells, element("td", f1, class_="number quiet")])
    heads = [text or "other" for text in columns]
    return element(
        "div",
        element("h3", name, element("span", f"  accuracy {100 * report.accuracy:.1f} %", class_="quiet"),
                element("span", f", macro F1 {100 * report.macro_f1:.1f} %", class_="quiet")),
        table(["expected"], [*heads, "F1"], rows, kind="heat"),
    )  # fmt: skip


def _shade(count: int, total: int, right: bool) -> str:
    level = -(-count * _SHADES // total) if total else 0
    return f"number heat{level} {'right' if right else 'wrong'}"


def preference(contents: Contents) -> Html | None:
    """What preference tuning changed on the test pairs."""
    measured = [(one.label, one.evaluation.preference) for one in contents.measured if one.evaluation is not None]
    blocks = [
        element(
            "div",
            element("h3", label) if label else None,
            element("p", preferences.sentence(one)),
            table(
                ["on the test pairs"],
                ["mean", "95 % interval"],
                [
                    [
                        element("th", name, scope="row"),
                        *(element("td", cell, class_="number") for cell in (mean, interval)),
                    ]
                    for name, mean, interval in preferences.table(one)
                ],
                kind="narrow",
            ),
        )
        for label, one in measured
        if one is not None
    ]
    return element("section", element("h2", "Preferences"), blocks, id="preference") if blocks else None


def perplexity(contents: Contents) -> Html | None:
    """How well each candidate foresaw the references; less is better."""
    rows = []
    for one in contents.measured:
        perplexities = one.evaluation.perplexity if one.evaluation is not None else {}
        best = min(perplexities.values(), default=0.0)
        for name, value in perplexities.items():
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
        element("h2", "Planned vs actual"),
        [(element("h3", label) if label else None, _compared(block)) for label, block in blocks],
        id="plan",
    )


def _compared(comparisons: Sequence[Compared]) -> Html:
    rows = [
        [
            element("th", one.what, scope="row"),
            element("td", planned(one), class_="number"),
            element("td", amount(one.actual, one.unit), class_="number"),
            element("td", *_met(one.met)),
            element("td", one.why, class_="quiet"),
        ]
        for one in comparisons
    ]
    return table(["figure"], ["planned", "actual"], rows, ["as planned", "why"])


def _met(met: bool | None) -> tuple[Html | str, ...]:
    if met is None:
        return ("",)
    return (element("span", "yes" if met else "no", class_="good" if met else "unsure"),)
