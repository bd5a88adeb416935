"""Intervals for scores and for differences of scores over the same items: 95 %, two-sided; by scipy where it has the method.

    scores that are all 0 or 1      Wilson's interval; differences by Newcombe's paired method
    other scores                    bootstrap over the items
    items that belong together      bootstrap over their clusters, whatever the scores

Assumed throughout: clusters (items, where none belong together) are independent draws from what the model will meet. Scores are
finite: NaN and infinity raise `ValueError`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any

_TAIL = 0.025
_RESAMPLES = 10_000
_FEWEST_RESAMPLES = 1_000
_DRAWS = 5_000_000
_AT_ONCE = 2_000_000
"""Numbers drawn at once, which bounds memory."""
_SEED = 0


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[float, float, float]:
    """Mean of scores in [0, 1], and the two ends of its 95 % interval.

    Scores that are all 0 or 1: Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209), which keeps its
    coverage for few items and for means near 0 and 1. Other scores: bootstrap, seeded, so the same scores always give the
    same interval; when all scores are the same it has no width.
    `clusters` names, for each item, what it belongs to: where several share a name, clusters are resampled instead of items.
    n = 1: Wilson's interval is wide and right; for another score, and for a single cluster, it is [0, 1]. n = 0: `ValueError`.
    """
    if not values:
        raise ValueError("a mean needs at least 1 score")
    _require_finite(values)
    mean = math.fsum(values) / len(values)
    if _is_binary(values) and not _share(clusters):
        return mean, *wilson(round(math.fsum(values)), len(values))
    return mean, *_bootstrap(values, clusters, lowest=0.0, highest=1.0)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float, float]:
    """Mean of `first` minus mean of `second`, and its 95 % interval; element i of both is the same item.

    Scores that are all 0 or 1: method 10 of Newcombe 1998 (Statist. Med. 17:2635), Wilson intervals of both means
    combined with their correlation over the items. Other scores, and items that share a cluster: bootstrap of the differences
    item by item, with the limits named at `mean_interval`. The interval lies in [-1, 1].
    n = 1: Newcombe's interval is wide and right; for another score the interval is [-1, 1]. n = 0 and lengths that
    differ: `ValueError`.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores are not pairs")
    if not first:
        raise ValueError("a difference needs at least 1 pair")
    _require_finite((*first, *second))
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = math.fsum(differences) / len(differences)
    if _is_binary(first) and _is_binary(second) and not _share(clusters):
        return mean, *_newcombe(first, second)
    return mean, *_bootstrap(differences, clusters, lowest=-1.0, highest=1.0)


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> list[tuple[float, int]]:
    """Sum and number of the values of each cluster, smallest first; without clusters every value is one of its own."""
    if clusters is None:
        return sorted((value, 1) for value in values)
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    return sorted((math.fsum(inside), len(inside)) for inside in members.values())


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for `successes` out of `n` (at least 1)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(1 - 2 * _TAIL, method="wilson")
    return float(interval.low), float(interval.high)


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


def _bootstrap(
    values: Sequence[float], clusters: Sequence[Hashable] | None, *, lowest: float, highest: float
) -> tuple[float, float]:
    """Ends of the expanded percentile bootstrap of the mean: 10,000 resamples, fewer (1,000 at least) above 500 clusters.

    Whole clusters are drawn (Field and Welsh 2007, J. R. Stat. Soc. B 69:369). The plain percentile interval (Efron and
    Tibshirani 1993, section 13.3) is too narrow for few; its tails are moved out as Student's t would move them (Hesterberg
    2015, Am. Stat. 69:371, section 5.3).
    """
    population = cluster_sums(values, clusters)  # sorted, so that the order of the items does not matter
    n = len(population)
    if n == 1:
        return lowest, highest
    if population[0] == population[-1]:  # all alike: every resample is the same
        return (value := population[0][0] / population[0][1]), value
    import numpy as np
    from scipy.stats import bootstrap

    sums, sizes = np.array(population, dtype=float).T
    interval = bootstrap(
        (sums, sizes),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=max(_FEWEST_RESAMPLES, min(_RESAMPLES, _DRAWS // n)),
        batch=max(1, _AT_ONCE // n),
        confidence_level=1 - 2 * _expanded_tail(n),
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return max(lowest, float(interval.low)), min(highest, float(interval.high))


def _ratio(sums: Any, sizes: Any, axis: int = -1) -> Any:
    """The mean of what was drawn: clusters differ in size."""
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _expanded_tail(n: int) -> float:
    """The share of resamples to cut off at each end, for `n` draws: 2.5 % for many, less for few."""
    from scipy.stats import t

    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * float(t.ppf(1 - _TAIL, n - 1)))


def _share(clusters: Sequence[Hashable] | None) -> bool:
    """Whether some items belong together."""
    return clusters is not None and len(set(clusters)) < len(clusters)


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _require_finite(values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError("a score is not a finite number")
