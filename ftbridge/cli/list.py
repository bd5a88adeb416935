"""`ftbridge list`."""

from __future__ import annotations

import click

from ftbridge import files
from ftbridge.cli import COMMANDS
from ftbridge.cli.options import as_json, print_json
from ftbridge.report.terminal.console import SafeConsole
from ftbridge.runner import summary
from ftbridge.runs.store import runs


@click.command(help=COMMANDS["list"])
@as_json
def command(as_json: bool) -> None:
    """List runs, newest first."""
    all_runs = runs(files.home())
    if as_json:
        print_json([summary.brief(run) for run in all_runs])
        return
    from ftbridge.report.terminal.runs import runs_table

    if all_runs:
        SafeConsole(highlight=False).print(runs_table([run.state() for run in all_runs]))
    else:
        click.echo(f"No runs in {files.home()}. Start one with: ftbridge run SPEC --provider local", err=True)
