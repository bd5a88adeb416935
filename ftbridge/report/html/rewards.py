"""Rewards of reinforcement in the page: curves, lengths, the best-rewarded completions beside the base model's, failures."""

from __future__ import annotations

from collections.abc import Sequence

from ftbridge.report.html.curves import drawing
from ftbridge.report.html.element import Html, element, table
from ftbridge.report.html.sources import Curve
from ftbridge.report.rewards import Beside, RewardHistory


def rewards(histories: Sequence[RewardHistory]) -> Html | None:
    """One section for all runs that were tuned by rewards; None where none was."""
    if not histories:
        return None
    curves = [Curve(one.label, one.train, one.held_out) for one in histories]
    return element(
        "section",
        element("h2", "Rewards"),
        [element("p", f"{one.label}: {one.sentence}" if len(histories) > 1 else one.sentence) for one in histories],
        element("p", "Thin: completions that were learnt from. Thick, with dots: held-out prompts.", class_="quiet"),
        drawing(curves, "Mean reward over training.", "held-out reward"),
        [_of_run(one, several=len(histories) > 1) for one in histories],
        id="rewards",
    )


def _of_run(history: RewardHistory, *, several: bool) -> Html:
    first, last = history.tokens[0][1], history.tokens[-1][1]
    return element(
        "div",
        element("h3", history.label) if several else None,
        element("p", f"Completions: {first:.1f} tokens in the first step, {last:.1f} in the last.", class_="quiet"),
        _best(history.best),
        _errors(history),
    )


def _best(best: Sequence[Beside]) -> Html | None:
    if not best:
        return None
    rows = [
        [
            element("th", one.prompt, scope="row"),
            element("td", one.tuned),
            element("td", f"{one.tuned_reward:.3g}", class_="number"),
            element("td", one.base),
            element("td", "none" if one.base_reward is None else f"{one.base_reward:.3g}", class_="number"),
        ]
        for one in best
    ]
    about = "Look at them: whatever the grader pays for is what the model learns."
    return element(
        "div",
        element("h3", "Best-rewarded completions of the last validation"),
        element("p", about, class_="quiet"),
        table(["prompt"], [], rows, ["tuned", "reward", "base", "reward"]),
    )


def _errors(history: RewardHistory) -> Html | None:
    if not history.errors:
        return None
    rows = [
        [element("th", name, scope="row"), element("td", f"{count:,}", class_="number")]
        for name, count in history.errors
    ]
    about = f"{history.without:,} of {history.completions:,} completions have no reward: they left their groups."
    return element(
        "div",
        element("h3", "Grading that failed"),
        element("p", about, class_="quiet"),
        table(["error"], ["completions"], rows, kind="narrow"),
    )
