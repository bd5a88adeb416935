"""Tables for the terminal: evaluations, and what each field of a spec became.

Everything reads at 80 columns and without colour; colour adds to what the words say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ftbridge.evaluation import preference as preferences
from ftbridge.evaluation.document import Evaluation, Score
from ftbridge.evaluation.preference import Preferences
from ftbridge.evaluation.retention.measure import RetainedSkill, Retention
from ftbridge.evaluation.wording import distinct_rivals, power_words
from ftbridge.planning.actual import Compared
from ftbridge.report.amounts import amount, dollars, latency, planned
from ftbridge.report.terminal.verdicts import verdicts_first
from ftbridge.spec.lowering import FieldReport, Lowering

_OUTCOMES = {"exact": "green", "translated": "cyan", "approximated": "yellow", "refused": "bold red", "unused": "dim"}
_STRIP_WIDTH = 21
_NAME_WIDTH = 24


# Evaluations


def evaluation_table(evaluation: Evaluation, *, sentences: bool = False) -> RenderableType:
    """The verdicts first; then candidates by graders with 95 % intervals, the best in bold, and what a reader should know.

    A run's candidates stand base first and tuned last, others as they were named. `sentences` adds each verdict in words.
    """
    names = list(evaluation.candidates)
    if "tuned" in names:
        names.sort(key=lambda name: (name == "tuned", name != "base"))
    graders = evaluation.graders
    if not names:
        return retention_table(evaluation.retention) if evaluation.retention else Text()
    table = _one_grader(evaluation, names, graders[0]) if len(graders) == 1 else _ManyGraders(evaluation, names)
    first = verdicts_first(distinct_rivals(evaluation.candidates, evaluation.verdicts), sentences=sentences)
    below: list[RenderableType] = [
        Text(f"macro F1 over {len(report.labels)} labels: {name} {report.macro_f1:.2f}", style="dim")
        for name, report in evaluation.classification.items()
        if name != "zero_shot" or _is_its_own(evaluation, name)
    ]
    below += [Text(f"Note: {note}", style="yellow") for note in evaluation.notes]
    more_tables = [Text(), retention_table(evaluation.retention)] if evaluation.retention else []
    if evaluation.preference is not None:
        more_tables = [Text(), preference_table(evaluation.preference), *more_tables]
    return Group(*first, *([Text()] if first else []), table, *([Text()] if below else []), *below, *more_tables)


def _is_its_own(evaluation: Evaluation, name: str) -> bool:
    return evaluation.candidates[name] != evaluation.candidates.get("base")


_KEPT = {
    "kept": ("green", "{name} still knows what {baseline} knew"),
    "worse": ("bold red", "{name} has forgotten some of what {baseline} knew"),
    "not_enough_data": ("yellow", "so few questions cannot tell whether {name} still knows what {baseline} knew"),
}


def preference_table(measured: Preferences) -> RenderableType:
    """What preference tuning changed on the test pairs: the finding in words, then every figure with its interval."""
    table = plain_table()
    table.add_column(Text("on the test pairs"), overflow="fold")
    table.add_column(Text("mean"), justify="right")
    table.add_column(Text("95 % interval"), justify="right")
    for name, mean, interval in preferences.table(measured):
        table.add_row(Text(name), Text(mean), Text(interval))
    return Group(Text(preferences.sentence(measured), style="bold"), Text(), table)


def retention_table(measured: Retention) -> RenderableType:
    """What is still known, by kind of question; below, the verdict in words."""
    table = plain_table()
    table.add_column(Text("retention"), overflow="fold")
    for kind in (*measured.kinds, "all"):
        table.add_column(Text(kind), justify="right")
    for name, by in measured.candidates.items():
        cells = [f"{100 * by[kind].mean:.0f} %" for kind in (*measured.kinds, "all")]
        table.add_row(Text(name), *cells)
    sentences = [
        Text(retention_sentence(name, change, measured), style=_KEPT[change.verdict][0])
        for name, change in measured.verdicts.items()
    ]
    return Group(table, Text(), *sentences)


def retention_sentence(name: str, change: RetainedSkill, measured: Retention) -> str:
    """The verdict on one candidate in words."""
    low, high = change.ci95
    words = _KEPT[change.verdict][1].format(name=name, baseline=measured.baseline)
    return (
        f"{words}: {100 * change.difference:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}, margin "
        f"{100 * measured.margin:g}; {len(change.lost)} lost, {change.gained} gained)."
    )


def power(evaluation: Evaluation) -> Text:
    """What so many items can show at all, by grader."""
    return Text(power_words(evaluation.items, evaluation.verdicts.values()), style="dim")


def answered_table(evaluation: Evaluation) -> Table:
    """What answering took: tokens, the middle and the slow answers."""
    table = plain_table()
    costs = {name: usd for name, usage in evaluation.answered.items() if (usd := usage.usd) is not None}
    columns = [
        "candidate",
        "prompt tokens",
        "completion tokens",
        "p50",
        "p95",
        *(["cost"] if costs else []),
        "cut off",
        "failed",
    ]
    for heading in columns:
        table.add_column(heading, justify="left" if heading == "candidate" else "right", overflow="fold")
    for name, usage in evaluation.answered.items():
        times = [
            latency(seconds, in_batches=usage.in_batches) or "" for seconds in (usage.p50_seconds, usage.p95_seconds)
        ]
        cost = [dollars(costs[name]) if name in costs else ""] if costs else []
        failed = Text(str(usage.failed), style="red") if usage.failed else Text("")
        cut = Text(str(usage.cut_off), style="yellow") if usage.cut_off else Text("")
        table.add_row(
            Text(name), f"{usage.prompt_tokens:,}", f"{usage.completion_tokens:,}", *times, *cost, cut, failed
        )
    return table


def compared_table(rows: Sequence[Compared]) -> list[RenderableType]:
    """Planned vs actual, one line a figure, and below why those that came otherwise did; nothing without a plan."""
    if not rows:
        return []
    table = plain_table()
    for heading in ("planned vs actual", "planned", "actual", ""):
        table.add_column(heading, justify="right" if heading in ("planned", "actual") else "left", overflow="fold")
    for one in rows:
        words = {True: Text("as planned", style="green"), False: Text("not as planned", style="yellow"), None: Text()}
        table.add_row(one.what, planned(one), amount(one.actual, one.unit), words[one.met])
    return [Text(), table, *(Text(f"{one.what}: {one.why}", style="dim") for one in rows if one.why)]


def _one_grader(evaluation: Evaluation, names: Sequence[str], grader: str) -> Table:
    table = plain_table()
    table.add_column(Text("candidate"), overflow="fold")
    table.add_column(Text(grader), no_wrap=True)
    table.add_column(_Scale(), width=_STRIP_WIDTH, no_wrap=True)
    for name in names:
        score = evaluation.candidates[name][grader]
        best = score.mean == max(by[grader].mean for by in evaluation.candidates.values())
        table.add_row(Text(name), _score(score, best=best), _Strip(score), style="bold" if best else "")
    return table


class _ManyGraders:
    """As many graders side by side as fit, then the next table below."""

    def __init__(self, evaluation: Evaluation, names: Sequence[str]) -> None:
        self.evaluation, self.names = evaluation, names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first = min(_NAME_WIDTH, max(map(len, [*self.names, "candidate"])))
        cell = max(_score(score).cell_len for by in self.evaluation.candidates.values() for score in by.values())
        abreast = max(1, (options.max_width - first) // (cell + 2))
        graders = self.evaluation.graders
        for start in range(0, len(graders), abreast):
            table = plain_table()
            table.add_column(Text("candidate"), width=first, overflow="fold")
            shown = graders[start : start + abreast]
            for grader in shown:
                table.add_column(Text(grader), width=cell, overflow="fold")
            for name in self.names:
                cells = [self._cell(name, grader) for grader in shown]
                table.add_row(Text(name), *cells)
            if start:
                yield Text()
            yield table

    def _cell(self, name: str, grader: str) -> Text:
        scores = self.evaluation.candidates
        return _score(
            scores[name][grader], best=scores[name][grader].mean == max(by[grader].mean for by in scores.values())
        )


def _score(score: Score, *, best: bool = False) -> Text:
    low, high = (f"{100 * end:.1f}" for end in score.ci95)
    interval = (f"[{low}, {high}]", "not bold dim")
    return Text.assemble((f"{100 * score.mean:5.1f} %", "bold" if best else ""), "  ", interval, no_wrap=True)


class _Strip:
    """A score on a line from 0 to 100: a dot for the mean, a bar for its interval."""

    def __init__(self, score: Score) -> None:
        self.score = score

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _STRIP_WIDTH)
        low, mean, high = (
            min(width - 1, max(0, round(value * (width - 1))))
            for value in (self.score.ci95[0], self.score.mean, self.score.ci95[1])
        )
        strip = Text("·" * width, style="dim")
        strip = Text.assemble(strip[:low], ("━" * (mean - low) + "●" + "━" * (high - mean), "cyan"), strip[high + 1 :])
        yield strip

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(_STRIP_WIDTH, _STRIP_WIDTH)


class _Scale:
    """The heading of strips: where 0, 50 and 100 lie."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("0" + "50".center(_STRIP_WIDTH - 4) + "100", style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(_STRIP_WIDTH, _STRIP_WIDTH)


