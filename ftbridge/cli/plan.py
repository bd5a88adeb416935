"""`ftbridge plan`."""

from __future__ import annotations

from pathlib import Path

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import as_json, verbosity_options
from ftbridge.errors import GateNotMet, LoweringRefused
from ftbridge.planning.money import cannot_run
from ftbridge.planning.plan import Plan, plan
from ftbridge.prices import load_prices
from ftbridge.spec import SpecFile
from ftbridge.spec.lowering import allow_options


@click.command(help=COMMANDS["plan"])
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a spec field.")
@click.option(
    "--prices", type=click.Path(path_type=Path), help="Extend the price list with this file [default: FTBRIDGE_PRICES]."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Read the local model's config.json from here, if the model is not on this machine.",
)
@click.option(
    "--gpu-usd-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    help="Set the price of a GPU hour, in US dollars.",
)
@click.option(
    "--probe", "measure", is_flag=True, help="Measure the training speed here in a few steps; saved for later plans."
)
@click.option("--fields", is_flag=True, help="Print the field mapping of both providers.")
@as_json
@verbosity_options
def command(
    spec: Path,
    overrides: tuple[str, ...],
    prices: Path | None,
    config: Path | None,
    gpu_usd_per_hour: float | None,
    measure: bool,
    fields: bool,
    as_json: bool,
) -> None:
    """Reckon, print, and exit 2 when a side refuses the spec, 4 when its budget or the model's life cannot be kept."""
    spec_file = SpecFile.of(spec, overrides)
    if measure:
        from ftbridge.cli.progress import TerminalWatcher
        from ftbridge.runner.probe import probe

        with TerminalWatcher() as watcher:
            probe(spec_file, watcher)
    result = plan(spec_file, prices=load_prices(prices), config=config, gpu_usd_per_hour=gpu_usd_per_hour)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        from ftbridge.report.terminal.console import SafeConsole
        from ftbridge.report.terminal.plan import plan_view

        SafeConsole(highlight=False).print(plan_view(result, fields=fields))
    if any(gate.refused for gate in result.gates):
        raise LoweringRefused(_messages(result), hint=_how_to_go_on(result))
    if not result.ok:
        raise GateNotMet(_messages(result), hint="Raise the limit, or ask for less.")


def _messages(result: Plan) -> str:
    return " ".join(gate.message for gate in result.gates)


def _how_to_go_on(result: Plan) -> str:
    """What to do about fields that a side refuses, each of which may be one that a run can be allowed to go without."""
    refused = [report for side in result.lowering.values() for report in side.refused]
    if cannot_run(refused):
        return "Change the spec, or leave out the model of the side that refuses it."
    return f"Change the spec, or run without those fields: ftbridge run SPEC {allow_options(refused)}"
