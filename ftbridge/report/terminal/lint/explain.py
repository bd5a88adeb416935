"""One rule explained, and all rules as a table: on the terminal and in the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftbridge.data.lint import shape
from ftbridge.data.lint.block import Checker, LintPlan, document_of
from ftbridge.data.lint.dataset import Found
from ftbridge.data.lint.locate import Place, locate
from ftbridge.data.lint.rule import Context
from ftbridge.data.lint.rules import RULES, Rule
from ftbridge.data.targets import TARGETS
from ftbridge.report.terminal.lint.text import STYLES, is_plain, print_trimmed

GROUPS = (
    ("FTB00", "The file"), ("FTB01", "Lines as JSON"), ("FTB02", "Examples and messages"),
    ("FTB03", "Examples and messages"), ("FTB04", "Examples and messages"), ("FTB05", "Tools and calls"),
    ("FTB06", "Tools and calls"), ("FTB07", "Images"), ("FTB08", "Preference data"),
    ("FTB09", "Reinforcement data and graders"), ("FTB1", "Texts"), ("FTB2", "Tokens and counts"), ("FTB3", "Quality"),
    ("FTB4", "Safety"),
)  # fmt: skip

_WIDEST = 100


def explain(rule: Rule, console: Console) -> None:
    """Print everything known of a rule."""
    width = min(console.width, _WIDEST)
    example_findings = _found(rule)
    fix = "yes, by --fix OUT" if rule.fixable else "no: you have to decide"
    console.print(Text.assemble((rule.code, "bold"), " ", (rule.name, "bold")))
    _wrapped(rule.summary, console, width)
    console.print()
    _part("Severity", Text(severities(rule), style=STYLES[rule.severity]), console, width)
    _part("Methods", Text(", ".join(rule.methods)), console, width)
    _part("Fixed", Text(fix), console, width)
    _part("Why", Text(rule.reason), console, width)
    _part("Source", Text(rule.source), console, width)
    console.print()
    _line(
        "Bad",
        STYLES["error"],
        rule.bad,
        locate(rule.bad, example_findings.field, example_findings.span) if example_findings else None,
        console,
        width,
    )
    if example_findings:
        _wrapped(f"{example_findings.field} ".lstrip() + example_findings.message, console, width, indent=2)
    console.print()
    _line("Good", "bold green", rule.good, None, console, width)


def _part(head: str, text: Text, console: Console, width: int) -> None:
    for index, line in enumerate(text.wrap(console, max(20, width - 10))):
        line.rstrip()
        console.print(Text.assemble((f"{head if index == 0 else '':<10}", "bold"), line), soft_wrap=True)


def _wrapped(text: str, console: Console, width: int, indent: int = 0) -> None:
    for line in Text(text).wrap(console, width - indent):
        line.rstrip()
        console.print(Text(" " * indent) + line, soft_wrap=True)


def _line(head: str, style: str, text: str, located: Place | None, console: Console, width: int) -> None:
    """A line of a file, whole, with its piece underlined; or a file, described."""
    console.print(Text(head, style=style))
    if not text.startswith(("{", "[")):
        _wrapped(text, console, width, indent=2)
        return
    start, end = (located.start, located.end if located.exact else located.start + 1) if located else (0, 0)
    for first, last in _folds(text, width - 2):
        console.print(Text(f"  {text[first:last]}"), soft_wrap=True)
        if located and first < end and start < last:
            before = cell_len(text[first : max(first, start)])
            marks = cell_len(text[max(first, start) : min(last, end)])
            console.print(Text(f"  {' ' * before}{('^' if is_plain(console) else '‾') * marks}", style=style))


def _folds(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Stretches of at most `width` cells."""
    first = cells = 0
    for index, character in enumerate(text):
        if cells + cell_len(character) > width:
            yield first, index
            first, cells = index, 0
        cells += cell_len(character)
    yield first, len(text)


def _found(rule: Rule) -> Found | None:
    """What the rule says of its bad line; None for rules about whole files, whose bad example is a description."""
    if rule.kind not in ("json", "line", "text"):
        return None
    line_method = shape.method_of([shape.kind_of_line(document_of(rule.bad.encode()))])
    method = line_method if line_method in rule.methods else rule.methods[0]
    for target in TARGETS.values():
        plan = LintPlan(Context(target, method), (rule.code,), rows=False, count=False, compare=False, sketch=False)
        if findings := Checker(plan).check(rule.bad.encode(), first=True, last=True).findings:
            return findings[0]
    return None


def rule_list(rules: Iterable[Rule], console: Console) -> None:
    """Print one line for each rule."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for rule in rules:
        fix = Text("fix", style="green") if rule.fixable else Text("")
        table.add_row(rule.code, Text(rule.severity, style=STYLES[rule.severity]), rule.name, rule.summary, fix)
    print_trimmed(table, console)


def severities(rule: Rule) -> str:
    """The severity, and the targets that differ: "error (local: info, nebius: off)"."""
    other = [
        f"{name}: {rule.severity_for(name) or 'off'}" for name in TARGETS if rule.severity_for(name) != rule.severity
    ]
    return f"{rule.severity} ({', '.join(other)})" if other else rule.severity


def rules_page() -> str:
    """Every rule in Markdown: a section for each, grouped by what it looks at."""
    parts: list[str] = []
    last = ""
    for code in sorted(RULES):
        rule = RULES[code]
        title = next(title for start, title in GROUPS if code.startswith(start))
        if title != last:
            parts.append(f"## {title}")
            last = title
        fix = "Fixed by `--fix`." if rule.fixable else "Not fixed by `--fix`."
        parts.append(
            f"### {rule.code} {rule.name}\n\n{rule.summary} *{severities(rule)}*\n\n{rule.reason}\n\n"
            f"Source: {rule.source}. {fix}\n\nBad:\n\n{_indented(rule.bad)}\n\nGood:\n\n{_indented(rule.good)}"
        )
    return "\n\n".join(parts)


def rules_table() -> str:
    """Every rule in Markdown, one row for each group; advice in italics."""
    groups: dict[str, list[str]] = {}
    for code in sorted(RULES):
        title = next(title for start, title in GROUPS if code.startswith(start))
        rule = RULES[code]
        name = f"*{rule.name}*" if rule.severity == "info" else rule.name
        groups.setdefault(title, []).append(f"[{code[3:]}](rules.md#{code.lower()}-{rule.name}) {name}")
    rows = ["| about | rules (FTB…) |", "|---|---|"]
    return "\n".join([*rows, *(f"| {title} | {' · '.join(named)} |" for title, named in groups.items())])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
