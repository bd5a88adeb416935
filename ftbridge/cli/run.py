"""`ftbridge run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ftbridge import providers
from ftbridge.cli import COMMANDS
from ftbridge.cli.options import Command, as_json, print_json, verbosity, verbosity_options
from ftbridge.cli.progress import TerminalWatcher
from ftbridge.data.manifest import load_manifest
from ftbridge.errors import UsageError
from ftbridge.evaluation.spending import spent
from ftbridge.report.terminal.console import SafeConsole
from ftbridge.runner import control, drive, summary
from ftbridge.runner.fallback import last_of
from ftbridge.runner.start import create_run, dry_run
from ftbridge.runs.run import Run
from ftbridge.spec import SpecFile

ASK_ABOVE_USD = 20.0
"""A job that costs more is asked about first."""


@click.command("run", cls=Command, help=COMMANDS["run"])
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--provider",
    required=True,
    help="Train with this provider: openai, local, slurm, ray, or another that is installed.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a spec field.")
@click.option("--allow", multiple=True, metavar="FIELD", help="Continue without a field that the provider refuses.")
@click.option(
    "--fallback", "fall_back", metavar="PROVIDER", help="Train with this provider when the first one refuses or fails."
)
@click.option("--dry-run", is_flag=True, help="Prepare the data and print the field mapping; train nothing.")
@click.option("--detach", is_flag=True, help="Work in the background and print the run id.")
@click.option("--no-lint", is_flag=True, help="Start even if the data has lint errors.")
@click.option(
    "--record", is_flag=True, help="Record the HTTP exchange with the service, without keys, in the run folder."
)
@click.option("--ignore-target", is_flag=True, help="Train even if a baseline meets evaluation.target.")
@click.option(
    "--yes",
    is_flag=True,
    help=f"Do not ask before spending more than ${ASK_ABOVE_USD:g}, and create the job even if it might be created twice.",
)
@as_json
@verbosity_options
def command(
    spec: Path,
    provider: str,
    overrides: tuple[str, ...],
    allow: tuple[str, ...],
    fall_back: str | None,
    dry_run: bool,
    detach: bool,
    no_lint: bool,
    record: bool,
    ignore_target: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Fine-tune and judge, from spec to verdict."""
    if fall_back == provider:
        raise UsageError(
            f"--fallback {fall_back} is the provider that trains first.",
            hint="Name another one, or leave --fallback out.",
        )
    if record:
        os.environ["FTBRIDGE_RECORD"] = "1"
    spec_file = SpecFile.of(spec, [*overrides, *([f"fallback={fall_back}"] if fall_back else [])])
    if dry_run:
        _dry_run(spec_file, provider, allow, not no_lint, as_json)
        return
    if not yes and providers.load(provider).capabilities(spec_file.spec).plan == "openai":
        ask_before_spending(spec_file)
    run = create_run(spec_file, provider, allow=allow, lint=not no_lint)
    if ignore_target:
        control.waive_target(run)
    if yes:
        control.accept_doubt(run)
    for note in load_manifest(run.data).notes if verbosity() >= 0 else ():
        click.echo(f"note: {note}", err=True)
    if detach:
        pid = control.detach(run)
        if as_json:
            print_json({"run_id": run.id, "pid": pid, "path": str(run.path)})
        else:
            click.echo(run.id)
            click.echo(f"Working in the background. Follow it with: ftbridge watch {run.id}", err=True)
        return
    finish(run, as_json, drive.drive)


def ask_before_spending(spec_file: SpecFile) -> None:
    """Name the cost of a large job and ask; without a terminal to ask at, `--yes` is the answer. Raises `UsageError`."""
    from ftbridge.planning.plan import plan

    estimate = plan(spec_file)
    total = estimate.openai.money.total if estimate.openai is not None else None
    if estimate.openai is None or total is None or total[0] <= ASK_ABOVE_USD:
        return
    money = estimate.openai.money
    cost = (
        f"{estimate.openai.model} will cost about ${total[0]:,.0f} to ${total[1]:,.0f} (prices of {money.prices_as_of})"
    )
    if not sys.stdin.isatty():
        raise UsageError(
            f"{cost}, and there is no terminal to confirm that on.",
            hint="Confirm with --yes; `ftbridge plan` explains the cost.",
        )
    click.confirm(f"{cost}. Continue?", abort=True, err=True)


def finish(run: Run, as_json: bool, go: drive.Go) -> None:
    """Drive a run on the terminal and print its end; with --json also when it fails."""
    try:
        with TerminalWatcher() as watcher:
            go(run, watcher)
            run = last_of(run)
    except Exception:
        if as_json:
            print_json(summary.summary(last_of(run)))
        raise
    if as_json:
        print_json(summary.summary(run))
        return
    from ftbridge.planning.evidence import advise_after
    from ftbridge.report.terminal.tables import evaluation_table

    console = SafeConsole(highlight=False)
    evaluation = summary.read_evaluation(run)
    if evaluation is not None:
        console.print(evaluation_table(evaluation, sentences=verbosity() > 0))
    for piece in advise_after(run):
        console.print(f"advice: {piece.text} ({piece.evidence})", style="dim", markup=False)
    console.print(f"spent        {spent(run).summary()}", soft_wrap=True)
    tuned = run.state().tuned
    console.print(f"tuned model  {tuned.id if tuned else 'none'}", soft_wrap=True)
    console.print(f"run folder   {run.path}", soft_wrap=True)


def _dry_run(spec_file: SpecFile, provider: str, allow: tuple[str, ...], lint: bool, as_json: bool) -> None:
    manifest, resolved, lowering = dry_run(spec_file, provider, allow=allow, lint=lint)
    if as_json:
        print_json(
            {
                "data": manifest.model_dump(mode="json"),
                "resolved": resolved.document(),
                "lowering": lowering.model_dump(mode="json"),
            }
        )
        return
    from ftbridge.report.terminal.tables import lowering_table

    console = SafeConsole(highlight=False)
    for name, split in manifest.splits.items():
        console.print(f"{name:<11}{split.examples:>6} examples {split.tokens:>9,} tokens  sha256 {split.sha256[:12]}")
    for note in manifest.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for settled in resolved.settled:
        console.print(f"{settled.field} = {settled.value}: {settled.reason}", soft_wrap=True)
    console.print(lowering_table(lowering))
    console.print("Nothing was trained.")
