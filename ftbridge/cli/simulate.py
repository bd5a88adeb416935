"""`ftbridge simulate`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import click

from ftbridge.cli.options import print_json, talkative, verbosity
from ftbridge.cli.serve import Listening, listening, require_server, start
from ftbridge.errors import UsageError


@click.command(help="OpenAI's dialect with a scripted engine and faults on order.")
@click.option(
    "--faults",
    "scenario",
    type=click.Path(path_type=Path),
    help="A scenario in YAML or JSON; else a faultless service.",
)
@click.option(
    "--account",
    type=click.Path(path_type=Path),
    help="What an organization has: jobs, files, models, keys, limits, in YAML.",
)
@click.option("--replay", type=click.Path(path_type=Path), help="Answer from a run's recorded exchange.jsonl instead.")
@click.option("--seed", type=int, help="Draws chances and ids; the scenario's own unless given.")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="How fast jobs run; 1 is a few seconds each."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Beyond loopback, FTBRIDGE_SERVER_TOKEN must be set."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any that is free.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the state here; else it ends with the simulator.")
@listening
@click.option("--json", "as_json", is_flag=True, help="The address as one JSON document on stdout.")
@talkative
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
    from ftbridge.server.scripted.account import load_account
    from ftbridge.server.scripted.scenario import Scenario, load

    chosen = load(scenario) if scenario is not None else Scenario()
    changes: dict[str, Any] = {"seed": seed, "speed": speed}
    chosen = chosen.model_copy(update={key: value for key, value in changes.items() if value is not None})
    if account is not None:
        chosen = chosen.model_copy(update={"account": load_account(account)})
    count = len(chosen.faults)
    told = [f"{count} faults on order" if count else "no faults on order", "/simulator tells what happened"]
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftbridge-simulator-")))
        place.mkdir(parents=True, exist_ok=True)
        start(server.simulated(chosen, place.resolve()), host, port, place.resolve(), as_json, told, listening)


def _replay(path: Path, host: str, port: int, as_json: bool) -> None:
    """Play a recording until Ctrl-C. Loopback only: a recording asks for no key."""
    from ftbridge.server import network
    from ftbridge.server.replay import Exchange, replaying

    if not network.is_loopback(host):
        raise UsageError("a recording is played on loopback only.", hint="Leave --host out.")
    exchange = Exchange(path)
    bound = network.bind(host, port)
    address = network.address_of(bound)
    if as_json:
        print_json({"base_url": f"{address}/v1", "recording": str(path)})
    if verbosity() >= 0:
        click.echo(f"playing {exchange.requests} answers of {path} at {address}/v1; Ctrl-C stops", err=True)
    network.serve(replaying(exchange), bound)
