"""`ftbridge simulate`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import print_json, verbosity, verbosity_options
from ftbridge.cli.serve import Listening, listening, require_server, start
from ftbridge.errors import UsageError


@click.command(help=COMMANDS["simulate"])
@click.option(
    "--faults",
    "scenario",
    type=click.Path(path_type=Path),
    help="Inject the faults of this scenario (YAML or JSON). None by default.",
)
@click.option(
    "--account",
    type=click.Path(path_type=Path),
    help="Set what the account has: jobs, files, models, keys and limits (YAML). Empty by default.",
)
@click.option("--replay", type=click.Path(path_type=Path), help="Replay a run's recorded exchange.jsonl instead.")
@click.option("--seed", type=int, help="Set the random seed [default: the scenario's].")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Set how fast jobs run; at 1 each takes a few seconds."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Keep the state in this folder. By default it is lost when the server stops.",
)
@listening
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON document on stdout.")
@verbosity_options
def command(
    scenario: Path | None,
    account: Path | None,
    replay: Path | None,
    seed: int | None,
    speed: float | None,
    host: str,
    port: int,
    folder: Path | None,
    as_json: bool,
    listening: Listening,
) -> None:
    """Simulate until Ctrl-C."""
    require_server()
    if replay is not None:
        _replay(replay, host, port, as_json)
        return
    from ftbridge import server
    from ftbridge.server.http import network
    from ftbridge.server.simulator.account import load_account
    from ftbridge.server.simulator.scenario import Scenario, load

    chosen = load(scenario) if scenario is not None else Scenario()
    changes: dict[str, Any] = {"seed": seed, "speed": speed}
    chosen = chosen.model_copy(update={key: value for key, value in changes.items() if value is not None})
    if account is not None:
        chosen = chosen.model_copy(update={"account": load_account(account)})
    count = len(chosen.faults)
    summary = [f"{count} injected faults" if count else "no injected faults", "/simulator shows what happened"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(network.ended_by_sigterm())
        directory = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftbridge-simulator-")))
        directory = directory.resolve()
        start(server.simulated(chosen, directory), host, port, directory, as_json, summary, listening)


def _replay(path: Path, host: str, port: int, as_json: bool) -> None:
    """Play a recording until Ctrl-C. Loopback only: a recording asks for no key."""
    from ftbridge.server.http import network
    from ftbridge.server.simulator.replay import Exchange, replaying

    if not network.is_loopback(host):
        raise UsageError("a recording is replayed on the loopback address only.", hint="Leave --host out.")
    exchange = Exchange(path)
    bound = network.bind(host, port)
    address = network.address_of(bound)
    if as_json:
        print_json({"base_url": f"{address}/v1", "recording": str(path)})
    if verbosity() >= 0:
        click.echo(f"playing {exchange.requests} answers of {path} at {address}/v1; Ctrl-C stops", err=True)
    network.serve(replaying(exchange), bound)
