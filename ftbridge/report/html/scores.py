"""Scores with their intervals, and what completions took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftbridge.evaluation.document import Score
from ftbridge.report.amounts import dollars, latency
from ftbridge.report.html.bars import Bar, score_bar
from ftbridge.report.html.contents import Column, Contents


@dataclass(frozen=True)
class ScoreCell:
    """One candidate's score by one grader; `is_best` is whether no other candidate's mean is higher."""

    grader: str
    score: Score
    is_best: bool
    bar: Bar


@dataclass(frozen=True)
class ScoreTable:
    """A row for each candidate: its label, and a cell for each grader."""

    graders: Sequence[str]
    rows: list[tuple[str, list[ScoreCell]]]


@dataclass(frozen=True)
class UsageRow:
    """What one candidate's completions took; `figures` are tokens, latencies and, where a price is known, costs."""

    label: str
    model: str
    figures: list[str]
    cut_off: int
    failed: int


@dataclass(frozen=True)
class UsageTable:
    """A row for each candidate; `has_costs` is whether the price of any is known."""

    has_costs: bool
    rows: list[UsageRow]

    @property
    def title(self) -> str:
        """What the section is called."""
        return "Cost and latency" if self.has_costs else "Latency and tokens"


def scores(contents: Contents) -> ScoreTable:
    """Candidates by graders: means, intervals, bars."""
    best = {
        grader: max((column.scores[grader].mean for column in contents.columns), default=0.0)
        for grader in contents.graders
    }
    return ScoreTable(
        contents.graders,
        [(column.label, [_cell(column, grader, best[grader]) for grader in contents.graders]) for column in contents.columns],
    )  # fmt: skip


def usage(contents: Contents) -> UsageTable | None:
    """What completions cost and how long one took, by candidate; None without candidates."""
    if not contents.columns:
        return None
    has_costs = any(column.usd is not None for column in contents.columns)
    return UsageTable(
        has_costs, [_usage_row(column, len(contents.rows), has_costs=has_costs) for column in contents.columns]
    )


def _cell(column: Column, grader: str, best: float) -> ScoreCell:
    score = column.scores[grader]
    return ScoreCell(grader, score, score.mean == best, score_bar(score))


def _usage_row(column: Column, items: int, *, has_costs: bool) -> UsageRow:
    usage, usd = column.usage, column.usd
    seconds = [latency(value, in_batches=usage.in_batches) for value in (usage.p50_seconds, usage.p95_seconds)]
    costs = [dollars(usd), dollars(usd / items)] if usd is not None else [None, None]
    figures = [f"{usage.prompt_tokens:,}", f"{usage.completion_tokens:,}", *seconds, *(costs if has_costs else [])]
    return UsageRow(column.label, column.model, [figure or "–" for figure in figures], usage.cut_off, usage.failed)
