"""Verdicts on paired scores: is the second better, worse, not worse by more than a margin, or are there too few data?

    scores over the same items ─▶ difference, 95 % interval ─▶ test ─▶ Holm over the comparisons ─▶ verdict

Better and worse need both: the interval lies on one side of 0, and the test, corrected for the number of comparisons (graders
times candidates), says so at 5 %. So a false one comes in fewer than 1 evaluation of 20 (benchmarks/verdicts.py). Items that
belong together count as one draw: they are summed and flipped together. Clusters are assumed independent.

Not worse needs the low end of the same two-sided 95 % interval above -margin: a one-sided test at 2.5 % of "worse by the margin
or more", the level usual for non-inferiority (ICH E9, section 3.3.2 with 5.5). It is not corrected for the number of
comparisons. Fewer than six items or clusters conclude nothing, whatever their scores.

McNemar's test is the exact one, not its mid-p form, which finds more with few items but is false in up to 5.8 % of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.missing import MaybeScores, both_present, too_many
from ftbridge.evaluation.statistics import (
    cluster_sums,
    independent_binary,
    paired_difference,
    require_finite,
    spread_of,
    student,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Verdict = Literal["better", "worse", "not_worse", "not_enough_data", "undetermined"]
Scores = Mapping[str, MaybeScores]
"""One candidate's scores by grader, in the order of the items; None where a grader, judge or endpoint failed."""
ALPHA = 0.05
_POWER = 0.8
FEWEST = 6
"""Items or clusters below which nothing is concluded: fewer that all agree have a one-sided p-value above 2.5 % (2^-5)."""
SEED = 0
MANY = 5_000
"""From so many clusters that differ on, the sign-flip test is its normal limit, which is faster and says the same."""
_FLIPS = 9_999
"""Drawn sign flips. Where there are no more than these (13 items or clusters that differ), all are gone through."""
_AT_ONCE = 1_000_000
_ROUNDING = 1e-10


