"""A comparison for the terminal, and for machines: CSV, JUnit, Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ftbridge.evaluation.compare import Comparison
from ftbridge.evaluation.verdict import Judged
from ftbridge.evaluation.wording import SHORT, power_words, sentence, summary
from ftbridge.report.formats.tables import Cell, Markdown, csv_text, junit_text, markdown_table, markdown_text
from ftbridge.report.terminal.console import printable
from ftbridge.report.terminal.verdicts import STYLES, VerdictTable

_SHOWN = 5


def comparison_table(told: Comparison, *, sentences: bool = True) -> RenderableType:
    """What was found in a sentence, the verdicts with their intervals, what can be seen at all, and the items that changed."""
    means = {grader: (told.first.scores[grader].mean, told.second.scores[grader].mean) for grader in told.verdicts}
    pair = ("the second", "the first", told.verdicts)
    parts: list[RenderableType] = [
        *(Text(line, style="bold") for line in told.summary or summary([pair])),
        Text(f"first   {told.first.run} · {told.first.candidate} · {told.first.provider}"),
        Text(f"second  {told.second.run} · {told.second.candidate} · {told.second.provider}"),
        Text(),
        VerdictTable([pair], means),
        Text(power_words(told.items, [told.verdicts]), style="dim"),
        *(Text(f"Note: {note}", style="yellow") for note in told.notes),
    ]
    if sentences:
        said = [
            Text(sentence(grader, judged), style=STYLES[judged.verdict]) for grader, judged in told.verdicts.items()
        ]
        parts += [Text(), *said]
    items = [(item.line, item.prompt, [("first", item.first), ("second", item.second)]) for item in told.changed]
    worse = sum(sum(second - first for first, second in item.scores.values()) < 0 for item in told.changed)
    return Group(*parts, *changed_items(items, worse))


def changed_items(items: Sequence[tuple[int, str, Sequence[tuple[str, str]]]], worse: int) -> list[RenderableType]:
    """A handful of items that changed (line, prompt, answers by name), the worst first, and how many more there are.

    `worse` of them lost against the first.
    """
    if not items:
        return []
    parts: list[RenderableType] = [
        Text(),
        Text(
            f"{len(items)} items changed, {worse} for the worse; those first:"
            if worse
            else f"{len(items)} items changed, none for the worse:"
        ),
    ]
    for line, prompt, answers in items[:_SHOWN]:
        grid = Table.grid(padding=(0, 2), expand=True)
        widest = min(28, 4 + max(len(name) for name, _ in answers))  # answers may be cut, whose they are may not
        grid.add_column(no_wrap=True, min_width=max(10, widest), max_width=28, overflow="ellipsis")
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_row(Text(f"  line {line}", style="dim"), Text(_short(prompt), style="dim"))
        for name, answer in answers:
            grid.add_row(Text(f"    {printable(name)}"), Text(_short(answer) or "(no answer)"))
        parts.append(grid)
    if rest := len(items) - _SHOWN:
        parts += [Text(f"  and {rest} more", style="dim")] if rest > 0 else []
    return parts


def as_csv(told: Comparison) -> str:
    """One line for each grader."""
    heads = ["grader", "first", "second", "difference", "low", "high", "p_adjusted", "verdict", "n"]
    heads += ["better", "worse"]
    rows: list[list[Cell]] = [
        [
            grader,
            *(side.scores[grader].mean for side in (told.first, told.second)),
            *(judged.difference, *judged.ci95, judged.p_adjusted, judged.verdict, judged.n),
            *(judged.better, judged.worse),
        ]
        for grader, judged in told.verdicts.items()
    ]
    return csv_text(heads, rows)


def as_junit(told: Comparison) -> str:
    """One test case for each grader: it fails when a margin is not met, or when the second is worse."""
    cases = [(grader, sentence(grader, judged) if fails(judged) else None) for grader, judged in told.verdicts.items()]
    return junit_text(f"{told.second.run} against {told.first.run}", "ftbridge.evaluation.compare", cases)


def as_markdown(told: Comparison) -> str:
    """A table for a pull request; the better mean in bold."""
    rows = []
    for grader, judged in told.verdicts.items():
        means = [side.scores[grader].mean for side in (told.first, told.second)]
        cells = [Markdown(f"**{100 * mean:.1f} %**" if mean == max(means) else f"{100 * mean:.1f} %") for mean in means]
        low, high = (100 * end for end in judged.ci95)
        difference = f"{100 * judged.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        counts = f"{judged.better} / {judged.worse}"
        rows.append([grader, *cells, difference, counts, SHORT[judged.verdict]])
    table = markdown_table(["grader", "first", "second", "difference", "better / worse", "verdict"], rows)
    notes = "".join(f"- {markdown_text(note)}\n" for note in told.notes)
    first, second = (f"{markdown_text(side.run)} ({side.provider})" for side in (told.first, told.second))
    lines = "".join(f"{markdown_text(line)}\n\n" for line in told.summary)
    return f"{second} against {first}, {told.items} items\n\n{lines}{table}" + (f"\n{notes}" if notes else "")


def fails(judged: Judged) -> bool:
    """Whether CI should stop: the asked margin is not met, or, where none was asked, the candidate is worse;
    or nothing could be determined.
    """
    return (
        judged.margin_met is False
        or judged.verdict == "undetermined"
        or (judged.margin_met is None and judged.verdict == "worse")
    )


def _short(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= 200 else line[:199] + "…"
