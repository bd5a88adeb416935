"""`ftbridge report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
from rich.console import Group, RenderableType

from ftbridge.cli import COMMANDS
from ftbridge.cli.evaluation_output import write
from ftbridge.cli.options import as_json, find_run, print_json, verbosity, verbosity_options
from ftbridge.errors import UsageError
from ftbridge.report.formats.tables import SHAPES, Shape

if TYPE_CHECKING:
    from ftbridge.runs.run import Run


@click.command(help=COMMANDS["report"])
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to this file [default: report.html in the run folder; other formats: stdout].",
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["html", *SHAPES]),
    default="html",
    show_default=True,
    help="Set the output format; formats other than html take one run.",
)
@as_json
@verbosity_options
def command(runs: tuple[str, ...], out: Path | None, shape: str, as_json: bool) -> None:
    """Write the page and print where it is; other formats are printed."""
    if as_json and shape not in ("html", "json"):
        raise UsageError(f"--json and --format {shape} contradict each other.", hint="Name one.")
    stored_runs = [find_run(name) for name in runs]
    if shape != "html":
        _print(stored_runs, cast(Shape, shape), out)
        return
    from ftbridge.report.html import write_report

    path = write_report(stored_runs, out)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(path)


def _print(runs: Sequence[Run], shape: Shape, out: Path | None) -> None:
    """The evaluation of one run. Raises `UsageError` for several, or one without an evaluation."""
    if len(runs) != 1:
        raise UsageError(
            f"--format {shape} takes one run.", hint="For two runs, `ftbridge compare` writes the same formats."
        )
    from ftbridge.evaluation.results import read_evaluation
    from ftbridge.report.html.contents import contents_of
    from ftbridge.report.terminal.comparison import changed
    from ftbridge.report.terminal.tables import answered_table, compared_table, evaluation_table

    evaluation = read_evaluation(runs[0])
    if evaluation is None:
        state = runs[0].state()
        raise UsageError(
            f"{runs[0].id} has no evaluation; it is {state.state}.",
            hint="An evaluation needs data.test and a finished run.",
        )

    def text() -> RenderableType:
        contents = contents_of(runs)
        planned = compared_table([one for part in contents.measured for one in part.compared])
        return Group(
            evaluation_table(evaluation, sentences=verbosity() > 0),
            "",
            answered_table(evaluation),
            *planned,
            *changed(contents),
        )

    write(evaluation, shape, out, text=text, title=runs[0].id)
