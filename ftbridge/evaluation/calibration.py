"""How far a grader agrees with people, and its means as people would have given them.

    file of completions with people's scores ─▶ the grader scores them too ─▶ agreement, confusion, bias
    its scores of the whole test             ─▶ corrected mean, with an interval that counts both kinds of error

A line of the file is a line of test data with three keys more: `completion`, `human` (0 to 1, or true and false) and, where
the completion is one of a candidate's, `candidate`.

The corrected mean is that of prediction-powered inference (Angelopoulos et al. 2023, Science 382:669; with the weight of
PPI++, arXiv:2311.01453): w * mean(grader, test) + mean(human - w * grader, labelled). It is right whatever the grader's bias,
as long as the labelled completions are drawn from those that it is to speak for; so a candidate with enough lines of its own
is corrected by these alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.examples import ChatExample
from ftbridge.errors import DataError
from ftbridge.evaluation.agreement import alpha
from ftbridge.evaluation.items import parse_item, read_lines, reference
from ftbridge.evaluation.missing import MaybeScores
from ftbridge.evaluation.statistics import TAIL, paired_difference, student

FEWEST = 20
"""Labelled completions below which no mean is corrected."""


@dataclass(frozen=True)
class Labelled:
    """A completion that a person scored: what graders see of its item, its text, the score, and whose completion it is."""

    fields: Mapping[str, Any]
    completion: str
    human: float
    candidate: str | None


class Corrected(BaseModel):
    """A candidate's mean as people would have given it."""

    model_config = ConfigDict(frozen=True)

    mean: float = Field(description="0 to 1.")
    ci95: tuple[float, float] = Field(description="95 % interval; it counts the grader's errors and the test's size.")
    weight: float = Field(description="Weight of the grader's scores, 0 (human scores alone) to 1.")
    labelled: int = Field(description="Labelled completions that it is based on.")
    own: bool = Field(description="Whether only the candidate's own labels were used; if not, all labels were.")


class Calibration(BaseModel):
    """A grader beside people, on the same completions."""

    model_config = ConfigDict(frozen=True)

    n: int = Field(description="Labelled completions that the grader scored.")
    same: float = Field(description="Share of them with the same score.")
    alpha: float | None = Field(description="Krippendorff's alpha of the two, interval; null where nothing differs.")
    kappa: float | None = Field(description="Cohen's kappa of at least half against below; null where undefined.")
    human: float = Field(description="Mean of the people's scores.")
    grader: float = Field(description="Mean of the grader's scores.")
    bias: float = Field(description="Grader minus people: above 0 it is too lenient.")
    bias_ci95: tuple[float, float] = Field(description="95 % interval of the bias, paired.")
    confusion: dict[str, int] = Field(
        description=(
            "Completions by human and grader decision, where a score of 0.5 or more is yes: yes_yes, yes_no, no_yes, "
            "no_no."
        )
    )
    corrected: dict[str, Corrected] = Field(default={}, description="By candidate.")


def read_labelled(path: Path) -> list[Labelled]:
    """The completions with people's scores in a file. Raises `DataError` that names the line, `UsageError` for no file."""
    labelled = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            document = json.loads(line)
            completion, human = document.pop("completion"), document.pop("human")
            candidate = document.pop("candidate", None)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            what = f"has no {error.args[0]}" if isinstance(error, KeyError) else "is not a JSON object"
            raise _wrong(path, number, what) from None
        if not isinstance(completion, str):
            raise _wrong(path, number, "completion is not text")
        if not isinstance(human, (bool, int, float)) or not 0 <= human <= 1:
            raise _wrong(path, number, "human is not a number from 0 to 1, nor true or false")
        if candidate is not None and not isinstance(candidate, str):
            raise _wrong(path, number, "candidate is not a name")
        example = parse_item(json.dumps(document).encode(), path, number)
        expected = {"reference": reference(example.completion)} if isinstance(example, ChatExample) else {}
        labelled.append(Labelled({**expected, **example.extra}, completion, float(human), candidate))
    if not labelled:
        raise _wrong(path, 1, "is not there")
    return labelled


