"""`ftbridge resume`."""

from __future__ import annotations

import click

from ftbridge import bridge
from ftbridge.cli.options import as_json, find_run, run_argument, talkative
from ftbridge.cli.run import finish


@click.command(help="Go on with a run that stopped.")
@run_argument
@click.option("--set", "overrides", multiple=True, metavar="budget.KEY=VALUE", help="Change the budget, for good.")
@click.option("--anyway", is_flag=True, help="Train although a baseline meets evaluation.target.")
@as_json
@talkative
def command(run: str, overrides: tuple[str, ...], anyway: bool, as_json: bool) -> None:
    """Go on with a run that was paused, interrupted, cancelled, or failed, from its last checkpoint."""
    found = find_run(run)
    if overrides:
        bridge.change_budget(found, overrides)
    if anyway:
        bridge.waive_target(found)
    finish(found, as_json, bridge.resume)
