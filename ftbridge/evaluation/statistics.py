"""Intervals for scores and for differences of scores over the same items: 95 %, two-sided, standard library only.

    scores that are all 0 or 1      Wilson's interval; differences by Newcombe's paired method
    other scores                    bootstrap over the items
    items that belong together      bootstrap over their clusters, whatever the scores

Assumed throughout: clusters (items, where none belong together) are independent draws from what the model will meet.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from statistics import NormalDist

_TAIL = 0.025
_Z = NormalDist().inv_cdf(1 - _TAIL)
_RESAMPLES = 10_000
_FEWEST_RESAMPLES = 1_000
_DRAWS = 5_000_000
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
    n = 1: Newcombe's interval is wide and right; for another score the interval is [-1, 1]. n = 0 and lengths that
    differ: `ValueError`.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores are not pairs")
    if not first:
        raise ValueError("a difference needs at least 1 pair")
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


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for `successes` out of `n` (at least 1)."""
    share = successes / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # The ends are exactly 0 and 1 there; arithmetic would leave 1e-17.
    return (0.0 if successes == 0 else centre - reach), (1.0 if successes == n else centre + reach)


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
    resamples = max(_FEWEST_RESAMPLES, min(_RESAMPLES, _DRAWS // n))
    draw = random.Random(_SEED).choices
    if all(size == population[0][1] for _, size in population):
        sums, whole = [total for total, _ in population], len(values)
        means = sorted(sum(draw(sums, k=n)) / whole for _ in range(resamples))
    else:
        drawn = (draw(population, k=n) for _ in range(resamples))
        means = sorted(sum(total for total, _ in pick) / sum(size for _, size in pick) for pick in drawn)
    cut = max(1, round(_expanded_tail(n) * (resamples + 1)))
    return max(lowest, means[cut - 1]), min(highest, means[resamples - cut])


def _expanded_tail(n: int) -> float:
    """The share of resamples to cut off at each end, for `n` draws: 2.5 % for many, less for few."""
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * _student(n - 1))


def _student(df: int) -> float:
    """The 97.5 % point of Student's t, by the expansion 26.7.5 of Abramowitz and Stegun 1964; within 0.01 from 5 degrees on."""
    z = _Z
    return (
        z
        + (z**3 + z) / (4 * df)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    )


def _share(clusters: Sequence[Hashable] | None) -> bool:
    """Whether some items belong together."""
    return clusters is not None and len(set(clusters)) < len(clusters)


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)
