"""`ftbridge resume`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import Command, as_json, find_run, run_argument, verbosity_options
from ftbridge.cli.retry import retry
from ftbridge.cli.run import finish
from ftbridge.runner import control


@click.command("resume", cls=Command, help=COMMANDS["resume"])
@run_argument
@click.option(
    "--set", "overrides", multiple=True, metavar="budget.KEY=VALUE", help="Change the run's budget from now on."
)
@click.option("--ignore-target", is_flag=True, help="Train even if a baseline meets evaluation.target.")
@click.option(
    "--retry",
    "again",
    is_flag=True,
    help="Train again if the job failed or was cancelled at the service; this is billed again.",
)
@click.option(
    "--yes", is_flag=True, help="Create the job even if it might be created twice, and do not ask about the price."
)
@click.option(
    "--as-it-stands",
    is_flag=True,
    hidden=True,
    help="Continue without withdrawing a pause or cancel request (for background drivers).",
)
@as_json
@verbosity_options
def command(
    run: str, overrides: tuple[str, ...], ignore_target: bool, again: bool, yes: bool, as_it_stands: bool, as_json: bool
) -> None:
    """Go on with a run that was paused, interrupted, cancelled, or failed, from its last checkpoint."""
    stored_run = find_run(run)
    if overrides:
        control.change_budget(stored_run, overrides)
    if ignore_target:
        control.waive_target(stored_run)
    if yes:
        control.accept_doubt(stored_run)
    if again:
        retry(stored_run, yes=yes, as_json=as_json)
        return
    finish(stored_run, as_json, control.drive_on if as_it_stands else control.resume)
