"""Verdicts on paired scores: is the second better, worse, not worse by more than a margin, or can nobody tell?

    scores over the same items ─▶ difference, 95 % interval ─▶ test ─▶ Holm over the graders ─▶ verdict

Better and worse need both: the interval lies on one side of 0, and the test, corrected for the number of graders, says so at
5 %. So a false one comes in fewer than 1 comparison of 20 (benchmarks/verdicts.py). Items that belong together count as one
draw: they are resampled and flipped together. Clusters are assumed independent.

Not worse needs the low end of the same two-sided 95 % interval above -margin: a one-sided test at 2.5 % of "worse by the margin
or more", the level usual for non-inferiority (ICH E9, section 3.3.2 with 5.5). It is not corrected for the number of graders.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.statistics import MANY, SEED, cluster_sums, paired_difference, require_finite

Verdict = Literal["better", "worse", "not_worse", "not_enough_data"]
ALPHA = 0.05
_POWER = 0.8
_FLIPS = 9_999
"""Drawn sign flips. Where there are no more than these (13 items or clusters that differ), scipy goes through all."""
_AT_ONCE = 1_000_000


class Judged(BaseModel):
    """A candidate against another, the baseline, on one grader. Differences are candidate minus baseline, -1 to 1."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict = Field(description="better, worse, not_worse (by more than the margin), or not_enough_data.")
    difference: float = Field(description="Mean of the candidate minus mean of the baseline.")
    ci95: tuple[float, float] = Field(description="95 % interval of the difference, paired over the items.")
    p_value: float = Field(description="Two-sided: exact McNemar for scores of 0 and 1, sign flips for others.")
    p_adjusted: float = Field(description="The same after Holm's correction over the graders.")
    margin: float | None = Field(description="How much worse still counts as not worse; null when none was asked.")
    margin_met: bool | None = Field(description="Whether the interval lies above -margin; null without a margin.")
    detectable: float = Field(description="Smallest difference that this many items show 4 times in 5.")
    n: int = Field(description="Items.")
    better: int = Field(description="Items on which the candidate scores higher.")
    worse: int = Field(description="Items on which the candidate scores lower.")


def judge_pairs(
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    margin: float | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Judged]:
    """A verdict for each grader; element i of both sides is the same item, `clusters` names what each item belongs to.

    Raises `ValueError` for unequal lengths, none, and scores that are NaN or infinite.
    """
    pairs = {grader: (first[grader], second[grader]) for grader in first}
    raw = {grader: paired_p_value(ones, others, clusters) for grader, (ones, others) in pairs.items()}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return {
        grader: _judged(ones, others, raw[grader], adjusted[grader], margin, clusters)
        for grader, (ones, others) in pairs.items()
    }


def paired_p_value(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> float:
    """Two-sided p-value of "no difference", item by item, or cluster by cluster.

    Scores of 0 and 1: McNemar's test in its exact, binomial form (McNemar 1947, Psychometrika 12:153). Others: a sign-flip
    permutation test of the mean difference (Fisher 1935), exact up to 13 that differ, else 9,999 seeded flips with the
    observed one counted (Phipson and Smyth 2010, so that p is never 0); from 5,000 on, its normal limit. 1 when none
    differs. A cluster's differences are added first and flip as one: under "no difference" the two sides' names could be
    exchanged for whole clusters only.
    """
    import numpy as np
    from scipy.stats import binomtest, permutation_test

    require_finite(first)
    require_finite(second)
    by_item = [b - a for a, b in zip(first, second, strict=True)]
    differences = np.array([total for total, _ in cluster_sums(by_item, clusters) if abs(total) > 1e-12])
    size = len(differences)
    if size < 2:
        return 1.0  # one sign, flipped or not, has the same size; scipy takes two or more
    if (np.abs(differences) == 1).all():
        return float(binomtest(int((differences > 0).sum()), size).pvalue)
    if size >= MANY:
        z = abs(math.fsum(differences)) / math.sqrt(math.fsum(differences**2))
        return math.erfc(z / math.sqrt(2))
    told = permutation_test(
        (differences,),
        _size_of_sum,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=_FLIPS,
        batch=max(1, _AT_ONCE // size),
        random_state=np.random.default_rng(SEED),
    )
    return float(told.pvalue)


def _size_of_sum(differences: Any, axis: int) -> Any:
    """Rounded, so that sums that are equal but for the order of adding are equal."""
    return abs(differences.sum(axis=axis)).round(10)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979, Scand. J. Statist. 6:65): the tests together are false at most at 5 %."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def detectable(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """The difference that a two-sided 5 % test of so many pairs finds with a power of 80 %: (t_0.975 + t_0.8) standard errors.

    The standard error is that of the mean of the differences, between clusters where items share one; where all differences
    are alike, that of one item in n differing. Where those that differ do so by one size, as scores of 0 and 1 do, the exact
    test moves in steps and finds less: half a step is added, by simulation (benchmarks/verdicts.py). At most 1.
    """
    from scipy.stats import t

    n = len(first)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean = math.fsum(differences) / n
    residuals = cluster_sums([difference - mean for difference in differences], clusters)
    draws = len(residuals)
    if draws == 1:
        return 1.0
    error = math.sqrt(math.fsum(total**2 for total, _ in residuals) * draws / (draws - 1)) / n
    sizes = {round(abs(total), 10) for total, _ in cluster_sums(differences, clusters)} - {0.0}
    step = sizes.pop() / (2 * n) if len(sizes) == 1 else 0.0
    reach = float(t.ppf(1 - ALPHA / 2, draws - 1) + t.ppf(_POWER, draws - 1))
    return min(1.0, reach * (error if error > 1e-12 else 1 / n) + step)


def _judged(
    first: Sequence[float],
    second: Sequence[float],
    p_value: float,
    p_adjusted: float,
    margin: float | None,
    clusters: Sequence[Hashable] | None,
) -> Judged:
    difference, low, high = paired_difference(second, first, clusters)
    met = None if margin is None else low > -margin or (margin == 0 and low >= 0)
    verdict: Verdict = "not_enough_data"
    if p_adjusted < ALPHA and low > 0:
        verdict = "better"
    elif p_adjusted < ALPHA and high < 0 and not met:
        verdict = "worse"
    elif met:
        verdict = "not_worse"
    return Judged(
        verdict=verdict,
        difference=difference,
        ci95=(low, high),
        p_value=p_value,
        p_adjusted=p_adjusted,
        margin=margin,
        margin_met=met,
        detectable=detectable(first, second, clusters),
        n=len(first),
        better=sum(b > a for a, b in zip(first, second, strict=True)),
        worse=sum(b < a for a, b in zip(first, second, strict=True)),
    )
