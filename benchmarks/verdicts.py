"""How often verdicts are wrong, and what they can see: thousands of simulated comparisons for each kind of scores.

    python benchmarks/verdicts.py [--comparisons 2000]

Two models complete the same items; at the margin the second is worse by exactly the margin. Kinds of scores:

    binary               right or wrong, about 0.6 right, the two correlated by 0.4
    graded               tenths around 0.6
    graded, rare losses  0.9 but for a few completions, which get 0.1; the second loses more of them
    near-perfect         right or wrong, 0.99 right
    clusters of 3        binary, conversations of 3 items that are easy or hard together
    near-perfect in 3s   near-perfect, and most of a conversation is right or wrong together
    few clusters         binary, 8 clusters, whatever the number of items

Columns: whether the 95 % interval covers the truth, of the difference and of the first model's mean; verdicts in percent of the
comparisons. Without a difference "better" and "worse" are false; at the margin "not worse" and "better" are. The last two are
the power: "not worse" of equal models, and "better" of a second that is 10 points better (or as much as there is room for).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ftbridge.evaluation.statistics import mean_interval
from ftbridge.evaluation.verdict import PairedComparison, compare_paired

MARGIN = 0.05
BETTER = 0.1
ITEMS = (20, 60, 200, 1000)
GRADERS = 3
LOSS = 0.8

Scores = list[float]


@dataclass(frozen=True)
class Kind:
    """Scores of two models: `draw(dice, clusters, d)`, whose true means are `mean` and `mean + d`; `room` bounds d."""

    name: str
    draw: Callable[[np.random.Generator, np.ndarray, float], tuple[np.ndarray, np.ndarray]]
    mean: float
    size: Callable[[int], int] = lambda items: 1
    room: float = BETTER


def _correlated(dice: np.random.Generator, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two uniform draws for each item that share 0.4 of the items, and, in clusters, half of what is drawn for the cluster."""
    items = len(clusters)
    common = dice.random(items)
    draws = []
    for _ in range(2):
        drawn = np.where(dice.random(items) < 0.4, common, dice.random(items))
        if clusters[-1] + 1 < items:
            drawn = np.where(dice.random(items) < 0.5, dice.random(clusters[-1] + 1)[clusters], drawn)
        draws.append(drawn)
    return draws[0], draws[1]


def _binary(mean: float) -> Callable[[np.random.Generator, np.ndarray, float], tuple[np.ndarray, np.ndarray]]:
    def draw(dice: np.random.Generator, clusters: np.ndarray, d: float) -> tuple[np.ndarray, np.ndarray]:
        first, second = _correlated(dice, clusters)
        return (first < mean) * 1.0, (second < mean + d) * 1.0

    return draw


def _graded(dice: np.random.Generator, clusters: np.ndarray, d: float) -> tuple[np.ndarray, np.ndarray]:
    first, second = _correlated(dice, clusters)
    return _tenths(dice, 0.85 - 0.5 * first), _tenths(dice, 0.85 + d - 0.5 * second)


