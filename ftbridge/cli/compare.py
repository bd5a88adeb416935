"""`ftbridge compare`."""

from __future__ import annotations

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import Command, as_json, find_run, output_format, verbosity, verbosity_options
from ftbridge.errors import GateNotMet
from ftbridge.evaluation.compare import compare
from ftbridge.report.formats.tables import SHAPES
from ftbridge.report.terminal.console import SafeConsole


@click.command("compare", cls=Command, help=COMMANDS["compare"])
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    help="Exit 4 if the second may be worse than the first by more than this (0.02 is 2 points).",
)
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="NAME",
    help="Compare this candidate of both runs [default: tuned]. Give it twice to name one for each run.",
)
@click.option("--intersect", is_flag=True, help="Compare only the test items that both runs have.")
@click.option(
    "--format", "shape", type=click.Choice(SHAPES), default="text", show_default=True, help="Set the output format."
)
@as_json
@verbosity_options
def command(
    first: str,
    second: str,
    margin: float | None,
    candidates: tuple[str, ...],
    intersect: bool,
    shape: str,
    as_json: bool,
) -> None:
    """Compare, print, and exit 4 when the margin of --margin is not met; a spec's margin only words the verdicts."""
    shape = output_format(shape, as_json, "shape")
    if len(candidates) > 2:
        raise click.BadParameter("give --candidate once for both runs, or twice to name one for each run.")
    named = (candidates[0], candidates[-1]) if candidates else ("tuned", "tuned")
    result = compare(find_run(first), find_run(second), margin=margin, candidates=named, common=intersect)
    from ftbridge.report.terminal import comparison

    if shape == "json":
        click.echo(result.model_dump_json(indent=2))
    elif shape == "text":
        SafeConsole(highlight=False).print(comparison.comparison_table(result, sentences=verbosity() > 0))
    else:
        shapes = {"csv": comparison.as_csv, "junit": comparison.as_junit, "markdown": comparison.as_markdown}
        click.echo(shapes[shape](result), nl=False)
    if lost := [name for name, paired in result.verdicts.items() if paired.verdict == "undetermined"]:
        raise GateNotMet(
            f"could not be determined, since too many items have no score: {', '.join(lost)}.",
            hint="`ftbridge eval SPEC -c run:FIRST -c run:SECOND` retries what failed.",
        )
    failed = [name for name, paired in result.verdicts.items() if paired.margin_met is False]
    if margin is not None and failed:
        raise GateNotMet(
            f"the margin of {margin:g} is not met on {', '.join(failed)}.",
            hint="More test items make the interval narrower; see the detectable difference.",
        )
