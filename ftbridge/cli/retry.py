"""`ftbridge retry`."""

from __future__ import annotations

import sys

import click

from ftbridge import providers
from ftbridge.cli import COMMANDS
from ftbridge.cli.options import as_json, find_run, run_argument, verbosity_options
from ftbridge.cli.run import ASK_ABOVE_USD, finish
from ftbridge.errors import UsageError
from ftbridge.runner import control
from ftbridge.runner.fallback import last_of
from ftbridge.runner.job import retry_usd
from ftbridge.runs.run import Run


@click.command(help=COMMANDS["retry"])
@run_argument
@click.option("--yes", is_flag=True, help=f"Do not ask before spending more than ${ASK_ABOVE_USD:g}.")
@as_json
@verbosity_options
def command(run: str, yes: bool, as_json: bool) -> None:
    """Train the same work again as a new job, and go on with it."""
    retry(find_run(run), yes=yes, as_json=as_json)


def retry(run: Run, *, yes: bool, as_json: bool) -> None:
    """Name what training again costs, ask where it is much, and go on. Raises `UsageError` for a run that succeeded."""
    if last_of(run).state().state == "succeeded":
        raise UsageError(
            f"{run.id} has succeeded, so there is nothing to train again.",
            hint="Start a new run with: ftbridge run SPEC --provider PROVIDER",
        )
    usd = retry_usd(run)
    if providers.is_hosted(run.state().provider, run.spec()):
        price = f"about ${usd:.2f}" if usd is not None else "an unknown price"
        click.echo(f"training again is billed again: {price}", err=True)
        if not yes and (usd is None or usd > ASK_ABOVE_USD):
            if not sys.stdin.isatty():
                raise UsageError(
                    f"retrying costs {price}, and there is no terminal to confirm that on.", hint="Say --yes."
                )
            click.confirm("Go on?", abort=True, err=True)
    finish(run, as_json, control.retry)
