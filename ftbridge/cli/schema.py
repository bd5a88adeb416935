"""`ftbridge schema`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import print_json
from ftbridge.spec import schemas


@click.command(help=COMMANDS["schema"])
@click.argument("name", type=click.Choice(list(schemas.NAMES)))
def command(name: str) -> None:
    """Print a JSON Schema, for editors and other programs."""
    print_json(schemas.schema(name))
