"""Bars: an interval with its mean on a line, as x coordinates of a drawing that is `Bar.WIDTH` wide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ftbridge.evaluation.document import Score
from ftbridge.evaluation.verdict import PairedComparison, Verdict

_MIN_REACH = 0.1


@dataclass(frozen=True)
class Bar:
    """What the macro `bar` draws. `label` says the same in words; a bar with a `verdict` is of a difference, around 0."""

    WIDTH: ClassVar[int] = 240
    low: float
    mean: float
    high: float
    label: str
    margin: float | None = None
    verdict: Verdict | None = None

    @property
    def middle(self) -> int:
        """Where a score of a half, or a difference of 0, lies."""
        return self.WIDTH // 2


def score_bar(score: Score) -> Bar:
    """A mean score and its interval on a line from 0 to 1."""
    low, mean, high = (value * Bar.WIDTH for value in (score.ci95[0], score.mean, score.ci95[1]))
    label = f"{100 * score.mean:.1f} %, 95 % interval {100 * score.ci95[0]:.1f} to {100 * score.ci95[1]:.1f}"
    return Bar(low, mean, max(high, low + 1), label)


def difference_bar(paired: PairedComparison, reach: float) -> Bar:
    """A difference and its interval on a line from -reach to +reach, with the margin where there is one within reach."""
    middle = Bar.WIDTH / 2
    low, mean, high = (middle + end / reach * middle for end in (paired.ci95[0], paired.difference, paired.ci95[1]))
    points, below, above = (100 * value for value in (paired.difference, *paired.ci95))
    label = f"{points:+.1f} points, 95 % interval {below:+.1f} to {above:+.1f}"
    margin = None
    if paired.margin is not None and paired.margin <= reach:
        margin = middle - paired.margin / reach * middle
    return Bar(low, mean, max(high, low + 1), label, margin, paired.verdict)


def reach_of(comparisons: Iterable[PairedComparison], margin: float = 0.0) -> float:
    """How far from 0 a line must go to hold every interval and the margin; 0.1 at least."""
    return max(_MIN_REACH, margin, *(abs(end) for paired in comparisons for end in paired.ci95))


def reach_words(reach: float) -> str:
    """The heading of a column of bars: the ends of their line, in points."""
    return f"−{100 * reach:.0f} · 0 · +{100 * reach:.0f}"
