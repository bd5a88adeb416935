"""`ftbridge doctor`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import as_json, print_json, verbosity_options
from ftbridge.planning.doctor import examine


@click.command(help=COMMANDS["doctor"])
@as_json
@verbosity_options
def command(as_json: bool) -> None:
    """Print what was examined; sends nothing."""
    findings = examine()
    if as_json:
        print_json({"version": 2, "findings": [finding.model_dump() for finding in findings]})
        return
    from rich.table import Table
    from rich.text import Text

    from ftbridge.report.terminal.console import SafeConsole

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for style in ("", "bold", ""):
        table.add_column(style=style, overflow="fold")
    marks = {
        "ok": Text("ok", style="green"),
        "missing": Text("missing", style="red"),
        "warning": Text("note", style="yellow"),
    }
    for finding in findings:
        text = Text(finding.message)
        if finding.fix:
            text.append(f"\n{finding.fix}", style="cyan")
        table.add_row(marks[finding.state], finding.name, text)
    SafeConsole(highlight=False).print(table)
