"""Intervals for scores and for differences of scores over the same items: 95 %, two-sided, by scipy.

    scores that are all 0 or 1      Wilson's interval; differences by Newcombe's paired method
    other scores                    bootstrap over the items
    items that belong together      bootstrap over their clusters, whatever the scores

scipy has every method but Newcombe's, which is here. It takes a second to import, so it is imported where it is used.
Assumed throughout: clusters (items, where none belong together) are independent draws from what the model will meet.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any

_TAIL = 0.025
_RESAMPLES = 10_000
_AT_ONCE = 1_000_000
"""Values drawn together, which bounds memory to some tens of megabytes."""
MANY = 5_000
"""From so many clusters on, means are taken to be normal: resampling would take seconds and tell the same."""
SEED = 0


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[float, float, float]:
    """Mean of scores in [0, 1], and the two ends of its 95 % interval.

    Scores that are all 0 or 1: Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209), which keeps its
    coverage for few items and for means near 0 and 1. Other scores: bootstrap, seeded, so the same scores always give the
    same interval; when all scores are the same it has no width.
    `clusters` names, for each item, what it belongs to: where several share a name, clusters are resampled instead of items.
    n = 1: Wilson's interval is wide and right; for another score, and for a single cluster, it is [0, 1]. n = 0, and scores
    that are no finite number: `ValueError`.
    """
    if not values:
        raise ValueError("a mean needs at least 1 score")
    require_finite(values)
    mean = math.fsum(values) / len(values)
    if _is_binary(values) and not _share(clusters):
        return mean, *wilson(math.fsum(values), len(values))
    return mean, *_bootstrap(values, clusters, lowest=0.0, highest=1.0)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float, float]:
    """Mean of `first` minus mean of `second`, and its 95 % interval; element i of both is the same item.

    Scores that are all 0 or 1: method 10 of Newcombe 1998 (Statist. Med. 17:2635), Wilson intervals of both means
    combined with their correlation over the items. Other scores, and items that share a cluster: bootstrap of the differences
    item by item, with the limits named at `mean_interval`. The interval lies in [-1, 1].
    n = 1: Newcombe's interval is wide and right; for another score the interval is [-1, 1]. n = 0, lengths that
    differ, and scores that are no finite number: `ValueError`.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores are not pairs")
    if not first:
        raise ValueError("a difference needs at least 1 pair")
    require_finite(first)
    require_finite(second)
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


def require_finite(scores: Sequence[float]) -> None:
    """Raise `ValueError` that names the first score that is NaN or infinite, by its place."""
    for place, score in enumerate(scores):
        if not math.isfinite(score):
            raise ValueError(f"score {place + 1} of {len(scores)} is {score}, which is no finite number")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for `successes` out of `n` (at least 1), without continuity correction."""
    from scipy.stats import binomtest

    ends = binomtest(round(successes), n).proportion_ci(confidence_level=1 - 2 * _TAIL, method="wilson")
    # The ends are exactly 0 and 1 there; arithmetic would leave 1e-17.
    return (0.0 if successes == 0 else float(ends.low)), (1.0 if successes == n else float(ends.high))


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
    """Ends of the expanded percentile bootstrap of the mean, 10,000 resamples; normal ends from 5,000 clusters on.

    Whole clusters are drawn (Field and Welsh 2007, J. R. Stat. Soc. B 69:369). The plain percentile interval (Efron and
    Tibshirani 1993, section 13.3) is too narrow for few; its tails are moved out as Student's t would move them (Hesterberg
    2015, Am. Stat. 69:371, section 5.3).
    """
    import numpy as np
    from scipy.stats import bootstrap

    population = cluster_sums(values, clusters)  # sorted, so that the order of the items does not matter
    n = len(population)
    if n == 1:
        return lowest, highest
    sums, sizes = np.array(population, dtype=float).T
    mean = float(sums.sum() / sizes.sum())
    spread = sums - mean * sizes
    if np.abs(spread).max() < 1e-12:  # all alike: no width
        return max(lowest, mean), min(highest, mean)
    if n >= MANY:
        reach = NormalDist().inv_cdf(1 - _TAIL) * float(np.sqrt((spread**2).sum() * n / (n - 1)) / sizes.sum())
        return max(lowest, mean - reach), min(highest, mean + reach)
    ends = bootstrap(
        (sums, sizes),
        _ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=1 - 2 * _expanded_tail(n),
        n_resamples=_RESAMPLES,
        batch=max(1, _AT_ONCE // n),
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return max(lowest, float(ends.low)), min(highest, float(ends.high))


def _ratio(sums: Any, sizes: Any, axis: int) -> Any:
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
