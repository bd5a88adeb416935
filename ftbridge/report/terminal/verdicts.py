"""The verdicts first: a sentence for each rival, and one row for each grader, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.evaluation.wording import SHORT, Rival, importance, margin_words, sentence, summary

STYLES = {
    "better": "green",
    "worse": "bold red",
    "not_worse": "cyan",
    "not_enough_data": "yellow",
    "undetermined": "yellow",
}
_BAR = 21
_WIDE = 104
"""Columns from which on the interval is drawn too."""
_NARROW = 72
"""Columns below which a row is a line of text."""
_NARROWEST_NAME = 8


def verdicts_first(pairs: Sequence[Rival], *, sentences: bool = False) -> list[RenderableType]:
    """What was found in a sentence for each rival, then one row for each grader and rival; nothing where none was compared."""
    if not pairs:
        return []
    pairs = sorted(pairs, key=lambda pair: importance(pair[2]))
    lines = summary(pairs)
    worst = any(paired.verdict == "worse" for _, _, by in pairs for paired in by.values())
    parts: list[RenderableType] = [Text(lines[0], style="bold red" if worst else "bold")]
    parts += [Text(line) for line in lines[1:]]
    parts += [Text(), VerdictTable(pairs)]
    if sentences:
        parts += [Text(), *_sentences(pairs)]
    return parts


class VerdictTable:
    """One row for each rival and grader: difference, interval, items better and worse, verdict; `means` adds both means."""

    def __init__(self, pairs: Sequence[Rival], means: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.pairs, self.means = pairs, means

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= _WIDE
        if options.max_width < _NARROW:
            yield from self._lines()
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
        table.add_column(Text("grader"), overflow="fold", min_width=_NARROWEST_NAME)
        means = ["first", "second"] if self.means is not None else []
        for heading in (*means, "difference", *(["-    0    +"] if wide else []), "won/lost", "verdict"):
            table.add_column(heading, no_wrap=True, justify="center" if "0" in heading else "left")
        reach = max(0.1, *(abs(end) for _, _, by in self.pairs for paired in by.values() for end in paired.ci95))
        for candidate, baseline, by in self.pairs:
            if self.means is None:
                table.add_row(Text(f"{candidate} against {baseline}", style="bold"))
            for grader, paired in by.items():
                table.add_row(*self._row(grader, paired, reach, wide))
        yield table
        if note := self._margin():
            yield Text(note, style="dim")

    def _lines(self) -> Iterator[Text]:
        """Each row as a line of text, which breaks where it must."""
        for candidate, baseline, by in self.pairs:
            if self.means is None:
                yield Text(f"{candidate} against {baseline}", style="bold", overflow="fold")
            for grader, paired in by.items():
                yield Text("  ", overflow="fold").join(self._row(grader, paired, 1.0, wide=False))
        if note := self._margin():
            yield Text(note, style="dim")

    def _row(self, grader: str, paired: PairedComparison, reach: float, wide: bool) -> Iterator[Text]:
        yield Text(grader)
        if self.means is not None:
            both = self.means[grader]
            yield from (Text(f"{100 * mean:.1f} %", style="bold" if mean == max(both) else "") for mean in both)
        low, high = (100 * end for end in paired.ci95)
        yield Text.assemble(f"{100 * paired.difference:+.1f} ", (f"[{low:+.1f}, {high:+.1f}]", "dim"))
        if wide:
            yield interval_bar(paired, reach)
        yield Text(f"{paired.better}/{paired.worse}")
        yield Text(SHORT[paired.verdict], style=STYLES[paired.verdict])

    def _margin(self) -> str:
        margins = {paired.margin for _, _, by in self.pairs for paired in by.values() if paired.margin is not None}
        shown = any(paired.verdict == "not_worse" for _, _, by in self.pairs for paired in by.values())
        return f"not worse: by no more than {margin_words(min(margins))}" if margins and shown else ""


def interval_bar(paired: PairedComparison, reach: float) -> Text:
    """The interval on a line from -reach to +reach; | is no difference."""
    middle = _BAR // 2
    low, at, high = (
        min(_BAR - 1, max(0, middle + round(value / reach * middle)))
        for value in (paired.ci95[0], paired.difference, paired.ci95[1])
    )
    marks = ["·"] * _BAR
    marks[low : high + 1] = ["━"] * (high - low + 1)
    marks[middle] = "|"
    marks[at] = "●"
    return Text("".join(marks), style=STYLES[paired.verdict])


def _sentences(pairs: Sequence[Rival]) -> Iterator[RenderableType]:
    for candidate, baseline, by in pairs:
        for grader, paired in by.items():
            yield Text(sentence(grader, paired, candidate=candidate, baseline=baseline), style=STYLES[paired.verdict])
