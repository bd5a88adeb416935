"""`ftbridge migrate retrain`."""

from __future__ import annotations

from pathlib import Path

import click

from ftbridge import providers
from ftbridge.cli.migrate.options import migration_option
from ftbridge.cli.options import as_json, pairs, print_json, verbosity, verbosity_options
from ftbridge.cli.run import ASK_ABOVE_USD, ask_before_spending, finish
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.retrain import RetrainPlan, RetrainWish, onward, plan, start
from ftbridge.runner import control


@click.command(help="Train a replacement for a tuned model, from the data of its jobs.")
@click.argument("model")
@migration_option
@click.option("--base", help="Train this model: a local folder, a hub id or a built-in name; or a provider's model.")
@click.option(
    "--provider",
    default="local",
    show_default=True,
    help="Train with this provider: local, openai, slurm, ray or another that is installed.",
)
@click.option("--distil", is_flag=True, help="Add half of the recorded completions to the training data.")
@click.option(
    "--file",
    "stand_ins",
    multiple=True,
    callback=pairs,
    metavar="ID=PATH",
    help="Use this copy of a job's training file, if the service no longer has it.",
)
@click.option(
    "--graders",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Score with these graders (YAML or JSON); `prove` decides by them.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field of the spec.")
@click.option("--allow", multiple=True, metavar="FIELD", help="Continue without a field that the provider refuses.")
@click.option("--no-lint", is_flag=True, help="Start even if the data has lint errors.")
@click.option("--dry-run", is_flag=True, help="Write the spec and its report; train nothing.")
@click.option("--detach", is_flag=True, help="Work in the background; print the run id.")
@click.option("--yes", is_flag=True, help=f"Do not ask before spending more than ${ASK_ABOVE_USD:g}.")
@as_json
@verbosity_options
def command(
    model: str,
    name: str,
    base: str | None,
    provider: str,
    distil: bool,
    stand_ins: dict[str, str],
    graders: Path | None,
    overrides: tuple[str, ...],
    allow: tuple[str, ...],
    no_lint: bool,
    dry_run: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Plan a replacement and train it, or go on with its run."""
    wish = RetrainWish(
        model=model,
        base=base,
        provider=provider,
        distil=distil,
        stand_ins={name: Path(path) for name, path in stand_ins.items()},
        overrides=overrides,
        graders=graders,
    )
    opened = Migration.open(name)
    planned = plan(opened, wish)
    if verbosity() >= 0:
        _say(planned, as_json)
    if dry_run:
        _dry_run(planned, as_json)
        return
    if not yes and providers.load(provider).capabilities(planned.spec).plan == "openai":
        ask_before_spending(planned.draft())
    run = start(opened, planned, wish, lint=not no_lint, allow=allow)
    if detach:
        pid = control.detach(run)
        if as_json:
            print_json({"run_id": run.id, "pid": pid, "path": str(run.path)})
        else:
            click.echo(run.id)
        return
    finish(run, as_json, onward(run))
    if not as_json and verbosity() >= 0:
        click.echo(f"next: ftbridge migrate prove {planned.model} {run.id}", err=True)


def _say(planned: RetrainPlan, as_json: bool) -> None:
    """Notes and the report of the job's fields, on standard error."""
    from rich.table import Table
    from rich.text import Text

    from ftbridge.report.terminal.console import SafeConsole

    console = SafeConsole(stderr=True, highlight=False)
    for note in planned.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    shown = (
        planned.fields if verbosity() > 0 else [one for one in planned.fields if one.outcome != "kept" and one.value]
    )
    styles = {"kept": "green", "translated": "cyan", "not_portable": "yellow"}
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("field of the job", "became", "why"):
        grid.add_column(heading, overflow="fold")
    for one in shown:
        grid.add_row(
            Text(one.field),
            Text(one.spec or one.outcome.replace("_", " "), style=styles[one.outcome]),
            Text(one.reason),
        )
    console.print(grid)
    unchanged = sum(one.outcome == "kept" for one in planned.fields)
    console.print(
        f"{unchanged} fields are kept as they are{'' if verbosity() > 0 else ' (-v shows them)'}.", style="dim"
    )
    console.print(f"spec         {planned.path}", soft_wrap=True, markup=False)


def _dry_run(planned: RetrainPlan, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "model": planned.model,
                "spec": planned.spec.model_dump(mode="json", exclude_unset=True),
                "path": str(planned.path),
                "fields": [entry.model_dump(mode="json") for entry in planned.fields],
                "notes": planned.notes,
            }
        )
    else:
        click.echo(str(planned.path))
