"""Intervals for scores and for differences of scores over the same items: 95 %, two-sided.

    scores that are all 0 or 1, items independent   Wilson's interval; differences by Newcombe's paired method
    other scores, and items that belong together    Student's t on the sums of the clusters; an item alone is one

Where at least half of the clusters are nearly alike, what was seen says little about rare losses, and the spread of the scores
may be nothing at all. Two pseudo-clusters are added then, one at each end of what a score can be. So no interval is without
width, and its ends hold where one item in twenty falls from 0.9 to 0 (benchmarks/verdicts.py has the coverage).
Assumed throughout: clusters are independent draws from what the model will meet.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftbridge import extras

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float64]

TAIL = 0.025
ALIKE = 0.05
"""Cluster means within so much of one another are nearly alike, on a scale of 0 to 1."""
_ROUNDING = 1e-9


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[float, float, float]:
    """Mean of scores in [0, 1], and the two ends of its 95 % interval.

    Scores that are all 0 or 1, of independent items: Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209), which
    keeps its coverage for few items and for means near 0 and 1. Other scores, and items that share a cluster: `t_interval`.
    `clusters` names, for each item, what it belongs to. n = 1: Wilson's interval is wide and right; for another score, and for
    a single cluster, it is [0, 1]. n = 0, and scores that are not finite numbers: `ValueError`.
    """
    if not values:
        raise ValueError("a mean needs at least 1 score")
    require_finite(values)
    mean = math.fsum(values) / len(values)
    if _is_binary(values) and not share(clusters):
        return mean, *wilson(math.fsum(values), len(values))
    return mean, *t_interval(values, clusters, lowest=0.0, highest=1.0)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float, float]:
    """Mean of `first` minus mean of `second`, and its 95 % interval; element i of both is the same item.

    Scores that are all 0 or 1, of independent items: method 10 of Newcombe 1998 (Statist. Med. 17:2635), Wilson intervals of
    both means combined with their correlation over the items. Other scores, and items that share a cluster: `t_interval` of the
    differences item by item. The interval lies in [-1, 1].
    n = 1: Newcombe's interval is wide and right; for another score, and for a single cluster, it is [-1, 1]. n = 0, lengths
    that differ, and scores that are not finite numbers: `ValueError`.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores are not pairs")
    if not first:
        raise ValueError("a difference needs at least 1 pair")
    require_finite(first)
    require_finite(second)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = math.fsum(differences) / len(differences)
    if independent_binary(first, second, clusters):
        return mean, *_newcombe(first, second)
    return mean, *t_interval(differences, clusters, lowest=-1.0, highest=1.0)


def t_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None, *, lowest: float, highest: float
) -> tuple[float, float]:
    """Ends of the 95 % t interval of the mean of values in [lowest, highest], from `spread_of`; a single cluster: all of it."""
    spread = spread_of(values, clusters, lowest=lowest, highest=highest)
    if spread is None:
        return lowest, highest
    reach = student(1 - TAIL, spread.freedom) * spread.error
    mean = math.fsum(values) / len(values)
    return (
        max(lowest, min(mean, spread.center - reach)),
        min(highest, max(mean, spread.center + reach)),
    )


@dataclass(frozen=True)
class Spread:
    """Where a t interval is centred, the standard error, and its degrees of freedom."""

    center: float
    error: float
    freedom: float