def calibration(
    labelled: Sequence[Labelled], scores: MaybeScores, tests: Mapping[str, tuple[MaybeScores, Sequence[str]]]
) -> Calibration | None:
    """A grader beside people; None where it has no score of any labelled completion.

    `scores` are the grader's own of the labelled completions; `tests` are by candidate those of the test, with the cluster of
    each item.
    """
    pairs = [(one, score) for one, score in zip(labelled, scores, strict=True) if score is not None]
    if not pairs:
        return None
    people, judge_scores = [one.human for one, _ in pairs], [score for _, score in pairs]
    bias, low, high = paired_difference(judge_scores, people)
    labels = [(a >= 0.5, b >= 0.5) for a, b in zip(people, judge_scores, strict=True)]
    words = {True: "yes", False: "no"}
    cells = {f"{words[a]}_{words[b]}": labels.count((a, b)) for a in words for b in words}
    corrected = {}
    for candidate, (test, clusters) in tests.items():
        mine = [(one.human, score) for one, score in pairs if one.candidate == candidate]
        is_own = len(mine) >= FEWEST
        used = mine if is_own else [(one.human, score) for one, score in pairs]
        correction = correct([a for a, _ in used], [b for _, b in used], test, clusters)
        if correction is not None:
            corrected[candidate] = correction.model_copy(update={"own": is_own})
    return Calibration(
        n=len(pairs),
        same=sum(abs(a - b) < 1e-9 for a, b in zip(people, judge_scores, strict=True)) / len(pairs),
        alpha=alpha([[a, b] for a, b in zip(people, judge_scores, strict=True)], "interval"),
        kappa=cohens_kappa(cells["yes_yes"], cells["yes_no"], cells["no_yes"], cells["no_no"]),
        human=math.fsum(people) / len(people),
        grader=math.fsum(judge_scores) / len(judge_scores),
        bias=bias,
        bias_ci95=(low, high),
        confusion=cells,
        corrected=corrected,
    )


def correct(
    human: Sequence[float], grader: Sequence[float], test: MaybeScores, clusters: Sequence[str]
) -> Corrected | None:
    """The mean of the test as people would have given it, from their scores and the grader's of the same completions.

    The variance is w^2 var(grader's mean over the test) + var(human - w grader) / labelled; w is what makes it least, from 0
    to 1. None with fewer than `FEWEST` labelled completions, or with fewer than two clusters in the test.
    """
    by_cluster: dict[str, list[float]] = {}
    for score, cluster in zip(test, clusters, strict=True):
        if score is not None:
            by_cluster.setdefault(cluster, []).append(score)
    n, groups = len(human), len(by_cluster)
    if n < FEWEST or groups < 2:
        return None
    scores = [score for cluster_scores in by_cluster.values() for score in cluster_scores]
    mean = math.fsum(scores) / len(scores)
    residuals = [math.fsum(score - mean for score in cluster_scores) for cluster_scores in by_cluster.values()]
    of_test = math.fsum(total**2 for total in residuals) * groups / (groups - 1) / len(scores) ** 2
    total = of_test + _covariance(grader, grader) / n
    weight = min(1.0, max(0.0, _covariance(human, grader) / n / total)) if total > 0 else 0.0
    rest = [a - weight * b for a, b in zip(human, grader, strict=True)]
    center = weight * mean + math.fsum(rest) / n
    # As in Agresti and Coull (1998), one label more at each end keeps people who all say the same from having no width.
    padded = [*rest, -weight * mean, 1 - weight * mean]
    error = math.sqrt(weight**2 * of_test + _covariance(padded, padded) / (n + 2))
    reach = student(1 - TAIL, min(n, groups) - 1) * error
    return Corrected(
        mean=min(1.0, max(0.0, center)),
        ci95=(max(0.0, center - reach), min(1.0, center + reach)),
        weight=weight,
        labelled=n,
        own=False,
    )


def cohens_kappa(yes_yes: int, yes_no: int, no_yes: int, no_no: int) -> float | None:
    """Agreement beyond chance of two raters (Cohen 1960, Educ. Psychol. Meas. 20:37); None where chance alone agrees."""
    n = yes_yes + yes_no + no_yes + no_no
    chance = ((yes_yes + yes_no) * (yes_yes + no_yes) + (no_yes + no_no) * (yes_no + no_no)) / n**2
    return None if chance == 1 else ((yes_yes + no_no) / n - chance) / (1 - chance)


def _covariance(first: Sequence[float], second: Sequence[float]) -> float:
    """With n - 1 below."""
    n = len(first)
    one, other = math.fsum(first) / n, math.fsum(second) / n
    return math.fsum((a - one) * (b - other) for a, b in zip(first, second, strict=True)) / (n - 1)


def _wrong(path: Path, number: int, what: str) -> DataError:
    problem = f"{path}:{number} {what}."
    hint = "Each line is a test item with `completion`, `human` (0 to 1) and optionally `candidate`."
    return DataError(problem, problems=[problem], hint=hint)
