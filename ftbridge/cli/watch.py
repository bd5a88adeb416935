"""`ftbridge watch`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import as_json, find_run, run_argument, verbosity_options
from ftbridge.cli.run import finish
from ftbridge.runner import control


@click.command(help=COMMANDS["watch"])
@run_argument
@as_json
@verbosity_options
def command(run: str, as_json: bool) -> None:
    """Follow a run to its end; Ctrl-C stops watching, not the run."""
    finish(find_run(run), as_json, control.watch)
