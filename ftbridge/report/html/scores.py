"""Scores with their intervals, verdicts in words, and what answering took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftbridge.evaluation.evaluate import Score
from ftbridge.evaluation.verdict import Judged
from ftbridge.report.comparison import sentence
from ftbridge.report.html.contents import Column, Contents, Pair
from ftbridge.report.html.element import Html, element

_SIGNS = {"better": "▲", "worse": "▼", "not_worse": "≈", "not_enough_data": "?"}
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
    """Tokens, time and money of answering."""
    if not contents.columns:
        return None
    heads = (
        ("candidate", "model"),
        ("prompt tokens", "answer tokens", "time", "tokens a second", "p50", "p95", "dollars"),
    )
    rows = [element("tr", list(_usage_cells(column))) for column in contents.columns]
    table = element("table", element("thead", _heads(*heads)), element("tbody", rows))
    lines = [element("p", f"{name}: {told.told()} in all.", class_="quiet") for name, told in contents.spent]
    about = "p50 and p95: seconds until an answer was there, for answers that came in a batch those of the batch."
    return element(
        "section",
        element("h2", "What answering took"),
        element("div", table, class_="wide"),
        element("p", about, class_="quiet"),
        lines,
    )


def _usage_cells(column: Column) -> Iterator[Html]:
    yield element("th", column.label, scope="row")
    yield element("td", column.model, class_="name")
    yield element("td", f"{column.prompt_tokens:,}", class_="number")
    yield element("td", f"{column.completion_tokens:,}", class_="number")
    seconds = column.seconds
    yield element("td", f"{seconds:,.1f} s" if seconds else "not known", class_="number")
    yield element("td", f"{column.completion_tokens / seconds:,.0f}" if seconds else "", class_="number")
    for told in (column.answered.p50_seconds, column.answered.p95_seconds):
        yield element("td", f"{told:.2f} s" if told is not None else "", class_="number")
    usd = column.answered.usd
    yield element("td", f"${usd:.4f}" if usd is not None else "", class_="number")


def _heads(words: Sequence[str], numbers: Sequence[str], rest: Sequence[str] = ()) -> Html:
    plain = [element("th", text) for text in words]
    return element(
        "tr", plain, [element("th", text, class_="number") for text in numbers], [element("th", text) for text in rest]
    )


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
        rows.append(
            element(
                "tr",
                element("th", column.label, scope="row"),
                element("td", f"{100 * score.mean:.1f} %", class_="number best" if score.mean == best else "number"),
                element("td", f"{low} to {high}", class_="number quiet"),
                element("td", _bar(score), class_="bar"),
            )
        )
    head = element("thead", _heads(["candidate"], [grader, "95 % interval"], ["0 to 100 %"]))
    return element("div", element("table", head, element("tbody", rows)), class_="wide")


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
