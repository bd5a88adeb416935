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
from collections.abc import Iterator
from statistics import median

from ftbridge.evaluation.verdict import ALPHA, Judged, judge_pairs

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
    """Simulate and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=4000)
    asked = parser.parse_args().comparisons

    def count(kind: str) -> int:
        return asked if kind == KINDS[0][0] else asked // 4  # the bootstrap takes a hundred times as long

    print("| scores | items | true difference | interval covers | better | worse | false | two means, wrong |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, binary, size in KINDS:
        for n in (60, 200):
            for d in (0.0, 0.1):
                print(_verdicts(kind, binary, size, n, d, count(kind)), flush=True)
    print("\n| scores | items | worse by | said not worse by more than 5 points |")
    print("|---|---|---|---|")
    for kind, binary, size in KINDS:
        for n in (60, 200):
            for d in (-MARGIN, 0.0):
                print(_margins(kind, binary, size, n, d, count(kind)), flush=True)
    print("\n| scores | items | detectable difference, as said first | found so often |")
    print("|---|---|---|---|")
    for kind, binary, size in KINDS:
        for n in (60, 200):
            print(_detectable(kind, binary, size, n, count(kind)), flush=True)
    print("\n| graders | items | some false verdict, Holm | without |")
    print("|---|---|---|---|")
    for n in (60, 200):
        print(_several(n, asked // 2), flush=True)


KINDS = (("0 or 1", True, 1), ("0 or 1, clusters", True, 3), ("0 to 1", False, 1))


def _comparisons(kind: str, binary: bool, size: int, n: int, d: float, count: int) -> Iterator[Judged]:
    dice = random.Random(f"{kind}:{n}:{d}")
    clusters = [place // size for place in range(n)]
    for _ in range(count):
        first, second = pair(dice, n, 0.6, d, binary=binary, size=size)
        yield judge_pairs({"g": first}, {"g": second}, MARGIN, clusters)["g"]


def _verdicts(kind: str, binary: bool, size: int, n: int, d: float, count: int) -> str:
    covered = better = worse = naive = 0
    for told in _comparisons(kind, binary, size, n, d, count):
        covered += told.ci95[0] <= d <= told.ci95[1]
        better += told.verdict == "better"
        worse += told.verdict == "worse"
        naive += told.difference != 0 if d == 0 else told.difference <= 0
    shares = [covered, better, worse, better + worse if d == 0 else worse, naive]
    cells = " | ".join(f"{100 * share / count:.1f} %" for share in shares)
    return f"| {kind} | {n} | {d:g} | {cells} |"


def _margins(kind: str, binary: bool, size: int, n: int, d: float, count: int) -> str:
    met = sum(bool(told.margin_met) for told in _comparisons(kind, binary, size, n, d, count))
    return f"| {kind} | {n} | {abs(100 * d):g} points | {100 * met / count:.1f} % |"


def _detectable(kind: str, binary: bool, size: int, n: int, count: int) -> str:
    """The median of what comparisons without a difference call detectable; and how often just that is found."""
    said = median(told.detectable for told in _comparisons(kind, binary, size, n, 0.0, count // 4))
    found = sum(told.verdict == "better" for told in _comparisons(kind, binary, size, n, said, count))
    return f"| {kind} | {n} | {100 * said:.1f} points | {100 * found / count:.1f} % |"


def _several(n: int, count: int) -> str:
    """Three graders on the same answers, and no difference."""
    dice, held, bare = random.Random(n), 0, 0
    for _ in range(count):
        pairs = {name: pair(dice, n, 0.6, 0.0, binary=True, size=1) for name in "abc"}
        told = judge_pairs(
            {name: one for name, (one, _) in pairs.items()}, {name: two for name, (_, two) in pairs.items()}
        )
        held += any(judged.verdict in ("better", "worse") for judged in told.values())
        bare += any(judged.p_value < ALPHA for judged in told.values())
    return f"| 3 | {n} | {100 * held / count:.1f} % | {100 * bare / count:.1f} % |"


if __name__ == "__main__":
    main()
