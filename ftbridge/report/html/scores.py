"""Scores with their intervals, verdicts in words, and what answering took."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.evaluation.evaluate import Score
from ftbridge.evaluation.verdict import Judged
from ftbridge.evaluation.words import sentence
from ftbridge.report.amounts import dollars
from ftbridge.report.html.contents import Column, Contents, Pair
from ftbridge.report.html.element import Html, element, table

_SIGNS = {"better": "▲", "worse": "▼", "not_worse": "≈", "not_enough_data": "?", "undetermined": "?"}
_BAR = 240


def headline(contents: Contents) -> Html:
    """The verdict of the first pair in one sentence, and what so many items can show at all."""
    if not contents.pairs:
        reason = "there are no test items" if not contents.rows else "there is only one candidate"
        return element("p", f"Nothing was compared: {reason}.", class_="verdict")
    pair = contents.pairs[0]
    sees = ", ".join(f"{100 * judged.detectable:.0f} points on {name}" for name, judged in pair.verdicts.items())
    return element(
        "div",
        [_verdict(pair, grader, judged, "verdict") for grader, judged in pair.verdicts.items()],
        element(
            "p",
            f"{len(contents.rows)} items show a difference of {sees} four times in five; smaller ones are often missed.",
            class_="quiet",
        ),
    )


def scores(contents: Contents) -> Html:
    """One table for each grader: candidates, means, bars; the best in bold."""
    blocks = [_grader(contents, grader) for grader in contents.graders if contents.columns]
    others = [
        _verdict(pair, grader, judged, "small")
        for pair in contents.pairs[1:]
        for grader, judged in pair.verdicts.items()
    ]
    return element("section", element("h2", "Scores"), blocks, others, id="scores")


def usage(contents: Contents) -> Html | None:
    """What answering cost and how long one answer took, by candidate."""
    if not contents.columns:
        return None
    priced = any(column.usd is not None for column in contents.columns)
    costs = ["cost", "an answer"] if priced else []
    numbers = ["prompt tokens", "answer tokens", "p50", "p95", *costs, "cut off", "failed"]
    rows = [list(_usage_cells(column, len(contents.rows), priced=priced)) for column in contents.columns]
    about = "p50 and p95: half of the answers, and 19 in 20, took no longer; of a batch, each answer is told the batch's time."
    return element(
        "section",
        element("h2", "Cost and latency" if priced else "Latency and tokens"),
        element("p", about, class_="quiet"),
        table(["candidate", "model"], numbers, rows),
        id="usage",
    )


def _usage_cells(column: Column, items: int, *, priced: bool) -> Iterator[Html]:
    told, usd = column.answered, column.usd
    yield element("th", column.label, scope="row")
    yield element("td", column.model, class_="name")
    figures = [
        f"{told.prompt_tokens:,}",
        f"{told.completion_tokens:,}",
        *(f"{seconds:.2f} s" if seconds is not None else "–" for seconds in (told.p50_seconds, told.p95_seconds)),
    ]
    if priced:
        figures += [
            dollars(cost) if cost is not None else "–" for cost in (usd, usd / items if usd is not None else None)
        ]
    yield from (element("td", figure, class_="number") for figure in figures)
    for count in (told.cut_off, told.failed):
        yield element("td", f"{count:,}", class_="number unsure" if count else "number")


def _verdict(pair: Pair, grader: str, judged: Judged, kind: str) -> Html:
    told = sentence(grader, judged, candidate=pair.candidate, baseline=pair.baseline)
    sign = element("span", _SIGNS[judged.verdict], class_="sign", aria_hidden="true")
    return element("p", sign, " ", told, class_=f"{kind} is-{judged.verdict}")


def _grader(contents: Contents, grader: str) -> Html:
    best = max(column.scores[grader].mean for column in contents.columns)
    rows = []
    for column in contents.columns:
        score = column.scores[grader]
        low, high = (f"{100 * end:.1f}" for end in score.ci95)
        style = " best" if score.mean == best else ""
        rows.append(
            [
                element("th", column.label, scope="row", class_=style.strip() or None),
                element("td", f"{100 * score.mean:.1f} %", class_=f"number{style}"),
                element("td", f"{low} to {high}", class_="number quiet"),
                element("td", _bar(score), class_="bar"),
            ]
        )
    return table(["candidate"], [grader, "95 % interval"], rows, ["0 to 100 %"])


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
