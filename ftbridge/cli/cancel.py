"""`ftbridge cancel`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import find_run, run_argument
from ftbridge.errors import ProviderRefused
from ftbridge.runner import control


@click.command(help=COMMANDS["cancel"])
@run_argument
def command(run: str) -> None:
    """End a run for good."""
    stored_run = find_run(run)
    control.cancel(stored_run)
    state = control.settled(stored_run)
    refused = stored_run.state().refused
    if state == "cancelled":
        click.echo(f"{stored_run.id} is {state}.")
    elif refused is not None:
        raise ProviderRefused(
            f"{stored_run.id} could not be cancelled, and its job goes on: {refused.reason}",
            hint=f"Follow it with: ftbridge watch {stored_run.id}",
        )
    else:
        click.echo(f"{stored_run.id} will be cancelled at its next step (now {state}).")
