"""The head of the page: what was measured in a sentence for each rival, and one row for each grader and rival."""

from __future__ import annotations

from dataclasses import dataclass

from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.evaluation.wording import Rival, importance, margin_words, power_words, sentence, summary
from ftbridge.report.html.bars import Bar, difference_bar, reach_of, reach_words
from ftbridge.report.html.contents import CandidatePair, Contents


@dataclass(frozen=True)
class VerdictRow:
    """A candidate against a baseline on one grader."""

    candidate: str
    baseline: str
    grader: str
    paired: PairedComparison
    bar: Bar
    sentence: str


@dataclass(frozen=True)
class Headline:
    """Verdicts in `lines` and as `rows`; `reach` heads the bars, `power` says what so many items can show at all.

    `margin` is in words, empty where there is none; `undetermined` is whether any verdict is.
    """

    lines: list[str]
    rows: list[VerdictRow]
    reach: str
    margin: str
    undetermined: bool
    power: str


def headline(contents: Contents) -> Headline | None:
    """The verdicts, those in which a rival wins first; None where nothing was compared."""
    pairs = distinct_pairs(contents)
    if not pairs:
        return None
    rivals: list[Rival] = [(pair.candidate, pair.baseline, pair.verdicts) for pair in pairs]
    comparisons = [paired for pair in pairs for paired in pair.verdicts.values()]
    reach = reach_of(comparisons)
    margin = next((paired.margin for paired in comparisons if paired.margin is not None), None)
    return Headline(
        lines=summary(rivals),
        rows=[
            VerdictRow(
                pair.candidate,
                pair.baseline,
                grader,
                paired,
                difference_bar(paired, reach),
                sentence(grader, paired, candidate=pair.candidate, baseline=pair.baseline),
            )
            for pair in pairs
            for grader, paired in pair.verdicts.items()
        ],
        reach=reach_words(reach),
        margin=margin_words(margin) if margin is not None else "",
        undetermined=any(paired.verdict == "undetermined" for paired in comparisons),
        power=power_words(len(contents.rows), [pair.verdicts for pair in contents.pairs]),
    )


def distinct_pairs(contents: Contents) -> list[CandidatePair]:
    """The pairs, those in which a rival wins first, without baselines that are here already under another name."""
    scores = {column.label: column.scores for column in contents.columns}
    distinct: dict[tuple[str, str], CandidatePair] = {}
    for pair in contents.pairs:
        distinct.setdefault((pair.candidate, repr((scores[pair.baseline], pair.verdicts))), pair)
    return sorted(distinct.values(), key=lambda pair: importance(pair.verdicts))
