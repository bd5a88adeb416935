"""Options that commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from ftbridge.errors import UsageError

if TYPE_CHECKING:
    from ftbridge.runs.run import Run

RENAMED = {
    "compare": {"--common": "--intersect"},
    "convert": {"--skip-bad": "--skip-invalid"},
    "eval": {"--fresh": "--no-cache"},
    "resume": {"--anyway": "--ignore-target"},
    "run": {"--anyway": "--ignore-target"},
    "serve": {"--held": "--max-loaded-models"},
    "show": {"--lowering": "--mapping"},
}
"""Options that have a new name, by command. The former names are accepted in version 0.2 and gone in 0.3."""

F = TypeVar("F", bound=Callable[..., Any])
Format = TypeVar("Format", bound="str | None")
_verbosity = 0


class Command(click.Command):
    """A command that accepts the former names of its options, with a note on stderr."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse after replacing each former name, up to `--`."""
        renamed = RENAMED.get(self.name or "", {})
        end = args.index("--") if "--" in args else len(args)
        for index, arg in enumerate(args[:end]):
            name, equals, value = arg.partition("=")
            if name in renamed:
                click.echo(
                    f"note: {name} is now {renamed[name]}; the former name will be removed in version 0.3.", err=True
                )
                args[index] = renamed[name] + equals + value
        return super().parse_args(ctx, args)


def verbosity() -> int:
    """-1 with -q, 0, 1 with -v, 2 and more with -vv."""
    return _verbosity


def _remember(_ctx: click.Context, param: click.Parameter, value: Any) -> None:
    global _verbosity
    if value:
        _verbosity = -1 if param.name == "quiet" else int(value)
    if _verbosity > 0:
        _show_retries()


def _show_retries() -> None:
    """Print every retry over HTTP on stderr, one line each."""
    import logging

    log = logging.getLogger("ftbridge.http")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)


def verbosity_options(command: F) -> F:
    """-q and -v."""
    command = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_remember, help="Print results and errors only."
    )(command)
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_remember,
        help="Print more, such as retries; -vv adds tracebacks.",
    )(command)


def output_format(form: Format, as_json: bool, parameter: str) -> Format | Literal["json"]:
    """The format to print in. Raises `UsageError` where --json and a --format of the command line contradict each other."""
    if not as_json:
        return form
    source = click.get_current_context().get_parameter_source(parameter)
    if form != "json" and source is click.core.ParameterSource.COMMANDLINE:
        raise UsageError(f"--json and --format {form} contradict each other.", hint="Name one.")
    return "json"


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
run_argument = click.argument("run", metavar="RUN")


def pairs(_ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE` options as a mapping; a name ends at the first `=`. Raises `BadParameter`."""
    parts = [item.partition("=") for item in value]
    if bad := next((item for item, pair in zip(value, parts, strict=True) if not pair[0] or not pair[2]), None):
        raise click.BadParameter(f"{bad}: write {param.metavar}.")
    return {name: part for name, _, part in parts}


def find_run(name: str) -> Run:
    """The run with this id, unique prefix, folder, or `latest`."""
    from ftbridge import files
    from ftbridge.runs.store import find

    return find(files.home(), name)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