def spread_of(
    values: Sequence[float], clusters: Sequence[Hashable] | None, *, lowest: float, highest: float
) -> Spread | None:
    """The standard error of a mean between clusters; None for a single cluster.

    Squared residuals of the cluster sums, each over 1 - its share of the items (CR2; Bell and McCaffrey 2002, Survey
    Methodology 28:169), with their degrees of freedom: the number of clusters less one where clusters are of one size, fewer
    where they are not. Where at least half of the cluster means lie within `ALIKE` of one another, two clusters of the (root
    mean square) size are added, one all `lowest`, one all `highest`, as Agresti and Coull 1998 (Am. Stat. 52:119) add successes
    and failures.
    """
    import numpy as np

    sums, sizes = _by_cluster(values, clusters)
    count = len(sums)
    if count < 2:
        return None
    freedom = _freedom(sizes)
    if _half_alike(sums / sizes):
        size = math.sqrt(float((sizes**2).mean()))
        sums = np.concatenate([sums, [lowest * size, highest * size]])
        sizes = np.concatenate([sizes, [size, size]])
    total = float(sizes.sum())
    center = float(sums.sum()) / total
    residuals = sums - center * sizes
    error = math.sqrt(float((residuals**2 / (1 - sizes / total)).sum())) / total
    return Spread(center, error, freedom)


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> list[tuple[float, int]]:
    """Sum and number of the values of each cluster, smallest first; without clusters every value is one of its own."""
    if clusters is None:
        return sorted((value, 1) for value in values)
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    return sorted((math.fsum(inside), len(inside)) for inside in members.values())


def require_finite(scores: Sequence[float]) -> None:
    """Raise `ValueError` that names the first score that is NaN or infinite, by its place."""
    for index, score in enumerate(scores):
        if not math.isfinite(score):
            raise ValueError(f"score {index + 1} of {len(scores)} is {score}, which is not a finite number")


def require_statistics() -> None:
    """Raise `MissingDependency` where scipy, which intervals and verdicts are computed with, is not installed."""
    extras.require("eval", "an evaluation with intervals and verdicts", "scipy")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for `successes` out of `n` (at least 1), without continuity correction."""
    from scipy.stats import binomtest

    ends = binomtest(round(successes), n).proportion_ci(confidence_level=1 - 2 * TAIL, method="wilson")
    # The ends are exactly 0 and 1 there; arithmetic would leave 1e-17.
    return (0.0 if successes == 0 else float(ends.low)), (1.0 if successes == n else float(ends.high))


def student(probability: float, freedom: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def share(clusters: Sequence[Hashable] | None) -> bool:
    """Whether some items belong together."""
    return clusters is not None and len(set(clusters)) < len(clusters)


def independent_binary(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None) -> bool:
    """Whether the scores of both are 0 or 1, and no items belong together."""
    return _is_binary(first) and _is_binary(second) and not share(clusters)


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable] | None) -> tuple[Vector, Vector]:
    """Sums and sizes, sorted, so that the order of the items does not matter to the last digit."""
    import numpy as np

    sums, sizes = np.array(cluster_sums(values, clusters), dtype=float).T
    return sums, sizes


def _half_alike(means: Vector) -> bool:
    """Whether some window as wide as `ALIKE` holds at least half of the means."""
    import numpy as np

    ordered = np.sort(means)
    half = (len(ordered) + 1) // 2
    return bool((ordered[half - 1 :] - ordered[: len(ordered) - half + 1]).min() <= ALIKE + _ROUNDING)


def _freedom(sizes: Vector) -> float:
    """Satterthwaite's degrees of freedom of the CR2 variance of a mean, items taken as independent."""
    total = float(sizes.sum())
    weights = sizes**2 / total / (1 - sizes / total)
    return total**2 / float((sizes**2).sum() + weights.sum() ** 2 - (weights**2).sum())


def _newcombe(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Method 10. Counts in Newcombe's letters: e both right, f only the first, g only the second, h neither."""
    n = len(first)
    e = sum(a == 1 and b == 1 for a, b in zip(first, second, strict=True))
    f, g = int(sum(first)) - e, int(sum(second)) - e
    h = n - e - f - g
    share_1, share_2 = (e + f) / n, (e + g) / n
    low_1, high_1 = wilson(e + f, n)
    low_2, high_2 = wilson(e + g, n)
    margins = (e + f) * (g + h) * (e + g) * (f + h)
    product = e * h - f * g
    # The correlation is drawn towards 0 by n / 2 when it is positive: Newcombe's correction for few pairs.
    corrected = max(product - n / 2, 0.0) if product > 0 else float(product)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    below = _joined(share_1 - low_1, high_2 - share_2, phi)
    above = _joined(high_1 - share_1, share_2 - low_2, phi)
    difference = (f - g) / n
    return max(-1.0, difference - below), min(1.0, difference + above)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))
