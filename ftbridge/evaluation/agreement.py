"""How far raters agree: judges of a panel among themselves, and judges with people.

    alpha(units)                 Krippendorff's alpha of any number of raters, with gaps
    panel_agreement(...)         the same of a panel's judges over all completions, and how each of them scores

Alpha is 1 where all agree, 0 where they agree as often as chance would have it, and below 0 where they agree less often.
Krippendorff calls 0.8 reliable, and 0.667 the least from which tentative conclusions may be drawn (Content Analysis, 2004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.graders import GraderResult
from ftbridge.spec.graders import Grader, PanelGrader, ScoreModelGrader

Scale = Literal["nominal", "interval"]
RELIABLE, TENTATIVE = 0.8, 0.667


class Rater(BaseModel):
    """One judge of a panel."""

    model_config = ConfigDict(frozen=True)

    mean: float = Field(description="Its mean score, 0 to 1: judges differ in how lenient they are.")
    n: int = Field(description="Completions that it scored.")


class Agreement(BaseModel):
    """How far the judges of a panel agree over all completions of all candidates."""

    model_config = ConfigDict(frozen=True)

    scale: Scale = Field(description="nominal: the same score or not; interval: how far apart scores are.")
    alpha: float | None = Field(
        description="Krippendorff's alpha, at most 1; null where nothing differs or too few overlap."
    )
    same: float = Field(description="Share of pairs of scores of one completion that are equal.")
    completions: int = Field(description="Completions that two judges or more scored.")
    raters: dict[str, Rater] = Field(description="By the name of the judge; a repetition has its number.")


def alpha(units: Sequence[Sequence[float]], scale: Scale) -> float | None:
    """Krippendorff's alpha of units that each hold the values of those who rated them; None where it is not defined.

    1 - observed / expected disagreement, from coincidences (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability,
    section C and D). Units with fewer than two values do not count. Undefined without two units, and where values are all
    equal.
    """
    pairable = [list(unit) for unit in units if len(unit) > 1]
    values = [value for unit in pairable for value in unit]
    if len(pairable) < 2 or len(set(values)) < 2:
        return None
    observed = math.fsum(_disagreement(unit, scale) / (len(unit) - 1) for unit in pairable) / len(values)
    expected = _disagreement(values, scale) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


def _disagreement(values: Sequence[float], scale: Scale) -> float:
    """The sum over all ordered pairs of values: of what differs, or of squared differences."""
    if scale == "nominal":
        counts: dict[float, int] = {}
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        return len(values) ** 2 - sum(count**2 for count in counts.values())
    mean = math.fsum(values) / len(values)
    return 2 * len(values) * math.fsum((value - mean) ** 2 for value in values)


def panel_agreement(
    graders: Sequence[Grader], graded: Mapping[str, Mapping[str, Sequence[GraderResult]]]
) -> dict[str, Agreement]:
    """By panel, how far its judges agree; `graded` are results by candidate and grader."""
    agreements = {}
    for grader in graders:
        if not isinstance(grader, PanelGrader):
            continue
        results = [one for by in graded.values() for result in by[grader.name] for one in (result.samples or [result])]
        units = [dict(one.sub_rewards) for one in results]
        scored = any(isinstance(judge, ScoreModelGrader) for judge in grader.judges)
        scale: Scale = "interval" if scored else "nominal"
        pairs = [sorted(unit.values()) for unit in units if len(unit) > 1]
        alike = sum(unit[i] == unit[j] for unit in pairs for i in range(len(unit)) for j in range(i))
        count = sum(len(unit) * (len(unit) - 1) // 2 for unit in pairs)
        agreements[grader.name] = Agreement(
            scale=scale,
            alpha=alpha([list(unit.values()) for unit in units], scale),
            same=alike / count if count else 0.0,
            completions=len(pairs),
            raters={
                judge.name: Rater(
                    mean=math.fsum(scores_of_judge) / len(scores_of_judge) if scores_of_judge else 0.0,
                    n=len(scores_of_judge),
                )
                for judge in grader.repeated_judges()
                for scores_of_judge in [[unit[judge.name] for unit in units if judge.name in unit]]
            },
        )
    return agreements


def agreement_notes(by_name: Mapping[str, Agreement]) -> list[str]:
    """A sentence for each panel whose judges agree too little for conclusions."""
    return [
        f"{name}: its judges hardly agree (Krippendorff's alpha {agreement.alpha:.2f}, below {TENTATIVE}); its scores "
        "depend on the choice of judge."
        for name, agreement in by_name.items()
        if agreement.alpha is not None and agreement.alpha < TENTATIVE
    ]
