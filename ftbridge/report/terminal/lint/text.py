"""Findings on the terminal: file by file, the piece underlined, repeats folded, a summary at the end.

error FTB021 missing-content
train.jsonl:12 messages[1].content is null but the message has no tool_calls. Give it text, or remove the message.
│ …"role": "assistant", "content": null}]}
│                                  ‾‾‾‾
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ftbridge.data.lint.engine import Linting
from ftbridge.data.lint.findings import Finding, LintReport
from ftbridge.data.lint.fix import FixReport
from ftbridge.data.lint.rules import RULES
from ftbridge.data.targets import longest_example
from ftbridge.report.terminal.lint.distribution import distribution
from ftbridge.report.terminal.lint.excerpt import MASK, excerpt

SHOWN = 5
"""Findings of one rule that are shown for a file; the rest is counted. Without a limit, by --max-findings 0."""

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}

_MOST_FOLDED = 20
_MOST_DRAWN = 3
"""Files whose token distributions are drawn."""


class TextReport:
    """Prints findings as they come. `limit` bounds all of them; None shows every one, those of one rule not folded."""

    def __init__(self, console: Console, linting: Linting, limit: int | None) -> None:
        self.console, self._linting, self._limit = console, linting, limit
        self._shown: Counter[tuple[str, str]] = Counter()
        self._of_lines: set[tuple[str, str, str]] = set()
        self._total = 0
        self._plain = is_plain(console)
        # Nobody reads a pipe by its width, and a sentence on one line can be searched for.
        self._wraps = console.is_terminal or "COLUMNS" in os.environ

    def add(self, path: str, finding: Finding) -> None:
        """Print a finding, unless there are enough of its kind."""
        if self._limit is not None and (self._is_again(path, finding) or self._total >= self._limit):
            return
        self._shown[path, finding.code] += 1
        self._total += 1
        for line in self._lines(path, finding):
            self._print(line)
        self._print(Text())

    def _is_again(self, path: str, finding: Finding) -> bool:
        """Whether enough was printed of its kind: a fault that whole lines share is told once."""
        again = (path, finding.code, finding.message) in self._of_lines
        if not finding.field and not finding.span:
            self._of_lines.add((path, finding.code, finding.message))
        return again or self._shown[path, finding.code] >= SHOWN

    def finish(self, report: LintReport) -> None:
        """Print what was folded, each file's tokens, and the summary."""
        self._print_folded(report)
        for file in report.files if len(report.files) <= _MOST_DRAWN else ():
            if file.token_counts and file.examples > 1:
                drawn = distribution(
                    file, file.token_counts, self._longest(), width=self.console.width, plain=self._plain
                )
                for line in drawn:
                    self._print(line)
                self._print(Text())
        self._print(summary(report))

    def _lines(self, path: str, finding: Finding) -> Iterator[Text]:
        rule = RULES[finding.code]
        yield Text.assemble((finding.severity, STYLES[finding.severity]), " ", (finding.code, "bold"), f" {rule.name}")
        at = path if finding.line is None else f"{path}:{finding.line}"
        heading = Text.assemble(
            (at, "cyan"), " ", (finding.field or "", "bold"), " " if finding.field else "", finding.message
        )
        width = max(20, self.console.width - 2)
        yield from (Text("  ") + line for line in (heading.wrap(self.console, width) if self._wraps else [heading]))
        raw = self._linting.line_at(path, finding)
        piece = excerpt(raw, finding, self._linting.secrets_at(path, finding.line), width - 2) if raw else None
        if piece:
            gutter = ("  | " if self._plain else "  │ ", "dim")
            shown = piece.text.replace(MASK, "*").replace("…", "~") if self._plain else piece.text
            mark = ("^" if self._plain else "‾") * piece.length
            yield Text.assemble(gutter, shown)
            yield Text.assemble(gutter, " " * piece.start, (mark, STYLES[finding.severity]))
        if finding.fix:
            yield Text(f"  --fix: {finding.fix}", style="green")

    def _print_folded(self, report: LintReport) -> None:
        """How many findings of each rule and file were not shown."""
        rest = [
            (count - self._shown[file.path, code], code, file.path)
            for file in report.files
            for code, count in file.rules.items()
            if count > self._shown[file.path, code]
        ]
        lead = "..." if self._plain else "…"
        for count, code, path in rest[:_MOST_FOLDED]:
            of = f" in {path}" if len(report.files) > 1 else ""
            self._print(Text(f"{lead} and {count:,} more {code} {RULES[code].name}{of}", style="dim"))
        if more := sum(count for count, _, _ in rest[_MOST_FOLDED:]):
            self._print(Text(f"{lead} and {more:,} more of other rules", style="dim"))
        if rest:
            self._print(Text("--max-findings 0 shows every one, --statistics counts by rule.", style="dim"))
            self._print(Text())

    def _print(self, line: Text) -> None:
        line.rstrip()
        self.console.print(line, soft_wrap=True)

    def _longest(self) -> int | None:
        options = self._linting.options
        if options.counter or options.target == "local":
            return options.counter.limit if options.counter else None
        return longest_example(options.model)


