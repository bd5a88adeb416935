"""How often verdicts are wrong, and what they can see: thousands of simulated comparisons.

    python benchmarks/verdicts.py [--comparisons 2000]

Two models answer the same items. Item i is right with probability p for the first, and p + d for the second; what they share
(items that are easy or hard for both) is drawn so that their answers correlate by about 0.4. "0 to 1" are scores in steps of a
tenth with the same means. "Clusters" are conversations of 3 items that are easy or hard together. The alternative
beside ours is what tools print today: two accuracies, the higher one wins.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

from ftbridge.evaluation.verdict import Judged, judge_pairs

MARGIN = 0.05
KINDS = (("0 or 1", True, 1), ("0 or 1, clusters", True, 3), ("0 to 1", False, 1))
ITEMS = (60, 200)
GRADERS = 3

Pair = tuple[list[float], list[float]]


def pair(dice: random.Random, n: int, p: float, d: float, *, binary: bool, size: int) -> Pair:
    """Scores of two models on n items, `size` of them in each cluster."""
    first, second = [], []
    for place in range(n):
        if place % size == 0:
            of_cluster = [dice.random(), dice.random()]
        shared = dice.random()
        draws = [shared if dice.random() < 0.4 else dice.random() for _ in range(2)]
        if size > 1:
            draws = [own if dice.random() < 0.5 else drawn for own, drawn in zip(of_cluster, draws, strict=True)]
        if binary:
            first.append(float(draws[0] < p))
            second.append(float(draws[1] < p + d))
        else:
            first.append(_tenth(dice, p + 0.5 * (0.5 - draws[0])))
            second.append(_tenth(dice, p + d + 0.5 * (0.5 - draws[1])))
    return first, second


def _tenth(dice: random.Random, score: float) -> float:
    """One of the two tenths around a score, by chance, so that the mean stays what it was."""
    return int(10 * score + dice.random()) / 10


def simulate(
    name: str, n: int, d: float, count: int, *, binary: bool, size: int, graders: int = 1
) -> list[dict[str, Judged]]:
    """The verdicts of `count` comparisons whose true difference is `d`."""
    dice = random.Random(f"{name}:{n}:{d}:{graders}")
    clusters = [place // size for place in range(n)]
    told = []
    for _ in range(count):
        sides = {f"g{grader}": pair(dice, n, 0.6, d, binary=binary, size=size) for grader in range(graders)}
        first, second = ({grader: both[side] for grader, both in sides.items()} for side in (0, 1))
        told.append(judge_pairs(first, second, MARGIN, clusters))
    return told


def share(told: list[dict[str, Judged]], says: Callable[[Judged], bool]) -> str:
    """How many comparisons have a grader of which `says` holds, in percent."""
    return f"{100 * sum(any(says(judged) for judged in each.values()) for each in told) / len(told):.1f} %"


def false(judged: Judged) -> bool:
    """Whether a verdict of "better" or "worse" was given."""
    return judged.verdict in ("better", "worse")


def main() -> None:
    """Simulate and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=2000, help="for scores of 0 or 1; an eighth for the others")
    most = parser.parse_args().comparisons

    print("| scores | items | true difference | comparisons | covers | better | worse | not worse | two means, wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, binary, size in KINDS:
        count = most if kind == "0 or 1" else most // 8
        for n in ITEMS:
            for d in (0.0, 0.1, -MARGIN):
                told = simulate(kind, n, d, count, binary=binary, size=size)
                cells = [
                    share(told, lambda judged, d=d: judged.ci95[0] <= d <= judged.ci95[1]),  # type: ignore[misc]
                    *(share(told, lambda judged, v=v: judged.verdict == v) for v in ("better", "worse", "not_worse")),  # type: ignore[misc]
                    share(told, lambda judged, d=d: judged.difference != 0 if d == 0 else judged.difference * d <= 0),  # type: ignore[misc]
                ]
                print(f"| {kind} | {n} | {d:g} | {count} | {' | '.join(cells)} |", flush=True)

    print("\n| scores | items | detectable, as told | found when it is true |")
    print("|---|---|---|---|")
    for kind, binary, size in KINDS:
        count = most // 2 if kind == "0 or 1" else most // 8
        for n in ITEMS:
            pilots = simulate(kind, n, 0.0, count // 4, binary=binary, size=size)
            told_of = sum(pilot["g0"].detectable for pilot in pilots) / len(pilots)
            told = simulate(kind, n, told_of, count, binary=binary, size=size)
            print(f"| {kind} | {n} | {told_of:.3f} | {share(told, lambda j: j.verdict == 'better')} |", flush=True)

    print(f"\n| scores | items | a false verdict of any of {GRADERS} graders |")
    print("|---|---|---|")
    for kind, binary, size in KINDS:
        count = most // 2 if kind == "0 or 1" else most // 8
        for n in ITEMS:
            told = simulate(kind, n, 0.0, count, binary=binary, size=size, graders=GRADERS)
            print(f"| {kind} | {n} | {share(told, false)} |", flush=True)


if __name__ == "__main__":
    main()
