"""What sections beside the scores show: judges, slices, preferences, retention, rewards, labels, perplexity, and the plan.

Each function returns None where no run has the figures. A `label` is the run's, and empty where there is one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftbridge.evaluation import preference as preferences
from ftbridge.evaluation.classification import Classification
from ftbridge.evaluation.document import Evaluation, Slice
from ftbridge.evaluation.retention.measure import ALL, Retention
from ftbridge.planning.actual import Compared
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.curves import CurveDrawing, drawing
from ftbridge.report.html.sources import Curve
from ftbridge.report.rewards import RewardHistory
from ftbridge.report.terminal.judges import judge_sentences
from ftbridge.report.terminal.tables import retention_sentence

_SHADES = 5


@dataclass(frozen=True)
class RetentionBlock:
    """One run's retention: `kinds` of questions, all of them last, with their headings; each verdict in words."""

    label: str
    measured: Retention
    kinds: list[str]
    heads: list[str]
    sentences: dict[str, str]


@dataclass(frozen=True)
class SliceTable:
    """Scores by one grader of the items that share a value of `field`."""

    heading: str
    field: str
    grader: str
    candidates: list[str]
    slices: list[Slice]


@dataclass(frozen=True)
class RewardSection:
    """Curves of rewards, and what else is known of each run that was tuned by them."""

    drawing: CurveDrawing
    histories: Sequence[RewardHistory]


@dataclass(frozen=True)
class HeatCell:
    """How many items of one expected label got one label; `shade` from 0 (none) to 5 (all)."""

    count: int
    shade: int
    is_right: bool


@dataclass(frozen=True)
class HeatTable:
    """A confusion matrix: a row for each expected label, with its cells and its F1 (None where it is not expected)."""

    name: str
    report: Classification
    heads: list[str]
    rows: list[tuple[str, list[HeatCell], float | None]]


@dataclass(frozen=True)
class PerplexityRow:
    """One candidate's perplexity; `is_best` is whether no other of its run has less."""

    label: str
    value: float
    is_best: bool


def judges(contents: Contents) -> list[tuple[str, list[str]]] | None:
    """For each run, how far judges agree, win rates at equal length, and graders beside people, in sentences."""
    sentences = [(label, judge_sentences(evaluation)) for label, evaluation in _evaluations(contents)]
    return [block for block in sentences if block[1]] or None


def slices(contents: Contents) -> list[SliceTable] | None:
    """Scores of the items that share a value of a field: a table for each field and grader."""
    return [
        SliceTable(
            heading=f"{field}: {grader}" + (f" · {label}" if label else ""),
            field=field,
            grader=grader,
            candidates=list(of_field[0].candidates),
            slices=of_field,
        )
        for label, evaluation in _evaluations(contents)
        for field in dict.fromkeys(one.field for one in evaluation.slices)
        for of_field in [[one for one in evaluation.slices if one.field == field]]
        for grader in evaluation.graders
    ] or None


def preference(contents: Contents) -> list[tuple[str, str, list[tuple[str, str, str]]]] | None:
    """For each run, what preference tuning changed on the test pairs: a sentence, and rows of a figure with its interval."""
    return [
        (label, preferences.sentence(measured), preferences.table(measured))
        for label, evaluation in _evaluations(contents)
        if (measured := evaluation.preference) is not None
    ] or None


def retention(contents: Contents) -> list[RetentionBlock] | None:
    """What tuning did to questions that it was not about."""
    return [
        RetentionBlock(
            label,
            measured,
            kinds,
            [f"{kind} ({measured.candidates[measured.baseline][kind].n})" for kind in kinds],
            {name: retention_sentence(name, change, measured) for name, change in measured.verdicts.items()},
        )
        for label, evaluation in _evaluations(contents)
        if (measured := evaluation.retention) is not None
        for kinds in [[*measured.kinds, ALL]]
    ] or None


def rewards(contents: Contents) -> RewardSection | None:
    """Rewards of all runs that were tuned by reinforcement."""
    if not contents.rewards:
        return None
    curves = [Curve(one.label, one.train, one.held_out) for one in contents.rewards]
    return RewardSection(drawing(curves, "Mean reward over training", "held-out reward"), contents.rewards)


def classification(contents: Contents) -> list[HeatTable] | None:
    """For each candidate a heat table: rows are what was expected, columns what the candidate returned."""
    return [
        _heat_table(f"{name} · {label}" if label else name, report)
        for label, evaluation in _evaluations(contents)
        for name, report in evaluation.classification.items()
    ] or None


def perplexity(contents: Contents) -> list[PerplexityRow] | None:
    """The perplexity of the references by candidate; less is better."""
    return [
        PerplexityRow(f"{name} · {label}" if label else name, value, value == min(evaluation.perplexity.values()))
        for label, evaluation in _evaluations(contents)
        for name, value in evaluation.perplexity.items()
    ] or None


def plan_and_actual(contents: Contents) -> list[tuple[str, Sequence[Compared]]] | None:
    """For each run, what was planned before anything was spent, beside what it took."""
    return [(one.label, one.compared) for one in contents.measured if one.compared] or None


def _evaluations(contents: Contents) -> list[tuple[str, Evaluation]]:
    return [(one.label, one.evaluation) for one in contents.measured if one.evaluation is not None]


def _heat_table(name: str, report: Classification) -> HeatTable:
    """The table of a confusion matrix, which may have one more row and column than labels: what is not a label."""
    width = max(map(len, report.confusion), default=0)
    labels = [*report.labels, *["other"] * (max(width, len(report.confusion)) - len(report.labels))]
    rows = []
    for index, (label, counts) in enumerate(zip(labels, report.confusion, strict=False)):
        total = sum(counts)
        cells = [
            HeatCell(count, -(-count * _SHADES // total) if total else 0, index == column)
            for column, count in enumerate(counts)
        ]
        scores = report.per_label.get(label)
        rows.append((label, cells, scores.f1 if scores else None))
    return HeatTable(name, report, labels[: max(width, len(report.labels))], rows)
