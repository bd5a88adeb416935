"""`ftbridge chat`."""

from __future__ import annotations

import sys

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import find_run, run_argument, verbosity, verbosity_options
from ftbridge.runner.chat import ChatSession, open_chat


@click.command(help=COMMANDS["chat"])
@run_argument
@click.option("--base", is_flag=True, help="Talk to the base model instead of the tuned one.")
@click.option("--system", metavar="TEXT", help="Set a system message.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Stop a completion after this many tokens.",
)
@verbosity_options
def command(run: str, base: bool, system: str | None, max_tokens: int) -> None:
    """Line by line at a terminal; what comes through a pipe is one message."""
    with open_chat(find_run(run), base=base, system=system, max_tokens=max_tokens) as session:
        if not sys.stdin.isatty():
            _show(session.say(sys.stdin.read().strip()))
            return
        if verbosity() >= 0:
            click.echo(
                "An empty line or Ctrl-D ends the chat. The first reply takes longer, because the model has to load.",
                err=True,
            )
        _converse(session)


def _converse(session: ChatSession) -> None:
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            click.echo()
            return
        if not line:
            return
        _show(session.say(line))


def _show(text: str) -> None:
    """Print a completion: as it is into a pipe, without control sequences on a terminal."""
    from ftbridge.report.terminal.console import printable

    click.echo(printable(text) if sys.stdout.isatty() else text)