class PairedComparison(BaseModel):
    """A candidate against another, the baseline, on one grader. Differences are candidate minus baseline, -1 to 1."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict = Field(
        description="better, worse, not_worse (by more than the margin), not_enough_data, or undetermined: more than a tenth "
        "of the items have no score because a grader, judge or endpoint failed."
    )
    difference: float = Field(description="Mean of the candidate minus mean of the baseline.")
    ci95: tuple[float, float] = Field(description="95 % interval of the difference, paired over the items.")
    p_value: float = Field(description="Two-sided: exact McNemar for scores of 0 and 1, sign flips for others.")
    p_adjusted: float = Field(description="The same after Holm's correction over graders and candidates.")
    margin: float | None = Field(description="Largest drop that still counts as not worse; null if none was requested.")
    margin_met: bool | None = Field(
        description="Whether the interval lies above -margin, from 6 items or clusters at least; null without a margin."
    )
    detectable: float = Field(
        description="Smallest difference that this many items and comparisons detect 4 times in 5; 1 if there is none."
    )
    n: int = Field(description="Items with a score on both sides.")
    better: int = Field(description="Items on which the candidate scores higher.")
    worse: int = Field(description="Items on which the candidate scores lower.")
    missing: int = Field(
        default=0, description="Items left out because a grader, judge or endpoint failed on either side."
    )


def compare_paired(
    first: Scores,
    second: Scores,
    margin: float | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, PairedComparison]:
    """A verdict for each grader; element i of both sides is the same item, `clusters` names what each item belongs to.

    Raises `ValueError` for unequal lengths, none, and scores that are NaN or infinite.
    """
    return compare_family({"": (first, second)}, margin, clusters)[""]


def compare_family(
    pairs: Mapping[str, tuple[Scores, Scores]],
    margin: float | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, dict[str, PairedComparison]]:
    """A verdict for each pair of candidates and each grader: the second of a pair against its first, the baseline.

    Holm's correction covers all of them, since any of them could be the false one. Comparisons of the same scores by the same
    grader, such as those with a baseline under two names, are one. Items without a score on either side are left out
    (`ftbridge.evaluation.missing`). Raises as `compare_paired` does.
    """
    comparisons = {
        (pair, grader): (tuple(ones), tuple(second[grader]))
        for pair, (first, second) in pairs.items()
        for grader, ones in first.items()
    }
    different = dict.fromkeys((grader, scores) for (_, grader), scores in comparisons.items())
    complete = {test: both_present(*test[1], clusters) for test in different}
    missing = {test: len(test[1][0]) - len(ones) for test, (ones, _, _) in complete.items()}
    lost = {test for test, count in missing.items() if count and too_many(count, len(test[1][0]))}
    tests = {test: paired_p_value(*scores) for test, scores in complete.items() if test not in lost}
    adjusted = dict(zip(tests, holm(list(tests.values())), strict=True))
    family: dict[str, dict[str, PairedComparison]] = {pair: {} for pair in pairs}
    for (pair, grader), scores in comparisons.items():
        test = (grader, scores)
        ones, others, rows = complete[test]
        if test in lost:
            family[pair][grader] = _undetermined(ones, others, rows, margin, missing[test])
            continue
        one = _judged(ones, others, tests[test], adjusted[test], margin, rows, len(tests))
        family[pair][grader] = one.model_copy(update={"missing": missing[test]})
    return family


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
    from scipy.stats import binomtest

    require_finite(first)
    require_finite(second)
    by_item = [b - a for a, b in zip(first, second, strict=True)]
    differences = np.array([total for total, _ in cluster_sums(by_item, clusters) if abs(total) > 1e-12])
    size = len(differences)
    if size < 2:
        return 1.0  # one sign, flipped or not, has the same size
    if (np.abs(differences) == 1).all():
        return float(binomtest(int((differences > 0).sum()), size).pvalue)
    if size >= MANY:
        z = abs(math.fsum(differences)) / math.sqrt(math.fsum(differences**2))
        return math.erfc(z / math.sqrt(2))
    return _share_of_flips(differences)


def _share_of_flips(differences: NDArray[np.float64]) -> float:
    """The share of sign flips with a sum as large as the observed one; a seeded draw of flips counts the observed one too."""
    import numpy as np

    size = len(differences)
    observed = abs(float(differences.sum()))
    exact = 2**size <= _FLIPS
    count, larger = (2**size if exact else _FLIPS), 0
    dice = np.random.default_rng(SEED)
    step = max(1, _AT_ONCE // size)
    for start in range(0, count, step):
        rows = min(step, count - start)
        if exact:
            flipped = np.arange(start, start + rows)[:, None] >> np.arange(size) & 1
        else:
            flipped = np.unpackbits(dice.integers(0, 256, (rows, (size + 7) // 8), dtype=np.uint8), axis=1, count=size)
        sums = differences.sum() - 2 * (flipped.astype(np.float64) @ differences)
        # Sums that are equal but for the order of adding are equal.
        larger += int((np.abs(sums) >= observed - _ROUNDING).sum())
    return larger / count if exact else (larger + 1) / (count + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979, Scand. J. Statist. 6:65): the tests together are false at most at 5 %."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    comparisons: int = 1,
) -> float:
    """The smallest difference that is found with a power of 80 % among so many pairs, as one of so many `comparisons`.

    Both hurdles of a verdict are taken. The interval and the test in the large: (t + t_0.8) standard errors between clusters,
    t at the two-sided level 5 % / comparisons (Holm's first step). The test in the small: with r clusters that differ its
    smallest p-value is 2^(1-r), so at least r clusters must differ 4 times in 5. Where those that differ do so by one size, as
    scores of 0 and 1 do, the exact test moves in steps and finds less: half a step is added, by simulation
    (benchmarks/verdicts.py). 1 when no difference is found, at most 1.
    """
    n = len(first)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    sums = cluster_sums(differences, clusters)
    draws = len(sums)
    needed = _differing_needed(ALPHA / comparisons)
    if draws < needed:
        return 1.0
    error, freedom = _standard_error(differences, clusters, independent_binary(first, second, clusters))
    sizes = [abs(total) for total, _ in sums if abs(total) > 1e-12]
    one_size = len({round(size, 10) for size in sizes}) == 1
    step = sizes[0] / (2 * n) if one_size else 0.0
    reach = student(1 - ALPHA / comparisons / 2, freedom) + student(_POWER, freedom)
    # What a cluster that differs adds to the mean; as much as a whole one where none does.
    typical = (math.fsum(sizes) / len(sizes) if sizes else n / draws) * draws / n
    return min(1.0, max(reach * error + step, _share_that_differs(needed, draws) * typical))


def _differing_needed(level: float) -> int:
    """How many clusters must differ, all in one direction, before a sign-flip test can be below a two-sided level."""
    needed = 1
    while 2.0 ** (1 - needed) >= level:
        needed += 1
    return needed


def _share_that_differs(needed: int, draws: int) -> float:
    """The chance of a cluster to differ with which at least `needed` of `draws` do so 4 times in 5."""
    from scipy.stats import beta

    # P(at least k of n) = P(Beta(k, n - k + 1) < q)
    return float(beta.ppf(_POWER, needed, draws - needed + 1))


def _standard_error(
    differences: Sequence[float], clusters: Sequence[Hashable] | None, binary: bool
) -> tuple[float, float]:
    """Of the mean of the differences, between clusters, and its degrees of freedom."""
    n = len(differences)
    if not binary:
        spread = spread_of(differences, clusters, lowest=-1.0, highest=1.0)
        return (spread.error, spread.freedom) if spread is not None else (1.0, 1.0)
    mean = math.fsum(differences) / n
    error = math.sqrt(math.fsum((difference - mean) ** 2 for difference in differences) / (n - 1) / n)
    return (error if error > 1e-12 else 1 / n), n - 1


def _undetermined(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None,
    margin: float | None,
    missing: int,
) -> PairedComparison:
    """No verdict: the figures are those of the items that have scores, which may be a selection."""
    difference, low, high = paired_difference(second, first, clusters) if first else (0.0, -1.0, 1.0)
    return PairedComparison(
        verdict="undetermined",
        difference=difference,
        ci95=(low, high),
        p_value=1.0,
        p_adjusted=1.0,
        margin=margin,
        margin_met=None if margin is None else False,
        detectable=1.0,
        n=len(first),
        better=sum(b > a for a, b in zip(first, second, strict=True)),
        worse=sum(b < a for a, b in zip(first, second, strict=True)),
        missing=missing,
    )


def _judged(
    first: Sequence[float],
    second: Sequence[float],
    p_value: float,
    p_adjusted: float,
    margin: float | None,
    clusters: Sequence[Hashable] | None,
    comparisons: int,
) -> PairedComparison:
    difference, low, high = paired_difference(second, first, clusters)
    enough = len(cluster_sums(first, clusters)) >= FEWEST
    met = None if margin is None else low > -margin and enough
    verdict: Verdict = "not_enough_data"
    if p_adjusted < ALPHA and low > 0:
        verdict = "better"
    elif p_adjusted < ALPHA and high < 0 and not met:
        verdict = "worse"
    elif met:
        verdict = "not_worse"
    return PairedComparison(
        verdict=verdict,
        difference=difference,
        ci95=(low, high),
        p_value=p_value,
        p_adjusted=p_adjusted,
        margin=margin,
        margin_met=met,
        detectable=detectable(first, second, clusters, comparisons),
        n=len(first),
        better=sum(b > a for a, b in zip(first, second, strict=True)),
        worse=sum(b < a for a, b in zip(first, second, strict=True)),
    )
