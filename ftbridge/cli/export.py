"""`ftbridge export`."""

from __future__ import annotations

from pathlib import Path

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import find_run, run_argument, verbosity, verbosity_options
from ftbridge.errors import UsageError
from ftbridge.runner.export import export_adapter, export_merged


@click.command(help=COMMANDS["export"])
@run_argument
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the adapter, in peft's format, to a new folder.",
)
@click.option(
    "--merged", type=click.Path(path_type=Path), metavar="DIR", help="Write base and adapter as one model in 16 bits."
)
@verbosity_options
def command(run: str, adapter: Path | None, merged: Path | None) -> None:
    """Write what is asked for; both may be."""
    if adapter is None and merged is None:
        raise UsageError("choose what to write: --adapter DIR or --merged DIR.")
    stored_run = find_run(run)
    if adapter is not None:
        click.echo(str(export_adapter(stored_run, adapter)))
    if merged is not None:
        tell = (lambda text: click.echo(text, err=True)) if verbosity() >= 0 else (lambda text: None)
        click.echo(str(export_merged(stored_run, merged, tell)))
