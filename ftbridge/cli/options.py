"""Options that commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ftbridge.runs.run import Run

F = TypeVar("F", bound=Callable[..., Any])
_verbosity = 0


def verbosity() -> int:
    """-1 with -q, 0, 1 with -v, 2 and more with -vv."""
    return _verbosity


def _remember(_ctx: click.Context, param: click.Parameter, value: Any) -> None:
    global _verbosity
    if value:
        _verbosity = -1 if param.name == "quiet" else int(value)


def talkative(command: F) -> F:
    """-q and -v."""
    command = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_remember, help="Results and errors only."
    )(command)
    return click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=_remember, help="More; -vv adds tracebacks."
    )(command)


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
run_argument = click.argument("run", metavar="RUN")


def find_run(name: str) -> Run:
    """The run with this id, unique prefix, folder, or `latest`."""
    from ftbridge import files
    from ftbridge.runs.store import find

    return find(files.home(), name)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
