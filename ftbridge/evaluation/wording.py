"""Verdicts in words: every place that shows a verdict, from the terminal to JUnit, takes its words from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ftbridge.evaluation.verdict import PairedComparison, Verdict

Rival = tuple[str, str, Mapping[str, PairedComparison]]
"""A candidate, the baseline it is judged against, and the verdict by grader."""

SHORT: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "not_worse": "not worse",
    "not_enough_data": "not enough data",
    "undetermined": "not determined",
}


def rivals(candidates: Sequence[str], verdicts: Mapping[str, Mapping[str, PairedComparison]]) -> Iterator[Rival]:
    """The pairs of an evaluation with their names apart, by candidate and then by baseline."""
    for name in candidates:
        for baseline in candidates:
            if name != baseline and (by := verdicts.get(f"{name}-{baseline}")):
                yield name, baseline, by


def distinct_rivals(
    scores: Mapping[str, object], verdicts: Mapping[str, Mapping[str, PairedComparison]]
) -> list[Rival]:
    """The pairs without those of zero_shot where it is base under another name: `scores` are the same then."""
    same = "base" in scores and scores.get("zero_shot") == scores["base"]
    return [pair for pair in rivals(list(scores), verdicts) if not (same and pair[1] == "zero_shot")]


def summary(pairs: Sequence[Rival]) -> list[str]:
    """One sentence for each candidate and rival: those in which a rival wins come first, then those that are decided."""
    ranked = sorted(pairs, key=lambda pair: importance(pair[2]))
    return [_one_line(candidate, baseline, by) for candidate, baseline, by in ranked]


def margin_words(margin: float) -> str:
    """`2 points`."""
    return "1 point" if margin == 0.01 else f"{100 * margin:g} points"


def power_words(items: int, verdicts: Iterable[Mapping[str, PairedComparison]]) -> str:
    """What so many items can show at all, by grader: the largest of what each comparison detects."""
    largest: dict[str, float] = {}
    for by in verdicts:
        for grader, paired in by.items():
            largest[grader] = max(paired.detectable, largest.get(grader, 0.0))
    sees = [f"{100 * points:.0f} points on {grader}" for grader, points in largest.items() if points < 1]
    blind = [grader for grader, points in largest.items() if points >= 1]
    count = "1 item shows" if items == 1 else f"{items} items show"
    parts = []
    if sees:
        parts.append(f"{count} a difference of {', '.join(sees)} four times in five; smaller ones are often missed.")
    if blind:
        parts.append(f"{count} no difference on {_listed(blind)} four times in five, however large.")
    return " ".join(parts)


def sentence(grader: str, paired: PairedComparison, *, candidate: str = "the second", baseline: str = "") -> str:
    """One verdict in words with its figures. `baseline` is named where it does not go without saying."""
    against = f" than {baseline}" if baseline else ""
    points, low, high = (100 * value for value in (paired.difference, *paired.ci95))
    items = "1 item" if paired.n == 1 else f"{paired.n} items"
    facts = (
        f"{points:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, {items}, "
        f"{paired.better} better, {paired.worse} worse, p = {paired.p_adjusted:.2g}"
    )
    if paired.missing:
        facts += f", {paired.missing} more left out without a score"
    margin = margin_words(paired.margin) if paired.margin is not None else ""
    match paired.verdict:
        case "better":
            words = f"{candidate} is better{against} on {grader}"
        case "worse":
            words = f"{candidate} is worse{against} on {grader}"
        case "not_worse":
            words = f"{candidate} is not worse{against} on {grader} by more than {margin}"
        case "undetermined":
            total = paired.n + paired.missing
            lost = (
                f"{paired.missing} of {total} items have no score because the grader, its judge or the endpoint failed"
            )
            return f"whether {candidate} is better or worse{against} on {grader} could not be determined: {lost}."
        case _:
            them = f"{candidate} and {baseline}" if baseline else "them"
            words = f"not enough data on {grader} to tell {them} apart"
            if paired.margin is not None:
                words += f", nor to rule out that {candidate} is worse by {margin}"
    return f"{words} ({facts})."


def importance(by: Mapping[str, PairedComparison]) -> int:
    """The place of a pair among others: 0 where the rival wins on a grader, 1 where something is decided, else 2."""
    verdicts = {paired.verdict for paired in by.values()}
    return 0 if "worse" in verdicts else 1 if verdicts & {"better", "not_worse"} else 2


def _one_line(candidate: str, baseline: str, by: Mapping[str, PairedComparison]) -> str:
    on = {verdict: [grader for grader, paired in by.items() if paired.verdict == verdict] for verdict in SHORT}
    margin = next((paired.margin for paired in by.values() if paired.margin is not None), None)
    parts = []
    if on["worse"]:
        parts.append(f"{baseline} is better than {candidate} on {_listed(on['worse'])}")
    if on["better"]:
        parts.append(f"{candidate} is better than {baseline} on {_listed(on['better'])}")
    if on["not_worse"] and margin is not None:
        words = f"not worse than {baseline} by more than {margin_words(margin)} on {_listed(on['not_worse'])}"
        parts.append(f"{candidate} is {words}")
    if on["not_enough_data"]:
        parts.append(f"not enough data to tell {candidate} and {baseline} apart on {_listed(on['not_enough_data'])}")
    if on["undetermined"]:
        parts.append(
            f"whether {candidate} is better or worse than {baseline} could not be determined on {_listed(on['undetermined'])}"
        )
    line = "; ".join(parts)
    return f"{line[:1].upper() if line.startswith(('not ', 'whether ')) else line[:1]}{line[1:]}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
