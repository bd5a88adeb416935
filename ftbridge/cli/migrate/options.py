"""Options and output that the steps of a migration share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ftbridge.cli.options import verbosity

if TYPE_CHECKING:
    from rich.console import RenderableType

F = TypeVar("F", bound=Callable[..., Any])

migration_option = click.option(
    "--migration", "name", default="openai", show_default=True, metavar="NAME", help="Work on this migration."
)
keys_option = click.option(
    "--key-env",
    "keys",
    multiple=True,
    metavar="NAME",
    help="Take a project key from this environment variable; repeat it for each project. [default: OPENAI_API_KEY]",
)


class Progress:
    """What is being done, on standard error: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._quiet = verbosity() < 0
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._last = 0.0

    def __call__(self, text: str) -> None:
        """Show what is being done."""
        if self._quiet:
            return
        from ftbridge.report.terminal.console import printable

        text = printable(text)[:110]
        if self._terminal:
            sys.stderr.write("\r" + text.ljust(self._width))
            self._width = len(text)
        elif time.monotonic() - self._last > 5 or ":" not in text:
            sys.stderr.write(text + "\n")
            self._last = time.monotonic()
        sys.stderr.flush()

    def done(self) -> None:
        """Clear the line."""
        if self._terminal and not self._quiet and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0


def note(text: str) -> None:
    """One line on standard error, unless -q."""
    if verbosity() >= 0:
        click.echo(text, err=True)


def show(parts: Iterable[RenderableType]) -> None:
    """Print parts of a result, one below the other."""
    from rich.text import Text

    from ftbridge.report.terminal.console import SafeConsole

    console = SafeConsole(highlight=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
