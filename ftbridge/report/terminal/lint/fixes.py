"""What `lint --fix` did, on the terminal: the first changes of each rule, a count by rule, and what is left to a person."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from ftbridge.data.lint.fix import FixReport
from ftbridge.data.lint.rules import RULES
from ftbridge.report.terminal.lint.text import SHOWN, STYLES, plural


def print_fix(report: FixReport, console: Console, *, shown: int | None) -> None:
    """Print one file's changes, `shown` at most and SHOWN of each rule (all where it is None), and the summary."""
    printed = _print_changes(report, console, shown)
    if report.rules and sum(report.rules.values()) > printed:
        for code, count in report.rules.items():
            console.print(Text.assemble(f"  {count:,} ", (code, "bold"), f" {RULES[code].name}"), soft_wrap=True)
        if shown:
            console.print(Text("--max-findings 0 shows every one.", style="dim"), soft_wrap=True)
    lines = Text(f"{report.out}: {plural(report.lines, 'line')}, {report.changed:,} of them mended. ")
    left = [(report.left.errors, "error"), (report.left.warnings, "warning")]
    kinds = [Text(plural(count, kind), style=STYLES[kind]) for count, kind in left if count]
    if kinds:
        lines += Text("Left to a person: ") + Text(" and ").join(kinds) + Text(f" (ftbridge lint {report.out}).")
    else:
        lines += Text("Nothing is left to a person.", style="green")
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
