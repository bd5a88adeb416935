"""`ftbridge migrate download`."""

from __future__ import annotations

import click

from ftbridge.cli.migrate.options import Progress, keys_option, migration_option, note, show
from ftbridge.cli.options import as_json, print_json, verbosity_options
from ftbridge.migrate.download import NEWEST


@click.command(
    help="Fetch training, validation and result files, events and checkpoints, each once, with its SHA-256; lint the "
    "data; report what is gone and what can replace it. Costs nothing. Exits with 1 if a file could not be "
    "downloaded."
)
@migration_option
@keys_option
@click.option("--stored", is_flag=True, help="Fetch stored completions and their inputs: one request each.")
@click.option(
    "--newest",
    type=click.IntRange(1),
    default=NEWEST,
    show_default=True,
    help="Fetch this many for each model, newest first.",
)
@click.option(
    "--all", "everything", is_flag=True, help="Also fetch fine-tuning files that no tuned model was trained on."
)
@as_json
@verbosity_options
def command(name: str, keys: tuple[str, ...], stored: bool, newest: int, everything: bool, as_json: bool) -> int:
    """Download."""
    from ftbridge.migrate.download import download, forecast
    from ftbridge.migrate.folder import Migration
    from ftbridge.migrate.summary import hours_text
    from ftbridge.migrate.tables import download_parts

    migration = Migration.open(name)
    ahead = forecast(migration, stored=stored, newest=newest, everything=everything)
    size = f"{ahead.bytes / 1e6:,.1f} MB"
    note(f"{ahead.files} files, {size}, {ahead.requests:,} requests: free, about {hours_text(ahead.seconds / 3600)}")
    progress = Progress()
    try:
        manifest = download(migration, keys, stored=stored, newest=newest, everything=everything, tell=progress)
    finally:
        progress.done()
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        show(download_parts(manifest))
    return 0 if manifest.ok else 1
