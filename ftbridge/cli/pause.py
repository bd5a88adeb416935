"""`ftbridge pause`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import find_run, run_argument
from ftbridge.errors import ProviderRefused
from ftbridge.runner import drive


@click.command(help=COMMANDS["pause"])
@run_argument
def command(run: str) -> None:
    """Save a checkpoint and stop."""
    found = find_run(run)
    drive.pause(found)
    state = drive.settled(found)
    refused = found.state().refused
    if state == "paused":
        click.echo(f"{found.id} is {state}.")
    elif refused is not None:
        raise ProviderRefused(
            f"{found.id} could not be paused, and its job goes on: {refused.reason}",
            hint=f"Follow it with: ftbridge watch {found.id}",
        )
    else:
        click.echo(f"{found.id} will be paused at its next step (now {state}).")
