"""`ftbridge eval`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from ftbridge.cli.options import as_json, talkative
from ftbridge.cli.progress import TerminalWatcher
from ftbridge.draft import Draft
from ftbridge.errors import GateNotMet
from ftbridge.judging import Options, evaluate

_CANDIDATE = (
    "base, zero_shot, few_shot, retrieval, run:ID, checkpoint:ID@STEP, openai:MODEL, local:MODEL or "
    "https://HOST/v1#MODEL. Once for each; the first is what the others are compared with."
)


@click.command(help="Let candidates answer a spec's test items, and compare them.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--candidate", "-c", "candidates", multiple=True, required=True, metavar="NAME", help=_CANDIDATE)
@click.option("--provider", help="Whose base model base, zero_shot, few_shot and retrieval use.")
@click.option("--system", metavar="TEXT", help="System message of zero_shot, instead of the items' own.")
@click.option(
    "--documents", type=click.Path(exists=True, file_okay=False, path_type=Path), help="What retrieval reads."
)
@click.option("--margin", type=click.FloatRange(0, 1), help="Exit 4 unless no other is worse than the first by more.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a spec field for this once.")
@click.option("--fresh", is_flag=True, help="Forget kept answers of these models and ask again.")
@as_json
@talkative
def command(
    spec: Path,
    candidates: tuple[str, ...],
    provider: str | None,
    system: str | None,
    documents: Path | None,
    margin: float | None,
    overrides: tuple[str, ...],
    fresh: bool,
    as_json: bool,
) -> None:
    """Evaluate, print, and exit 4 when an asked margin is not met."""
    options = Options(provider=provider, system=system, documents=documents, margin=margin, fresh=fresh)
    with TerminalWatcher() as watcher:
        told = evaluate(Draft.of(spec, overrides), candidates, options, watcher.answered)
    if as_json:
        click.echo(told.model_dump_json(indent=2))
    else:
        from ftbridge.report.console import answered_table, evaluation_table, power

        console = Console(highlight=False)
        console.print(
            *([power(told)] if told.verdicts else []), evaluation_table(told), "", answered_table(told), sep="\n"
        )
    failed = [
        f"{pair.removesuffix(f'-{candidates[0]}')} on {grader}"
        for pair, by in told.verdicts.items()
        for grader, judged in by.items()
        if margin is not None and not judged.margin_met
    ]
    if failed:
        raise GateNotMet(f"the margin of {margin:g} is not met by {', '.join(failed)}.")
