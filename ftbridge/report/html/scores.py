"""Scores with their intervals, and what answering took."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.evaluation.score import Score
from ftbridge.report.amounts import dollars, latency
from ftbridge.report.html.contents import Column, Contents
from ftbridge.report.html.element import Html, element, table

_BAR = 240


def scores(contents: Contents) -> Html:
    """One table of candidates by graders: means, intervals, bars; the best in bold."""
    best = {
        grader: max(column.scores[grader].mean for column in contents.columns)
        for grader in contents.graders
        if contents.columns
    }
    rows = [
        [
            element("th", column.label, scope="row"),
            *(_cell(column.scores[grader], grader, best[grader]) for grader in contents.graders),
        ]
        for column in contents.columns
    ]
    about = "Mean score and its 95 % interval, from 0 to 100 %; the best is bold."
    shown = (
        [element("p", about, class_="quiet"), table(["candidate"], [], rows, contents.graders, kind="cards")]
        if rows
        else None
    )
    return element("section", element("h2", "Scores"), shown, id="scores")


def usage_title(contents: Contents) -> str:
    """What the section of `usage` is called: it has costs where a price is known."""
    return "Cost and latency" if _is_priced(contents) else "Latency and tokens"


def _is_priced(contents: Contents) -> bool:
    return any(column.usd is not None for column in contents.columns)


def usage(contents: Contents) -> Html | None:
    """What answering cost and how long one answer took, by candidate."""
    if not contents.columns:
        return None
    priced = _is_priced(contents)
    costs = ["cost", "an answer"] if priced else []
    numbers = ["prompt tokens", "answer tokens", "p50", "p95", *costs, "cut off", "failed"]
    rows = [list(_usage_cells(column, len(contents.rows), priced=priced)) for column in contents.columns]
    about = (
        "p50 and p95: half of the answers, and 19 in 20, took no longer. In batches, it is the batch that took so long."
    )
    return element(
        "section",
        element("h2", usage_title(contents)),
        element("p", about, class_="quiet"),
        table(["candidate", "model"], numbers, rows),
        id="usage",
    )


def _usage_cells(column: Column, items: int, *, priced: bool) -> Iterator[Html]:
    usage, usd = column.usage, column.usd
    yield element("th", column.label, scope="row")
    yield element("td", column.model, class_="name")
    figures = [
        f"{usage.prompt_tokens:,}",
        f"{usage.completion_tokens:,}",
        *(latency(seconds, in_batches=usage.in_batches) or "–" for seconds in (usage.p50_seconds, usage.p95_seconds)),
    ]
    if priced:
        figures += [
            dollars(cost) if cost is not None else "–" for cost in (usd, usd / items if usd is not None else None)
        ]
    yield from (element("td", figure, class_="number") for figure in figures)
    for count in (usage.cut_off, usage.failed):
        yield element("td", f"{count:,}", class_="number unsure" if count else "number")


def _cell(score: Score, grader: str, best: float) -> Html:
    low, high = (f"{100 * end:.1f}" for end in score.ci95)
    mean = element("span", f"{100 * score.mean:.1f} %", class_="best" if score.mean == best else None)
    return element(
        "td",
        mean,
        " ",
        element("span", f"{low} to {high}", class_="quiet"),
        _bar(score),
        class_="bar",
        data_head=grader,
    )


def _bar(score: Score) -> Html:
    low, mean, high = (value * _BAR for value in (score.ci95[0], score.mean, score.ci95[1]))
    return element(
        "svg",
        element("line", x1=0, x2=_BAR, y1=10, y2=10, class_="scale"),
        element("line", x1=_BAR / 2, x2=_BAR / 2, y1=6, y2=14, class_="scale"),
        element("line", x1=low, x2=max(high, low + 1), y1=10, y2=10, class_="interval"),
        element("circle", cx=mean, cy=10, r=5, class_="mean"),
        viewBox=f"-6 0 {_BAR + 12} 20",
        preserveAspectRatio="xMinYMid",
        role="img",
        aria_label=f"{100 * score.mean:.1f} %, 95 % interval {100 * score.ci95[0]:.1f} to {100 * score.ci95[1]:.1f}",
    )
