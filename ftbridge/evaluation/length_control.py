"""Win rates of pairwise judges as they would be if both answers were of the same length.

Judges favour longer answers. As in AlpacaEval 2 (Dubois et al. 2024, arXiv:2404.04475), a logistic regression explains wins by
the model and by the difference in length, and the win rate is read off where that difference is 0:

    P(win) = logistic(theta + phi * tanh((length of the answer - length of the other) / their standard deviation))
    length-controlled win rate = logistic(theta)

AlpacaEval's third term, how hard each instruction is, needs many models and is left out. A tie counts as half a win.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.statistics import TAIL, student
from ftbridge.graders import GraderResult
from ftbridge.graders.sample import complete
from ftbridge.graders.template import render
from ftbridge.spec.graders import Grader, PairwiseGrader

FEWEST = 20
"""Items or clusters below which two coefficients are not estimated."""
_PRIOR = 1.0
"""Precision of a normal prior on both coefficients: keeps them finite where one side wins always, or always when longer."""


class LengthControlled(BaseModel):
    """One candidate's win rate by a pairwise judge, as it was seen and with lengths made equal."""

    model_config = ConfigDict(frozen=True)

    win_rate: float = Field(description="Mean score, ties half, 0 to 1.")
    controlled: float = Field(description="The same if both completions had the same length.")
    ci95: tuple[float, float] = Field(description="95 % interval of the length-controlled win rate.")
    longer: float = Field(description="Share of completions that are longer than the one they are compared with.")
    n: int = Field(description="Answers.")


def length_controlled(
    wins: Sequence[float], lengths: Sequence[tuple[int, int]], clusters: Sequence[Hashable] | None = None
) -> LengthControlled | None:
    """The length-controlled win rate of scores 0, 0.5 and 1; `lengths` are those of answer and other, in characters.

    The interval is Student's t on the logit scale, with standard errors that hold within clusters (sandwich estimator; Liang
    and Zeger 1986, Biometrika 73:13). None with fewer than `FEWEST` clusters.
    """
    import numpy as np
    from scipy.special import expit

    names = list(range(len(wins))) if clusters is None else list(clusters)
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    groups = len(order)
    if groups < FEWEST:
        return None
    y = np.array(wins, dtype=float)
    apart = np.array([one - other for one, other in lengths], dtype=float)
    spread = float(apart.std())
    x = np.column_stack([np.ones(len(y)), np.tanh(apart / spread) if spread else np.zeros(len(y))])
    prior = _PRIOR * np.eye(2)
    beta = np.zeros(2)
    for _ in range(100):
        p = expit(x @ beta)
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + prior, x.T @ (y - p) - prior @ beta)
        beta = beta + step
        if float(np.abs(step).max()) < 1e-10:
            break
    p = expit(x @ beta)
    bread = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x + prior)
    sums = np.zeros((groups, 2))
    np.add.at(sums, [order[name] for name in names], x * (y - p)[:, None])
    # The prior's share is added, so that wins that are all alike do not have an interval without width.
    meat = sums.T @ sums * groups / (groups - 1) + prior
    reach = student(1 - TAIL, groups - 2) * math.sqrt(float((bread @ meat @ bread)[0, 0]))
    theta = float(beta[0])
    return LengthControlled(
        win_rate=float(y.mean()),
        controlled=float(expit(theta)),
        ci95=(float(expit(theta - reach)), float(expit(theta + reach))),
        longer=float((apart > 0).mean()),
        n=len(y),
    )


def controlled_rates(
    graders: Sequence[Grader],
    graded: Mapping[str, Mapping[str, Sequence[GraderResult]]],
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
) -> dict[str, dict[str, LengthControlled]]:
    """By candidate and pairwise grader; `graded` are results by candidate and grader, in the order of the items."""
    rates: dict[str, dict[str, LengthControlled]] = {}
    for grader in graders:
        if not isinstance(grader, PairwiseGrader):
            continue
        for name, by in graded.items():
            completions = {prediction.key: prediction.samples for prediction in predictions[name]}
            rows = [
                (one.reward, _lengths(grader, item, completion), item.cluster or item.key)
                for result, item in zip(by[grader.name], items, strict=True)
                for one, completion in zip(result.samples or [result], completions[item.key], strict=True)
                if not one.is_missing
            ]
            wins, lengths, clusters = (
                [won for won, _, _ in rows],
                [pair for _, pair, _ in rows],
                [row for *_, row in rows],
            )
            rate = length_controlled(wins, lengths, clusters)
            if rate is not None:
                rates.setdefault(name, {})[grader.name] = rate
    return rates


def _lengths(grader: PairwiseGrader, item: Item, completion: Prediction) -> tuple[int, int]:
    """Characters of the answer and of what it stands against, as the judge was shown them."""
    sample = complete({"output_text": completion.output_text, "finish_reason": completion.finish_reason})
    one, other = (render(text, item.fields, sample, grader=grader.name) for text in (grader.answer, grader.against))
    return len(one), len(other)
