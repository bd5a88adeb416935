"""The `panel` grader, ours: several judges of one question, or one asked several times.

    completion ─▶ judge a, judge b, judge a again … ─▶ scores from 0 to 1 ─▶ mean, median or majority

A panel of judges of other families agrees better with people than one large judge and favours no family (Verga et al. 2024,
arXiv:2404.18796). How far its judges agree is part of the evaluation (`ftbridge.evaluation.agreement`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from ftbridge.graders.result import ErrorName, GraderResult, Outcome
from ftbridge.spec.graders import Grader, PanelGrader, SingleGrader


def grade(
    grader: PanelGrader, part: Callable[[SingleGrader], GraderResult], score: Callable[[Grader, GraderResult], float]
) -> Outcome:
    """What the judges' scores come to, 0 to 1; `sub_rewards` hold each score by the judge's name.

    A judge that failed is left out while at least half of the replies are there, and its errors are in `details`, for those
    to whom a part of a panel is none (`rewards`); with fewer, they are the panel's, and there is no score.
    """
    results = {judge.name: (judge, part(judge)) for judge in grader.repeated_judges()}
    scores = {name: score(judge, one) for name, (judge, one) in results.items() if not one.is_missing}
    calls = tuple(call for _, one in results.values() for call in one.metadata.calls)
    silent = [name for name in results if name not in scores]
    errors: dict[ErrorName, str] = {}
    for name in silent:
        for error, text in results[name][1].errors.items():
            errors[error] = f"{errors[error]}; {name}: {text}" if error in errors else f"{name}: {text}"
    if 2 * len(scores) < len(results):
        return Outcome(0.0, errors=errors, calls=calls, sub_rewards=scores)
    labels = {
        name: one.metadata.details["label"] for name, (_, one) in results.items() if "label" in one.metadata.details
    }
    details = ({"silent": silent, "errors": errors} if silent else {}) | ({"labels": labels} if labels else {})
    return Outcome(_combined(grader.combine, list(scores.values())), details=details, calls=calls, sub_rewards=scores)


def _combined(how: str, scores: Sequence[float]) -> float:
    if how == "median":
        return statistics.median(scores)
    if how == "majority":
        above, below = (sum(sign * (one - 0.5) > 0 for one in scores) for sign in (1, -1))
        return 0.5 if above == below else float(above > below)
    return math.fsum(scores) / len(scores)
