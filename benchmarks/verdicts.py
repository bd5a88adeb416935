"""How often verdicts are wrong, and what they can see: thousands of simulated comparisons.

    python benchmarks/verdicts.py [--comparisons 4000]

Two models answer the same items. Item i is right with probability p for the first, and p + d for the second; what they share
(items that are easy or hard for both) is drawn so that their answers correlate by about 0.4. "Scores" are in steps of a
tenth with the same means. "Clusters" are conversations of 3 items that are easy or hard together. The alternative
beside ours is what tools print today: two accuracies, the higher one wins.
"""

from __future__ import annotations

import argparse
import random

from ftbridge.evaluation.verdict import judge_pairs

MARGIN = 0.05


def pair(
    dice: random.Random, n: int, p: float, d: float, *, binary: bool, size: int
) -> tuple[list[float], list[float]]:
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
            first.append(round(min(1.0, max(0.0, p + 0.5 * (0.5 - draws[0]))), 1))
            second.append(round(min(1.0, max(0.0, p + d + 0.5 * (0.5 - draws[1]))), 1))
    return first, second


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=4000)
    asked = parser.parse_args()
    print("| scores | items | true difference | interval covers | better | worse | false | two means, wrong |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, binary, size in (("0 or 1", True, 1), ("0 or 1, clusters", True, 3), ("0 to 1", False, 1)):
        for n in (60, 200):
            for d in (0.0, 0.1):
                count = asked.comparisons if kind == "0 or 1" else asked.comparisons // 4
                dice = random.Random(f"{kind}:{n}:{d}")
                clusters = [place // size for place in range(n)]
                covered = better = worse = naive = 0
                for _ in range(count):
                    first, second = pair(dice, n, 0.6, d, binary=binary, size=size)
                    told = judge_pairs({"g": first}, {"g": second}, MARGIN, clusters)["g"]
                    covered += told.ci95[0] <= d <= told.ci95[1]
                    better += told.verdict == "better"
                    worse += told.verdict == "worse"
                    naive += told.difference != 0 if d == 0 else told.difference <= 0
                false = better + worse if d == 0 else worse
                shares = [covered, better, worse, false, naive]
                cells = " | ".join(f"{100 * share / count:.1f} %" for share in shares)
                print(f"| {kind} | {n} | {d:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