def summary(report: LintReport) -> Text:
    """One line: what was found, in how much, and what can be fixed."""
    infos = sum(file.infos for file in report.files)
    counts = [(report.errors, "error"), (report.warnings, "warning"), (infos, "info")]
    text = Text()
    if not any(count for count, _ in counts):
        text.append("Nothing found", style="green")
    for index, (count, severity) in enumerate((count, severity) for count, severity in counts if count):
        text.append(", " if index else "")
        text.append(plural(count, severity), style=STYLES[severity])
    examples = sum(file.examples for file in report.files)
    tokens = [file.tokens for file in report.files if file.tokens is not None]
    held = plural(examples, "example") + (f", {sum(tokens):,} tokens" if tokens else "")
    text.append(f" in {plural(len(report.files), 'file')} ({held}).")
    if fixable := sum(file.fixable for file in report.files):
        text.append(f" {fixable:,} can be fixed with --fix OUT.", style="green")
    if not report.complete:
        text.append(" Interrupted: these are the findings so far.", style="bold yellow")
    return text


def statistics(report: LintReport, console: Console) -> None:
    """How many findings each rule has, most first."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", style="bold")
    for code, count in report.rules.items():
        rule = RULES[code]
        severity = rule.severity_for(report.target) or rule.severity
        fix = Text("fix", style="green") if rule.fixable else ""
        table.add_row(f"{count:,}", Text(code, style=STYLES[severity]), rule.name, Text(rule.summary, style="dim"), fix)
    if report.rules:
        print_trimmed(table, console)
        console.print()


def print_trimmed(table: RenderableType, console: Console) -> None:
    """Print something that pads its lines, without the padding at their ends."""
    with console.capture() as captured:
        console.print(table)
    for line in Text.from_ansi(captured.get()).split():
        line.rstrip()
        console.print(line, soft_wrap=True)


def is_plain(console: Console) -> bool:
    """Whether the terminal takes ASCII only."""
    return not (console.encoding or "").lower().startswith("utf")


def plural(count: int, noun: str) -> str:
    """A number of things in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_fix(report: FixReport, console: Console, *, shown: int | None) -> None:
    """Print one file's changes, `shown` at most and SHOWN of each rule (all where it is None), and the summary."""
    printed = _print_changes(report, console, shown)
    if report.rules and sum(report.rules.values()) > printed:
        for code, count in report.rules.items():
            console.print(Text.assemble(f"  {count:,} ", (code, "bold"), f" {RULES[code].name}"), soft_wrap=True)
        if shown:
            console.print(Text("--max-findings 0 shows every one.", style="dim"), soft_wrap=True)
    lines = Text(f"{report.out}: {plural(report.lines, 'line')}, {report.changed:,} of them fixed. ")
    left = [(report.left.errors, "error"), (report.left.warnings, "warning")]
    kinds = [Text(plural(count, kind), style=STYLES[kind]) for count, kind in left if count]
    if kinds:
        lines += Text("Not fixed:  ") + Text(" and ").join(kinds) + Text(f" (ftbridge lint {report.out}).")
    else:
        lines += Text("Nothing is left to fix.", style="green")
    console.print(lines, soft_wrap=True)


def _print_changes(report: FixReport, console: Console, shown: int | None) -> int:
    """How many were printed."""
    by_rule: Counter[str] = Counter()
    for change in report.changes:
        if shown is not None and (by_rule.total() >= shown or by_rule[change.code] >= SHOWN):
            continue
        by_rule[change.code] += 1
        at = report.path if change.line is None else f"{report.path}:{change.line}"
        console.print(Text.assemble((at, "cyan"), f" {change.did} ", (f"({change.code})", "dim")), soft_wrap=True)
    return by_rule.total()
