"""`ftbridge worker`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import find_run, run_argument
from ftbridge.errors import UsageError


@click.command(help=COMMANDS["worker"])
@run_argument
@click.option(
    "--rdzv",
    metavar="HOST:PORT",
    help="Meet the other machines of the job at this address, HOST:PORT. Not needed on one machine.",
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, help="Wait for this many machines.", show_default=True)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Start this many workers here. One for each GPU by default."
)
def command(run: str, rdzv: str | None, nodes: int, workers: int | None) -> int:
    """Train a submitted job in this process, on this machine or on several."""
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.launch import Rendezvous
    from ftbridge.providers.local.process.worker import main

    stored_run = find_run(run)
    job = Job(stored_run.path)
    if not job.submitted:
        raise UsageError(
            f"{stored_run.id} has no job that a worker could train.",
            hint="Start it with: ftbridge run SPEC --provider local --detach",
        )
    if rdzv is None and nodes > 1:
        raise UsageError(
            "--nodes needs --rdzv, the address at which the machines meet.", hint="For example: --rdzv node1:29400"
        )
    if not job.alive():
        job.clear_control()
    if rdzv is None:
        return main(stored_run.path, None if workers is None else Rendezvous("localhost", 0, 1, workers))
    return main(stored_run.path, Rendezvous.parse(rdzv, nodes, workers))