def _tenths(dice: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """One of the two tenths around each score, by chance, so that the mean stays what it was."""
    tenths: np.ndarray = np.floor(10 * scores + dice.random(len(scores))) / 10
    return tenths


def _rare_losses(dice: np.random.Generator, clusters: np.ndarray, d: float) -> tuple[np.ndarray, np.ndarray]:
    sides = [np.where(dice.random(len(clusters)) < lost, 0.9 - LOSS, 0.9) for lost in (0.02, 0.02 - d / LOSS)]
    return sides[0], sides[1]


KINDS = (
    Kind("binary", _binary(0.6), 0.6),
    Kind("graded", _graded, 0.6),
    Kind("graded, rare losses", _rare_losses, 0.9 - 0.02 * LOSS, room=0.016),
    Kind("near-perfect", _binary(0.99), 0.99, room=0.01),
    Kind("clusters of 3", _binary(0.6), 0.6, size=lambda items: 3),
    Kind("near-perfect in 3s", _binary(0.99), 0.99, size=lambda items: 3, room=0.01),
    Kind("few clusters", _binary(0.6), 0.6, size=lambda items: math.ceil(items / 8)),
)


@dataclass(frozen=True)
class Simulated:
    """One comparison: verdicts by grader, and whether the interval of the first mean covers it."""

    verdicts: dict[str, PairedComparison]
    mean_covered: bool


def simulate(kind: Kind, items: int, d: float, count: int, graders: int = 1) -> list[Simulated]:
    """`count` comparisons whose true difference is `d`."""
    dice = np.random.default_rng([items, round(1000 * (1 + d)), graders])
    clusters: np.ndarray = np.arange(items) // kind.size(items)
    names = clusters.tolist()
    simulated = []
    for _ in range(count):
        sides = [kind.draw(dice, clusters, d) for _ in range(graders)]
        first, second = ({f"g{n}": pair[side].tolist() for n, pair in enumerate(sides)} for side in (0, 1))
        _, low, high = mean_interval(first["g0"], names)
        verdicts = compare_paired(first, second, MARGIN, names)
        simulated.append(Simulated(verdicts, low - 1e-9 <= kind.mean <= high + 1e-9))
    return simulated


def percent(simulated: Sequence[Simulated], says: Callable[[PairedComparison], bool]) -> float:
    """How many comparisons have a grader of which `says` holds, in percent."""
    return 100 * sum(any(map(says, each.verdicts.values())) for each in simulated) / len(simulated)


def cell(kind: Kind, items: int, count: int) -> list[float]:
    """The figures of one line of the first table."""
    same, margin = (simulate(kind, items, d, count) for d in (0.0, -MARGIN))
    more = simulate(kind, items, kind.room, count)
    return [
        percent(same, lambda judged: judged.ci95[0] <= 0 <= judged.ci95[1]),
        percent(margin, lambda judged: judged.ci95[0] - 1e-9 <= -MARGIN <= judged.ci95[1] + 1e-9),
        100 * sum(each.mean_covered for each in same) / count,
        percent(same, lambda judged: judged.verdict == "better"),
        percent(same, lambda judged: judged.verdict == "worse"),
        percent(margin, lambda judged: judged.verdict in ("not_worse", "better")),
        percent(same, lambda judged: judged.verdict in ("not_worse", "better")),
        percent(more, lambda judged: judged.verdict == "better"),
    ]


def main() -> None:
    """Simulate and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=2000, help="for each cell")
    parser.add_argument("--kind", choices=[kind.name for kind in KINDS], help="the first table of one kind alone")
    options = parser.parse_args()
    count: int = options.comparisons

    heads = ["scores", "items", "covers 0", "covers -margin", "mean covered", "false better", "false worse"]
    heads += ["false not worse", "not worse found", "better found"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for kind in KINDS:
        if options.kind not in (None, kind.name):
            continue
        for items in ITEMS:
            figures = " | ".join(f"{figure:.1f}" for figure in cell(kind, items, count))
            print(f"| {kind.name} | {items} | {figures} |", flush=True)

    if options.kind is not None:
        return
    print("\n| scores | items | detectable, as shown | better found when it is true, % |\n|---|---|---|---|")
    for kind in (kind for kind in KINDS if kind.room == BETTER):
        for items in ITEMS[:3]:
            pilots = simulate(kind, items, 0.0, count // 4)
            shown = sum(pilot.verdicts["g0"].detectable for pilot in pilots) / len(pilots)
            if kind.mean + shown > 1:
                print(f"| {kind.name} | {items} | {shown:.3f} | no room |")
                continue
            found = percent(simulate(kind, items, shown, count // 2), lambda judged: judged.verdict == "better")
            print(f"| {kind.name} | {items} | {shown:.3f} | {found:.1f} |", flush=True)

    print(f"\n| scores | items | a false verdict of any of {GRADERS} graders, % |\n|---|---|---|")
    for kind in KINDS:
        for items in ITEMS[:3]:
            simulated = simulate(kind, items, 0.0, count // 2, GRADERS)
            print(f"| {kind.name} | {items} | {percent(simulated, lambda j: j.verdict in ('better', 'worse')):.1f} |")


if __name__ == "__main__":
    main()