# Lowering


def lowering_table(lowering: Lowering) -> RenderableType:
    """The outcome of each field of the spec, section by section; below, how many there are of each."""
    table = plain_table()
    table.add_column("field", overflow="fold", no_wrap=False)
    table.add_column("outcome", no_wrap=True)
    table.add_column("in the spec → sent, and how", overflow="fold", ratio=1)
    section = ""
    for report in lowering.fields:
        parent, _, name = report.field.rpartition(".")
        if parent and parent != section:
            table.add_row(Text(parent, style="bold"), "", "")
        section = parent
        indent = 1 if parent else 0
        outcome = Text(report.outcome, style=_OUTCOMES[report.outcome])
        table.add_row(Padding(Text(name), (0, 0, 0, indent)), outcome, _story(report))
    counts = [
        (f"{sum(report.outcome == outcome for report in lowering.fields)} {outcome}", style)
        for outcome, style in _OUTCOMES.items()
        if any(report.outcome == outcome for report in lowering.fields)
    ]
    parts = [part for count in counts for part in (count, ", ")][:-1]
    return Group(table, Text.assemble(f"{lowering.provider}: ", *parts, "."))


def _story(report: FieldReport) -> Text:
    spec_value, provider_value = _shown(report.requested), _shown(report.sent)
    if report.requested is None and report.sent is None:
        values = "" if report.how else "not set"
    else:
        values = (
            spec_value
            if spec_value == provider_value or report.outcome in ("unused", "refused")
            else f"{spec_value} → {provider_value}"
        )
    text = Text(values, style="dim" if report.outcome == "unused" else "")
    if report.chosen is not None:
        text.append(
            f" → {report.chosen:g}, chosen by the provider" if values else f"{report.chosen:g}, chosen by the provider"
        )
    elif report.how:
        text.append(f": {report.how}" if values else report.how, style="dim" if report.outcome != "refused" else "red")
    return text


def _shown(value: Any) -> str:
    """A value as people write it; what is absent is told in words."""
    if value is None:
        return "not set"
    if isinstance(value, list) and value and all(isinstance(entry, dict) and "name" in entry for entry in value):
        return ", ".join(str(entry["name"]) for entry in value)
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False) if value else "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# Shared


def plain_table() -> Table:
    """A table without lines, its headings dim."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
