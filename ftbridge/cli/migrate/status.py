"""`ftbridge migrate status`."""

from __future__ import annotations

import click

from ftbridge.cli.migrate.options import migration_option, show
from ftbridge.cli.options import as_json, print_json, verbosity_options
from ftbridge.migrate.status import NEAR_DAYS


@click.command(
    help="Show what is saved and what is at risk, the nearest deadline first. Exits with 4 when something in use is "
    "unsaved and its deadline is near. Needs no key and sends nothing, so a daily cron job can run it."
)
@migration_option
@click.option(
    "--within",
    type=click.IntRange(0),
    default=NEAR_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Treat deadlines within this many days as near.",
)
@as_json
@verbosity_options
def command(name: str, within: int, as_json: bool) -> int:
    """Show the status."""
    from ftbridge.migrate.folder import Migration
    from ftbridge.migrate.status import status
    from ftbridge.migrate.tables import status_parts

    migration_status = status(Migration.open(name), near_days=within)
    if as_json:
        print_json(migration_status.model_dump(mode="json"))
    else:
        show(status_parts(migration_status))
    for asset in migration_status.urgent:
        click.echo(f"at risk: {asset.what} of {asset.model} ({asset.detail}): {asset.command}", err=True)
    return 0 if migration_status.ok else 4
