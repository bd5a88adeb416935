"""`ftbridge migrate prove`."""

from __future__ import annotations

from pathlib import Path

import click

from ftbridge.cli.migrate.options import migration_option
from ftbridge.cli.options import as_json, find_run, print_json, verbosity, verbosity_options
from ftbridge.errors import GateNotMet, UsageError
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.prove import MARGIN, Proof, ProofWish, folder_of, prove


@click.command(help="Prove that a run is not worse than a recorded model; exit 4 if that cannot be shown.")
@click.argument("model")
@click.argument("run", metavar="RUN")
@migration_option
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=MARGIN,
    show_default=True,
    help="Accept a drop of up to this as not worse (0.05 is 5 points).",
)
@click.option("--judge", metavar="MODEL", help="Ask this model which completion is better, in both orders.")
@click.option("--judge-url", metavar="URL", help="Set the judge's chat-completions endpoint, including /v1.")
@click.option("--limit", type=click.IntRange(min=1), help="Compare at most this many items.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="Set the longest completion, in tokens [default: 1.5 times the longest recorded one].",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Complete this many items at a time.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the page to this file.")
@as_json
@verbosity_options
def command(
    model: str,
    run: str,
    name: str,
    margin: float,
    judge: str | None,
    judge_url: str | None,
    limit: int | None,
    max_tokens: int | None,
    batch_size: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare a run's model with a recorded one and write the page."""
    from ftbridge.cli.migrate.record import RecordingBar
    from ftbridge.migrate.agreement import judge_of
    from ftbridge.migrate.proof_page import write_page

    if judge_url is not None and judge is None:
        raise UsageError("--judge-url needs --judge MODEL.")
    wish = ProofWish(
        model=model,
        margin=margin,
        judge=judge_of(judge, judge_url) if judge is not None else None,
        limit=limit,
        max_completion_tokens=max_tokens,
        batch_size=batch_size,
    )
    opened = Migration.open(name)
    with RecordingBar("completing") as bar:
        proof = prove(
            opened, wish, find_run(run), progress=lambda done, total: bar.show_progress(done, total, None, None)
        )
    path = write_page(proof, out or folder_of(opened, proof) / "proof.html")
    if as_json:
        print_json({**proof.model_dump(mode="json"), "page": str(path)})
    else:
        _show(proof, path)
    if not proof.ok:
        raise GateNotMet(
            f"there is no proof that {proof.run} is not worse than {proof.model}: {proof.verdict}",
            hint="Read the page. Then train on more data or a larger base model, or record more items.",
        )
    if verbosity() >= 0 and not as_json:
        click.echo(f"next: ftbridge migrate serve --map {proof.model}={proof.run}", err=True)


def _show(proof: Proof, path: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from ftbridge.evaluation.wording import SHORT
    from ftbridge.report.terminal.console import SafeConsole
    from ftbridge.report.terminal.verdicts import STYLES

    console = SafeConsole(highlight=False)
    source = "recorded" if proof.by_graders else "with itself"
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("measure", "replacement", source, "difference", "verdict"):
        grid.add_column(heading, overflow="fold")
    for one in proof.measures:
        verdict = one.judged.verdict if one.judged is not None else "undetermined"
        low, high = one.judged.ci95 if one.judged is not None else (0.0, 0.0)
        grid.add_row(
            Text(one.name, style="bold" if one.decides else ""),
            f"{100 * one.replacement.mean:.1f} %",
            f"{100 * one.recorded.mean:.1f} %" if one.recorded is not None else "–",
            f"{100 * one.judged.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            if one.judged is not None
            else "–",
            Text(SHORT[verdict], style=STYLES[verdict]),
        )
    console.print(proof.verdict, soft_wrap=True, markup=False)
    console.print(grid)
    for note in proof.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"page         {path}", soft_wrap=True, markup=False)
