"""`ftbridge cancel`."""

from __future__ import annotations

import click

from ftbridge import bridge
from ftbridge.cli.options import find_run, run_argument


@click.command(help="End a run for good.")
@run_argument
def command(run: str) -> None:
    """End a run for good."""
    found = find_run(run)
    bridge.cancel(found)
    state = bridge.settled(found)
    click.echo(
        f"{found.id} is {state}."
        if state == "cancelled"
        else f"{found.id} will be cancelled at its next step (now {state})."
    )
