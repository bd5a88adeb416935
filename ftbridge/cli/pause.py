"""`ftbridge pause`."""

from __future__ import annotations

import click

from ftbridge import bridge
from ftbridge.cli.options import find_run, run_argument


@click.command(help="Save a checkpoint and stop.")
@run_argument
def command(run: str) -> None:
    """Save a checkpoint and stop."""
    found = find_run(run)
    bridge.pause(found)
    state = bridge.settled(found)
    click.echo(
        f"{found.id} is {state}." if state == "paused" else f"{found.id} will be paused at its next step (now {state})."
    )
