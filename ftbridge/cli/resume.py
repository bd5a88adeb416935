"""`ftbridge resume`."""

from __future__ import annotations

import click

from ftbridge import bridge
from ftbridge.cli.options import as_json, find_run, run_argument, talkative
from ftbridge.cli.retry import retry
from ftbridge.cli.run import finish


@click.command(help="Go on with a run that stopped.")
@run_argument
@click.option("--set", "overrides", multiple=True, metavar="budget.KEY=VALUE", help="Change the budget, for good.")
@click.option("--anyway", is_flag=True, help="Train although a baseline meets evaluation.target.")
@click.option("--retry", "again", is_flag=True, help="Pay again for a job that failed or was cancelled at the service.")
@click.option(
    "--yes", is_flag=True, help="Create the job where exactly once cannot be promised; do not ask about the price."
)
@click.option("--as-it-stands", is_flag=True, hidden=True, help="For drivers in the background: take no request back.")
@as_json
@talkative
def command(
    run: str, overrides: tuple[str, ...], anyway: bool, again: bool, yes: bool, as_it_stands: bool, as_json: bool
) -> None:
    """Go on with a run that was paused, interrupted, cancelled, or failed, from its last checkpoint."""
    found = find_run(run)
    if overrides:
        bridge.change_budget(found, overrides)
    if anyway:
        bridge.waive_target(found)
    if yes:
        bridge.accept_doubt(found)
    if again:
        retry(found, yes=yes, as_json=as_json)
        return
    finish(found, as_json, bridge.drive_on if as_it_stands else bridge.resume)
