"""`ftbridge migrate`: leaving a hosted service, one small file a step, loaded when it is called."""

from __future__ import annotations

import importlib

import click

from ftbridge.cli import COMMANDS as ALL

COMMANDS = {
    "inventory": "Find out what the account holds and when it stops.",
    "download": "Fetch files, events and stored completions.",
    "record": "Record a tuned model's completions while it is still available.",
    "retrain": "Train a replacement from the data of its jobs.",
    "prove": "Prove that the replacement is not worse.",
    "serve": "Serve the replacement under the old model's name.",
    "status": "Show what is saved and what is at risk, by deadline.",
}
"""Name and short help, in the order in which a migration takes them."""


class _Steps(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a migration."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command, or None for an unknown name."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ftbridge.cli.migrate.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The short helps, without importing."""
        with formatter.section("Steps"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Steps,
    help=ALL["migrate"],
)
def command() -> None:
    """Leave a hosted service."""
