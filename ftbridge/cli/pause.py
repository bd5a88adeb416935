"""`ftbridge pause`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.cancel import stop
from ftbridge.cli.options import find_run, run_argument
from ftbridge.runner import control


@click.command(help=COMMANDS["pause"])
@run_argument
def command(run: str) -> None:
    """Save a checkpoint and stop."""
    stop(find_run(run), control.pause, "paused")
