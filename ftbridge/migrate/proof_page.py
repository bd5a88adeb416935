"""The page of a proof: one self-contained HTML file for the person who decides whether the replacement goes live.

It shows the verdict in a sentence, the measures with their intervals and the noise floor, what was compared and with what data,
the items on which the replacement falls most behind, and a place to sign.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ftbridge import files
from ftbridge.evaluation.wording import SHORT, margin_words
from ftbridge.migrate.measuring import Measured
from ftbridge.migrate.prove import Proof, Shown
from ftbridge.report.html.element import Html, element, table
from ftbridge.report.html.page import document
from ftbridge.report.html.summary import SIGNS, interval_bar

_LEAST_REACH = 0.1
_ABOUT = {
    "exact": "the same text as the recorded greedy completion",
    "structured": "share of JSON fields with the recorded values",
    "tool_calls": "share of tool calls with the recorded name and arguments",
    "similarity": "RapidFuzz's ratio to the recorded greedy completion, 0 to 100 %",
    "judge": "a judge model's preference against the recorded greedy completion, asked in both orders; 50 % is a tie",
}


def write_page(proof: Proof, path: Path) -> Path:
    """Write the page to `path`, whole or not at all; returns the path. It may hold personal data: only its owner reads it."""
    files.write_text(path, page(proof))
    path.chmod(0o600)
    return path


def page(proof: Proof) -> str:
    """The page as text."""
    return document(f"Proof: {proof.run} for {proof.model}", [_header(proof), _main(proof)], now=proof.made)


def _header(proof: Proof) -> Html:
    accepted = (
        f"The replacement is not worse than the recorded model by more than {margin_words(proof.margin)}."
        if proof.ok
        else f"It is not shown that the replacement is not worse by more than {margin_words(proof.margin)}."
    )
    return element(
        "header",
        element("h1", "May the replacement go live?"),
        element("p", f"{proof.run} in place of {proof.model}", class_="quiet"),
        element("p", accepted, class_="verdict"),
        element("p", proof.verdict, class_="small"),
    )


def _main(proof: Proof) -> Html:
    notes = [element("li", note) for note in proof.notes]
    return element(
        "main",
        element("ul", notes, class_="notes") if notes else None,
        _measures(proof),
        _facts(proof),
        _items("Where the replacement falls most behind", proof.worst, "It falls behind on no item."),
        _items("What the recorded model refused", proof.refusals, None),
        _signature(proof),
    )


def _measures(proof: Proof) -> Html:
    ends = [abs(end) for one in proof.measures if one.judged is not None for end in one.judged.ci95]
    reach = max(_LEAST_REACH, proof.margin, *ends)
    rows = [list(_row(one, reach)) for one in proof.measures]
    label = "recorded model" if proof.by_graders else "recorded model with itself"
    heads = ["replacement", label, "difference in points", "95 % interval", "noise floor"]
    scale = f"−{100 * reach:.0f} · 0 · +{100 * reach:.0f}"
    floor = (
        "The noise floor is how much an item's score changes, on average, from one completion of the recorded model to "
        "another: a difference of that size is the model's own."
        if proof.by_graders
        else "The recorded model does not always return the same completion. How well it agrees with itself is what the "
        "replacement is compared with, and what it lacks to 100 % is the noise floor."
    )
    kinds = [
        element("li", element("b", one.name), f": {_ABOUT[one.name]}")
        for one in proof.measures
        if one.name in _ABOUT and not proof.by_graders
    ]
    return element(
        "section",
        element("h2", "Measures"),
        element("p", "The measure in bold decides; the others are for reading.", class_="quiet"),
        table(["measure"], heads, rows, [scale, "verdict"], kind="cards"),
        element("p", floor, class_="quiet"),
        element("ul", kinds, class_="quiet") if kinds else None,
    )


def _row(one: Measured, reach: float) -> Iterator[Html]:
    yield element("th", element("b", one.name) if one.decides else one.name, scope="row")
    yield element(
        "td", _percent(one.replacement.mean if one.replacement.n else None), class_="number", data_head="replacement"
    )
    yield element(
        "td", _percent(one.recorded.mean if one.recorded is not None else None), class_="number", data_head="recorded"
    )
    paired = one.judged
    if paired is None:
        for head in ("difference", "95 % interval"):
            yield element("td", "–", class_="number quiet", data_head=head)
    else:
        low, high = (100 * end for end in paired.ci95)
        yield element("td", f"{100 * paired.difference:+.1f}", class_="number", data_head="difference")
        yield element("td", f"{low:+.1f} to {high:+.1f}", class_="number quiet", data_head="95 % interval")
    yield element("td", _percent(one.noise), class_="number", data_head="noise floor")
    yield element("td", interval_bar(paired, reach) if paired is not None else None, class_="bar")
    verdict = paired.verdict if paired is not None else "undetermined"
    sign = element("span", SIGNS[verdict], class_="sign", aria_hidden="true")
    yield element("td", element("span", sign, " ", SHORT[verdict], class_=f"pill is-{verdict}"))


def _facts(proof: Proof) -> Html:
    recorded = (
        f"{_day(proof.recorded_from)} to {_day(proof.recorded_to)}" if proof.recorded_from is not None else "unknown"
    )
    left_out = ", ".join(f"{count} {reason}" for reason, count in proof.left_out.items()) or "none"
    rows = [
        ("recorded model", proof.model),
        ("recorded", recorded),
        (
            "items compared",
            f"{proof.items}, each once greedily and {proof.samples} times at temperature {proof.temperature:g}",
        ),
        ("items left out", left_out),
        ("replacement", proof.replacement),
        ("run", f"{proof.run} ({proof.provider})"),
        ("margin", margin_words(proof.margin)),
        ("recording, SHA-256", proof.recording_sha256),
        ("training data, SHA-256", proof.train_sha256 or "unknown"),
    ]
    pairs = [(element("dt", name), element("dd", text)) for name, text in rows]
    return element("section", element("h2", "What was compared"), element("dl", pairs, class_="hash"))


def _items(title: str, shown: Sequence[Shown], nothing: str | None) -> Html | None:
    if not shown:
        return element("section", element("h2", title), element("p", nothing)) if nothing is not None else None
    blocks = [
        element(
            "div",
            element("p", one.prompt, class_="text prompt"),
            element(
                "div",
                _completion("recorded", one.recorded),
                _completion("replacement", one.replacement),
                [_completion("recorded again", text) for text in one.again if text != one.recorded][:1],
                class_="answers",
            ),
            _scores(one),
            class_="item",
        )
        for one in shown
    ]
    return element("section", element("h2", title), blocks)


def _completion(name: str, text: str) -> Html:
    return element("div", element("h4", name), element("p", text or "(nothing)", class_="text"), class_="answer")


def _scores(one: Shown) -> Html | None:
    changes = [f"{name} {_percent(first)} → {_percent(second)}" for name, (first, second) in one.scores.items()]
    return element("p", " · ".join(changes), class_="quiet") if changes else None


def _signature(proof: Proof) -> Html:
    line = "_" * 32
    return element(
        "section",
        element("h2", "Decision"),
        element(
            "p", f"The replacement {'meets' if proof.ok else 'does not meet'} the margin. It may go live: yes ☐  no ☐"
        ),
        element("p", f"Name {line}   Date {line}"),
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _day(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment)) if moment is not None else "unknown"
