"""`ftbridge cancel`."""

from __future__ import annotations

from collections.abc import Callable

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import find_run, run_argument
from ftbridge.errors import ProviderRefused, UsageError
from ftbridge.runner import control
from ftbridge.runs.run import TERMINAL, Run


@click.command(help=COMMANDS["cancel"])
@run_argument
def command(run: str) -> None:
    """End a run and its job, until somebody resumes it."""
    stop(find_run(run), control.cancel, "cancelled")


def stop(run: Run, ask: Callable[[Run], None], end: str) -> None:
    """Ask for a run to stop, wait for it, and print its outcome. `end` is the state that was asked for.

    Raises `ProviderRefused` where the service refuses, `UsageError` for a run that ended in another way first, and what
    `control` raises.
    """
    ask(run)
    state = control.settled(run)
    refused = run.state().refused
    if state == end:
        click.echo(f"{run.id} is {state}.")
    elif refused is not None:
        raise ProviderRefused(
            f"{run.id} could not be {end}, and its job goes on: {refused.reason}",
            hint=f"Follow it with: ftbridge watch {run.id}",
        )
    elif state in TERMINAL:
        raise UsageError(
            f"{run.id} is {state}: it ended before it could be {end}.", hint=f"See: ftbridge show {run.id}"
        )
    else:
        click.echo(f"{run.id} will be {end} at its next step (now {state}).")
