"""A comparison of runs or candidates on the terminal, and the items on which they score differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ftbridge.evaluation.compare import Comparison
from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.evaluation.wording import SHORT, power_words, sentence, summary
from ftbridge.report.formats.tables import Cell, Markdown, csv_text, junit_text, markdown_table, markdown_text
from ftbridge.report.terminal.console import printable
from ftbridge.report.terminal.verdicts import STYLES, VerdictTable

if TYPE_CHECKING:
    from ftbridge.report.html.contents import Contents, ItemRow

_SHOWN = 5


def comparison_table(comparison: Comparison, *, sentences: bool = True) -> RenderableType:
    """What was found in a sentence, the verdicts with their intervals, what can be seen at all, and the items that changed."""
    means = {
        grader: (comparison.first.scores[grader].mean, comparison.second.scores[grader].mean)
        for grader in comparison.verdicts
    }
    pair = ("the second", "the first", comparison.verdicts)
    parts: list[RenderableType] = [
        *(Text(line, style="bold") for line in comparison.summary or summary([pair])),
        Text(f"first   {comparison.first.run} · {comparison.first.candidate} · {comparison.first.provider}"),
        Text(f"second  {comparison.second.run} · {comparison.second.candidate} · {comparison.second.provider}"),
        Text(),
        VerdictTable([pair], means),
        Text(power_words(comparison.items, [comparison.verdicts]), style="dim"),
        *(Text(f"Note: {note}", style="yellow") for note in comparison.notes),
    ]
    if sentences:
        verdict_sentences = [
            Text(sentence(grader, paired), style=STYLES[paired.verdict])
            for grader, paired in comparison.verdicts.items()
        ]
        parts += [Text(), *verdict_sentences]
    items = [(item.line, item.prompt, [("first", item.first), ("second", item.second)]) for item in comparison.changed]
    worse = sum(sum(second - first for first, second in item.scores.values()) < 0 for item in comparison.changed)
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
    for line, prompt, completions in items[:_SHOWN]:
        grid = Table.grid(padding=(0, 2), expand=True)
        widest = min(28, 4 + max(len(name) for name, _ in completions))  # answers may be cut, whose they are may not
        grid.add_column(no_wrap=True, min_width=max(10, widest), max_width=28, overflow="ellipsis")
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_row(Text(f"  line {line}", style="dim"), Text(_short(prompt), style="dim"))
        for name, completion in completions:
            grid.add_row(Text(f"    {printable(name)}"), Text(_short(completion) or "(empty completion)"))
        parts.append(grid)
    if rest := len(items) - _SHOWN:
        parts += [Text(f"  and {rest} more", style="dim")] if rest > 0 else []
    return parts


def as_csv(comparison: Comparison) -> str:
    """One line for each grader."""
    heads = ["grader", "first", "second", "difference", "low", "high", "p_adjusted", "verdict", "n"]
    heads += ["better", "worse"]
    rows: list[list[Cell]] = [
        [
            grader,
            *(side.scores[grader].mean for side in (comparison.first, comparison.second)),
            *(paired.difference, *paired.ci95, paired.p_adjusted, paired.verdict, paired.n),
            *(paired.better, paired.worse),
        ]
        for grader, paired in comparison.verdicts.items()
    ]
    return csv_text(heads, rows)


def as_junit(comparison: Comparison) -> str:
    """One test case for each grader: it fails when a margin is not met, or when the second is worse."""
    cases = [
        (grader, sentence(grader, paired) if fails(paired) else None) for grader, paired in comparison.verdicts.items()
    ]
    return junit_text(f"{comparison.second.run} against {comparison.first.run}", "ftbridge.evaluation.compare", cases)


def as_markdown(comparison: Comparison) -> str:
    """A table for a pull request; the better mean in bold."""
    rows = []
    for grader, paired in comparison.verdicts.items():
        means = [side.scores[grader].mean for side in (comparison.first, comparison.second)]
        cells = [Markdown(f"**{100 * mean:.1f} %**" if mean == max(means) else f"{100 * mean:.1f} %") for mean in means]
        low, high = (100 * end for end in paired.ci95)
        difference = f"{100 * paired.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        counts = f"{paired.better} / {paired.worse}"
        rows.append([grader, *cells, difference, counts, SHORT[paired.verdict]])
    table = markdown_table(["grader", "first", "second", "difference", "better / worse", "verdict"], rows)
    notes = "".join(f"- {markdown_text(note)}\n" for note in comparison.notes)
    first, second = (f"{markdown_text(side.run)} ({side.provider})" for side in (comparison.first, comparison.second))
    lines = "".join(f"{markdown_text(line)}\n\n" for line in comparison.summary)
    return f"{second} against {first}, {comparison.items} items\n\n{lines}{table}" + (f"\n{notes}" if notes else "")


def fails(paired: PairedComparison) -> bool:
    """Whether CI should stop: the asked margin is not met, or, where none was asked, the candidate is worse;
    or nothing could be determined.
    """
    return (
        paired.margin_met is False
        or paired.verdict == "undetermined"
        or (paired.margin_met is None and paired.verdict == "worse")
    )


def _short(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= 200 else line[:199] + "…"


def changed(contents: Contents) -> list[RenderableType]:
    """A handful of items, those where candidates lose most against the first before the others, and a count of the rest."""
    labels = [column.label for column in contents.columns]
    rows = sorted((row for row in contents.rows if _differs(row)), key=lambda row: (_worst(row), row.line))
    return changed_items(
        [
            (
                row.line,
                row.prompt[-1][1] if row.prompt else "",
                [(name, completion.text) for name, completion in zip(labels, row.completions, strict=True)],
            )
            for row in rows
        ],
        sum(_worst(row) < 0 for row in rows),
    )


def _differs(row: ItemRow) -> bool:
    first, *others = row.completions
    return any(change for other in others for change in first.changes(other).values())


def _worst(row: ItemRow) -> float:
    """The largest loss of any candidate against the first, over all graders: negative where something was lost."""
    first, *others = row.completions
    return min(sum(first.changes(other).values()) for other in others)
