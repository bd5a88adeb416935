"""Findings on the terminal: grouped by file, the piece underlined, repeats folded, a summary at the end."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftbridge.data.lint.engine import Linting
from ftbridge.data.lint.findings import FileReport, Finding, LintReport, Tokens
from ftbridge.data.rules import RULES
from ftbridge.report.lint.excerpt import excerpt

SHOWN = 5
"""Findings of one rule that are shown for a file; the rest is counted. Without a limit by --max-findings 0."""

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_BARS = " ▏▎▍▌▋▊▉█"


class TextReport:
    """Prints findings as they come. `limit` bounds all of them; None shows every one, those of one rule not folded."""

    def __init__(self, console: Console, linting: Linting, limit: int | None) -> None:
        self.console, self._linting, self._limit = console, linting, limit
        self._file: str | None = None
        self._seen: Counter[str] = Counter()
        self._shown = 0
        self._ascii = not (console.encoding or "").lower().startswith("utf")

    def add(self, path: str, finding: Finding) -> None:
        """Print a finding, unless there are enough of its kind."""
        if path != self._file:
            self._fold()
            self._file = path
            self._seen.clear()
            self.console.print(Text(path, style="bold underline"), soft_wrap=True)
        self._seen[finding.code] += 1
        if self._limit is not None and (self._seen[finding.code] > SHOWN or self._shown >= self._limit):
            return
        self._shown += 1
        self._print(path, finding)

    def finish(self, report: LintReport) -> None:
        """Print what was folded, each file's tokens, and the summary."""
        self._fold(report)
        for file in report.files:
            if file.token_counts and len(report.files) <= 3 and file.examples > 1:
                self._print_tokens(file, file.token_counts)
        self.console.print(summary(report))

    def _print(self, path: str, finding: Finding) -> None:
        raw = self._linting.line_at(path, finding) if finding.start is not None else None
        at = "" if finding.line is None else str(finding.line)
        said = Text(finding.field or "", style="bold")
        said.append(" " if finding.field else "", style="not bold")
        said.append(finding.message, style="not bold")
        said.append(f" ({finding.code})", style="dim not bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(justify="right", width=max(6, len(at)), style="dim")
        grid.add_column(width=7)
        grid.add_column(ratio=1)
        grid.add_row(at, Text(finding.severity, style=STYLES[finding.severity]), said)
        piece = excerpt(raw, finding, self._same_line(path, finding), self.console.width - 18) if raw else None
        if piece:
            grid.add_row("", "", Text(piece.text, style="dim", no_wrap=True, overflow="crop"))
            mark = ("^" if self._ascii else "‾") * piece.length
            grid.add_row("", "", Text(" " * piece.start + mark, style=STYLES[finding.severity], no_wrap=True))
        if finding.fix:
            grid.add_row("", "", Text(f"--fix: {finding.fix}", style="green"))
        self.console.print(grid)

    def _same_line(self, path: str, finding: Finding) -> list[Finding]:
        return self._linting.findings_at(path, finding.line)

    def _fold(self, report: LintReport | None = None) -> None:
        """Say how many findings of each rule were not shown for the file that ends here."""
        if self._file is None or self._limit is None:
            return
        counts = Counter(self._seen)
        for file in report.files if report else ():
            if file.path == self._file:
                counts.update({code: count - counts[code] for code, count in file.rules.items()})
        for code, count in counts.items():
            if count > SHOWN:
                text = f"… and {count - SHOWN:,} more {code} {RULES[code].name}"
                self.console.print(Text(f"{'':>17}{text}", style="dim"), soft_wrap=True)
        self.console.print()

    def _print_tokens(self, file: FileReport, tokens: Tokens) -> None:
        quantiles = f"median {tokens.median:,}, 95 % up to {tokens.p95:,}, most {tokens.largest:,}"
        head = f"{file.path}: {tokens.total:,} tokens in {file.examples:,} examples ({tokens.counted_with})"
        self.console.print(Text(head, style="bold"), soft_wrap=True)
        most = max(count for _, _, count in tokens.histogram)
        for start, below, count in tokens.histogram:
            label = f"{start:>9,}–{below - 1:<9,}" if below - 1 > start else f"{start:>9,}{'':<10}"
            self.console.print(
                Text(f"{label.replace('–', '-') if self._ascii else label} {self._bar(count / most)} {count:,}")
            )
        self.console.print(Text(quantiles, style="dim"))
        self.console.print()

    def _bar(self, share: float) -> str:
        room = max(4, min(40, self.console.width - 32))
        if self._ascii:
            return "#" * max(int(share * room), share > 0)
        eighths = max(int(share * room * 8), share > 0)
        return "█" * (eighths // 8) + _BARS[eighths % 8].strip()


def summary(report: LintReport) -> Text:
    """One line: what was found, in how much, and what can be fixed."""
    infos = sum(file.infos for file in report.files)
    counts = [(report.errors, "error"), (report.warnings, "warning"), (infos, "info")]
    told = Text()
    if not any(count for count, _ in counts):
        told.append("Nothing found", style="green")
    for index, (count, severity) in enumerate((count, severity) for count, severity in counts if count):
        told.append(", " if index else "")
        told.append(_plural(count, severity), style=STYLES[severity])
    examples = sum(file.examples for file in report.files)
    tokens = [file.tokens for file in report.files if file.tokens is not None]
    held = f"{_plural(examples, 'example')}" + (f", {sum(tokens):,} tokens" if tokens else "")
    told.append(f" in {_plural(len(report.files), 'file')} ({held}).")
    if fixable := sum(file.fixable for file in report.files):
        told.append(f" {fixable:,} can be fixed with --fix OUT.", style="green")
    if not report.complete:
        told.append(" Interrupted: this is what was found so far.", style="bold yellow")
    return told


def statistics(report: LintReport, console: Console) -> None:
    """How many findings each rule has, most first."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", style="bold")
    for code, count in report.rules.items():
        table.add_row(f"{count:,}", code, RULES[code].name, Text(RULES[code].summary, style="dim"))
    console.print(table)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
