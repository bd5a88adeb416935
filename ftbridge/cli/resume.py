"""`ftbridge resume`."""

from __future__ import annotations

import click

from ftbridge import bridge
from ftbridge.cli.options import as_json, find_run, run_argument, talkative
from ftbridge.cli.run import finish


@click.command(help="Go on with a run that stopped.")
@run_argument
@as_json
@talkative
def command(run: str, as_json: bool) -> None:
    """Go on with a run that was paused, interrupted, cancelled, or failed, from its last checkpoint."""
    finish(find_run(run), as_json, bridge.resume)
