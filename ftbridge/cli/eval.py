"""`ftbridge eval`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.evaluation_output import EvaluationOutput, evaluated, write
from ftbridge.cli.options import Command, as_json, output_format, verbosity_options
from ftbridge.cli.progress import TerminalWatcher
from ftbridge.errors import GateNotMet
from ftbridge.evaluation.standalone import EvaluationOptions, evaluate
from ftbridge.report.formats.tables import SHAPES, Shape
from ftbridge.spec import SpecFile

_CANDIDATE = (
    "Evaluate a candidate: base, zero_shot, few_shot, retrieval, run:ID, checkpoint:ID@STEP, openai:MODEL, local:MODEL or "
    "https://HOST/v1#MODEL; NAME=CANDIDATE sets its name. Repeat for each; the others are compared with the first."
)


@click.command("eval", cls=Command, help=COMMANDS["eval"])
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--candidate", "-c", "candidates", multiple=True, required=True, metavar="NAME", help=_CANDIDATE)
@click.option("--provider", help="Use this provider's base model for base, zero_shot, few_shot and retrieval.")
@click.option("--system", metavar="TEXT", help="Use this system message for zero_shot instead of the items' own.")
@click.option(
    "--documents",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Retrieve passages from this folder for the candidate retrieval.",
)
@click.option(
    "--human",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare graders with human scores of completions, and correct the means accordingly.",
)
@click.option(
    "--margin", type=click.FloatRange(0, 1), help="Exit 4 if a candidate may be worse than the first by more than this."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a spec field.")
@click.option("--no-cache", is_flag=True, help="Generate all completions again instead of using cached ones.")
@click.option(
    "--format", "shape", type=click.Choice(SHAPES), default="text", show_default=True, help="Set the output format."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the output to a file instead of stdout."
)
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Also write an HTML page of the results."
)
@as_json
@verbosity_options
def command(
    spec: Path,
    candidates: tuple[str, ...],
    provider: str | None,
    system: str | None,
    documents: Path | None,
    human: Path | None,
    margin: float | None,
    overrides: tuple[str, ...],
    no_cache: bool,
    shape: Shape,
    out: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Evaluate, print, and exit 4 when an asked margin is not met."""
    shape = output_format(shape, as_json, "shape")
    options = EvaluationOptions(
        provider=provider, system=system, documents=documents, margin=margin, fresh=no_cache, human=human
    )
    spec_file, output = SpecFile.of(spec, overrides), EvaluationOutput()
    with TerminalWatcher() as watcher:
        evaluation = evaluate(spec_file, candidates, options, watcher.answered, output)
    contents = output.contents(spec_file.spec, evaluation)
    if report is not None:
        from ftbridge.report.html import write_page

        arguments = " ".join(f"--candidate {shlex.quote(name)}" for name in candidates)
        write_page(contents, report, f"ftbridge eval {shlex.quote(spec.name)} {arguments}")
    write(evaluation, shape, out, text=lambda: evaluated(evaluation, contents), title=spec_file.spec.name)
    first = next(iter(evaluation.candidates))
    lost = [
        f"{pair.removesuffix(f'-{first}')} on {grader}"
        for pair, by in evaluation.verdicts.items()
        for grader, paired in by.items()
        if paired.verdict == "undetermined"
    ]
    if lost:
        raise GateNotMet(
            f"could not be determined, since too many items have no score: {', '.join(lost)}.",
            hint="Run the command again: it retries only what failed.",
        )
    failed = [
        f"{pair.removesuffix(f'-{first}')} on {grader}"
        for pair, by in evaluation.verdicts.items()
        for grader, paired in by.items()
        if margin is not None and not paired.margin_met
    ]
    if failed:
        raise GateNotMet(f"the margin of {margin:g} is not met by {', '.join(failed)}.")
