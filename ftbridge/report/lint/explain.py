"""One rule explained, and all rules as a table: on the terminal and in the documentation."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ftbridge.data.rules import RULES, Rule
from ftbridge.data.rules.targets import TARGETS
from ftbridge.report.lint.text import STYLES

GROUPS = (
    ("FTB00", "The file"), ("FTB01", "Lines as JSON"), ("FTB02", "Examples and messages"),
    ("FTB03", "Examples and messages"), ("FTB04", "Examples and messages"), ("FTB05", "Tools and calls"),
    ("FTB06", "Tools and calls"), ("FTB07", "Images"), ("FTB08", "Preference data"),
    ("FTB09", "Reinforcement data and graders"), ("FTB1", "Texts"), ("FTB2", "Tokens and counts"), ("FTB3", "Quality"),
    ("FTB4", "Safety"),
)  # fmt: skip


def explain(rule: Rule, console: Console) -> None:
    """Print everything known of a rule."""
    console.print(Text.assemble((rule.code, "bold"), " ", (rule.name, "bold"), "  ", (severities(rule), "dim")))
    console.print(Text(rule.summary))
    console.print()
    for head, text in (("Why", rule.reason), ("Source", rule.source), ("Methods", ", ".join(rule.methods))):
        console.print(Text.assemble((f"{head}: ", "bold"), text))
    console.print()
    for head, text, style in (("Bad", rule.bad, STYLES["error"]), ("Good", rule.good, "green")):
        console.print(Text(f"{head}:", style=style))
        console.print(Padding(Text(text, overflow="fold"), (0, 0, 0, 4)))
    console.print()
    console.print(Text("Fixed by --fix." if rule.fixable else "Not fixed by --fix: a person must decide.", style="dim"))


def rule_list(rules: Iterable[Rule], console: Console) -> None:
    """Print one line for each rule."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for rule in rules:
        fix = Text("fix", style="green") if rule.fixable else Text("")
        table.add_row(rule.code, Text(rule.severity, style=STYLES[rule.severity]), rule.name, rule.summary, fix)
    console.print(table)


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
        groups.setdefault(title, []).append(f"[{code[3:]}](docs/rules.md#{code.lower()}-{rule.name}) {name}")
    rows = ["| about | rules (FTB…) |", "|---|---|"]
    return "\n".join([*rows, *(f"| {title} | {' · '.join(named)} |" for title, named in groups.items())])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
