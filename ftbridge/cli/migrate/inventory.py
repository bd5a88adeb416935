"""`ftbridge migrate inventory`."""

from __future__ import annotations

from pathlib import Path

import click

from ftbridge.cli.migrate.options import Progress, keys_option, migration_option, note, show
from ftbridge.cli.options import as_json, print_json, verbosity_options
from ftbridge.migrate.cost import ITEMS


@click.command(
    help="Find out what the account holds: tuned models by use, days left, files, checkpoints, features, and what "
    "recording each model costs. Only reads; costs nothing. OPENAI_ADMIN_KEY adds use, projects and limits."
)
@migration_option
@keys_option
@click.option(
    "--base-url", metavar="URL", help="Read this service instead of OpenAI, such as a gateway or a simulator."
)
@click.option("--refresh", is_flag=True, help="Read everything again.")
@click.option(
    "--items", type=click.IntRange(1), default=ITEMS, show_default=True, help="Estimate a recording of this many items."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write the page to this file.")
@as_json
@verbosity_options
def command(
    name: str, keys: tuple[str, ...], base_url: str | None, refresh: bool, items: int, html: Path | None, as_json: bool
) -> None:
    """Take the inventory."""
    from ftbridge import files
    from ftbridge.migrate.folder import Migration
    from ftbridge.migrate.inventory import take_inventory
    from ftbridge.migrate.page import write_page
    from ftbridge.migrate.summary import summarize
    from ftbridge.migrate.tables import inventory_parts
    from ftbridge.prices import load_prices

    prices = load_prices()
    migration = Migration.open(name, create=True)
    note("reading the account: free; takes about a second for every three lists, minutes for a large account")
    progress = Progress()
    try:
        inventory = take_inventory(migration, keys, base_url=base_url, fresh=refresh, tell=progress)
    finally:
        progress.done()
    summary = summarize(inventory, prices, str(migration.path), items=items)
    files.write_json(migration.path / "inventory.json", summary.model_dump(mode="json"))
    page = write_page(summary, migration.path / "inventory.html")
    if html is not None:
        write_page(summary, html)
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    show(inventory_parts(summary))
    note(f"\npage      {page}")
    if summary.models:
        note("next      ftbridge migrate download" + (f" --migration {name}" if name != "openai" else ""))
