"""The head of the page: what was found in a sentence for each rival, and one row for each grader and rival."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.evaluation.wording import SHORT, Rival, importance, margin_words, power_words, sentence, summary
from ftbridge.report.html.contents import Contents, Pair
from ftbridge.report.html.element import Html, element, table

SIGNS = {"better": "▲", "worse": "▼", "not_worse": "≈", "not_enough_data": "?", "undetermined": "!"}
_BAR = 240
_LEAST_REACH = 0.1


def headline(contents: Contents) -> Html:
    """The verdicts in words, as a table, and what so many items can show at all."""
    pairs = distinct_pairs(contents)
    if not pairs:
        reason = "there are no test items" if not contents.rows else "there is only one candidate"
        return element("p", f"Nothing was compared: {reason}.", class_="verdict")
    rivals: list[Rival] = [(pair.candidate, pair.baseline, pair.verdicts) for pair in pairs]
    lines = summary(rivals)
    return element(
        "div",
        [element("p", line, class_="verdict" if index == 0 else "small") for index, line in enumerate(lines)],
        _table(pairs),
        _legend(pairs),
        element("p", power_words(len(contents.rows), [pair.verdicts for pair in contents.pairs]), class_="quiet"),
        _sentences(pairs),
        id="summary",
    )


def distinct_pairs(contents: Contents) -> list[Pair]:
    """The pairs, those in which a rival wins first, without baselines that stand here already under another name."""
    scores = {column.label: column.scores for column in contents.columns}
    seen: dict[tuple[str, str], None] = {}
    pairs = []
    for pair in contents.pairs:
        key = (pair.candidate, repr((scores[pair.baseline], pair.verdicts)))
        if key not in seen:
            seen[key] = None
            pairs.append(pair)
    return sorted(pairs, key=lambda pair: importance(pair.verdicts))


def _table(pairs: Sequence[Pair]) -> Html:
    ends = [abs(end) for pair in pairs for paired in pair.verdicts.values() for end in paired.ci95]
    reach = max(_LEAST_REACH, *ends)
    rows = [list(_row(pair, grader, paired, reach)) for pair in pairs for grader, paired in pair.verdicts.items()]
    heads = ["difference in points", "95 % interval", "better", "worse"]
    return table(
        ["against", "grader"], heads, rows, [f"−{100 * reach:.0f} · 0 · +{100 * reach:.0f}", "verdict"], kind="cards"
    )


def _row(pair: Pair, grader: str, paired: PairedComparison, reach: float) -> Iterator[Html]:
    low, high = (100 * end for end in paired.ci95)
    yield element("th", f"{pair.candidate} against {pair.baseline}", scope="row")
    yield element("td", grader, data_head="grader")
    yield element("td", f"{100 * paired.difference:+.1f}", class_="number", data_head="difference")
    yield element("td", f"{low:+.1f} to {high:+.1f}", class_="number quiet", data_head="95 % interval")
    yield element("td", str(paired.better), class_="number", data_head="better")
    yield element("td", str(paired.worse), class_="number", data_head="worse")
    yield element("td", interval_bar(paired, reach), class_="bar")
    sign = element("span", SIGNS[paired.verdict], class_="sign", aria_hidden="true")
    yield element("td", element("span", sign, " ", SHORT[paired.verdict], class_=f"pill is-{paired.verdict}"))


def interval_bar(paired: PairedComparison, reach: float) -> Html:
    """The interval of a difference on a line from -reach to +reach, with the margin where there is one."""
    middle = _BAR / 2
    low, at, high = (middle + end / reach * middle for end in (paired.ci95[0], paired.difference, paired.ci95[1]))
    points, below, above = (100 * value for value in (paired.difference, *paired.ci95))
    margin = None
    if paired.margin is not None and paired.margin <= reach:
        position = middle - paired.margin / reach * middle
        margin = element("line", x1=position, x2=position, y1=3, y2=17, class_="margin")
    return element(
        "svg",
        element("line", x1=0, x2=_BAR, y1=10, y2=10, class_="scale"),
        element("line", x1=middle, x2=middle, y1=2, y2=18, class_="zero"),
        margin,
        element("line", x1=low, x2=max(high, low + 1), y1=10, y2=10, class_="interval"),
        element("circle", cx=at, cy=10, r=5, class_="mean"),
        viewBox=f"-6 0 {_BAR + 12} 20",
        preserveAspectRatio="xMinYMid",
        role="img",
        aria_label=f"{points:+.1f} points, 95 % interval {below:+.1f} to {above:+.1f}",
        class_=f"is-{paired.verdict}",
    )


def _legend(pairs: Sequence[Pair]) -> Html:
    margin = next((one.margin for pair in pairs for one in pair.verdicts.values() if one.margin is not None), None)
    not_worse = (
        f"not worse by more than {margin_words(margin)}" if margin is not None else "not worse by more than a margin"
    )
    words = [
        ("better", "better"),
        ("worse", "worse"),
        ("not_worse", not_worse),
        ("not_enough_data", "not enough data to tell"),
    ]
    if any(one.verdict == "undetermined" for pair in pairs for one in pair.verdicts.values()):
        words.append(("undetermined", "could not be determined: too many scores are missing"))
    marks = [
        element("li", element("span", SIGNS[name], class_=f"sign is-{name}", aria_hidden="true"), " ", text)
        for name, text in words
    ]
    line = "Bars: the 95 % interval of the difference, around 0" + (", and the margin (dashed)." if margin else ".")
    return element("div", element("ul", marks, class_="marks"), element("p", line, class_="quiet"))


def _sentences(pairs: Sequence[Pair]) -> Html:
    sentences = [
        element("p", sentence(grader, paired, candidate=pair.candidate, baseline=pair.baseline), class_="small")
        for pair in pairs
        for grader, paired in pair.verdicts.items()
    ]
    return element("details", element("summary", "Each verdict in words"), sentences)
