"""Items without a score: a grader, a judge or an endpoint failed, so that nothing is known of the answer.

    both sides scored ─▶ compared
    one side missing  ─▶ left out of both, and counted
    above a tenth     ─▶ no verdict: "could not be determined"

A failure is not a wrong answer: a judge that was down for half of one side's answers would make that side worse. Leaving items
out is sound only while they are few, whatever the reason they are missing for; a tenth at most follows the usual reading that
below 5 % of missing values matters little and above 20 % a result is in doubt (Schulz and Grimes 2002, Lancet 359:781).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ftbridge import graders as grading
from ftbridge.graders import GraderResult
from ftbridge.spec.graders import Grader

MOST_MISSING = 0.1
"""Largest share of items without a score on either side with which there is a verdict."""

MaybeScores = Sequence[float | None]
"""Scores in the order of the items; None where there is none."""


def known_score(grader: Grader, result: GraderResult) -> float | None:
    """A result as a score from 0 to 1, or None where the failure is not the model's."""
    return None if result.is_missing else grading.score(grader, result)


def present(values: MaybeScores, clusters: Sequence[str]) -> tuple[list[float], list[str]]:
    """The scores that there are, and what each of their items belongs to."""
    pairs = [(value, cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    return [value for value, _ in pairs], [cluster for _, cluster in pairs]


def both_present(
    first: MaybeScores, second: MaybeScores, clusters: Sequence[Hashable] | None
) -> tuple[list[float], list[float], list[Hashable] | None]:
    """The scores of items that both sides have one of, and what those items belong to.

    Raises `ValueError` for unequal lengths.
    """
    places = [index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a is not None and b is not None]
    ones, others = ([value for index in places if (value := side[index]) is not None] for side in (first, second))
    return ones, others, None if clusters is None else [clusters[index] for index in places]


def too_many(missing: int, items: int) -> bool:
    """Whether so many of the items have no score that there is no verdict."""
    return missing >= items or missing > MOST_MISSING * items
