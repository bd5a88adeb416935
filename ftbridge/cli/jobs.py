"""`ftbridge jobs`: what an account has at its service."""

from __future__ import annotations

import click
from rich.console import Console

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import as_json, find_run, print_json
from ftbridge.errors import ProviderRefused, ServiceUnavailable, UsageError
from ftbridge.providers.base import TERMINAL
from ftbridge.runner import control

_LOOKED_THROUGH = 200
"""Newest jobs of an account among which one that cannot be cancelled is looked for."""


@click.group(invoke_without_command=True, help=COMMANDS["jobs"])
@click.option(
    "--target", default="openai", type=click.Choice(["openai", "azure", "nebius", "custom"]), help="Set the service."
)
@click.option("--base-url", help="Set the service's address, if it is not the default.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="List at most this many jobs.")
@as_json
@click.pass_context
def command(context: click.Context, target: str, base_url: str | None, limit: int, as_json: bool) -> None:
    """List the jobs of an account, with the runs that they belong to."""
    from ftbridge.providers.openai import account

    opened = account.HostedAccount.at(target, base_url)
    context.obj = opened
    if context.invoked_subcommand is not None:
        return
    jobs = opened.jobs(limit)
    if as_json:
        print_json([job.model_dump(mode="json") for job in jobs])
        return
    from ftbridge.report.terminal.runs import jobs_table

    if jobs:
        Console(highlight=False).print(jobs_table(jobs))
    else:
        click.echo(f"{opened.service} lists no jobs for this key.", err=True)


@command.command("adopt", help="Record JOB as the job of RUN, when it is unknown whether RUN created a job.")
@click.argument("job", metavar="JOB")
@click.argument("run", metavar="RUN")
def adopt(job: str, run: str) -> None:
    """Take a job of the account as a run's own."""
    stored_run = find_run(run)
    handle = control.adopt(stored_run, job)
    click.echo(f"{stored_run.id} has the job {handle.id}. Follow it with: ftbridge resume {stored_run.id}")


@command.command("cancel", help="Cancel JOB at the service, whoever created it.")
@click.argument("job", metavar="JOB")
@click.pass_obj
def cancel(account: object, job: str) -> None:
    """Cancel a job at the service."""
    from ftbridge.providers.openai.account import HostedAccount

    assert isinstance(account, HostedAccount)
    try:
        state = account.cancel(job)
    except ProviderRefused:
        ended = next((one.state for one in account.jobs(_LOOKED_THROUGH) if one.id == job), None)
        if ended not in TERMINAL:
            raise
        verb = "is" if ended == "cancelled" else "has"
        raise UsageError(f"{job} {verb} {ended} already, so there is nothing to cancel.") from None
    click.echo(f"{job} is {state}." if state == "cancelled" else f"{job} was asked to be cancelled (now {state}).")


@command.command("probe", help="Find out what the service supports. Creates nothing and costs nothing.")
@as_json
@click.pass_obj
def probe(account: object, as_json: bool) -> None:
    """What each part of the service's interface answers. Raises `ServiceUnavailable` where none of them does."""
    from ftbridge.providers.openai.account import HostedAccount

    assert isinstance(account, HostedAccount)
    results = account.probe()
    if as_json:
        print_json(results)
    else:
        for name, reply in results.items():
            click.echo(f"{name:<32}{reply}")
    if all(reply.startswith("not known") for name, reply in results.items() if name != "service"):
        raise ServiceUnavailable(
            f"{account.service} answers nothing, so what it supports is not known.",
            hint="Check the network, --target and --base-url.",
        )
