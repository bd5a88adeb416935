"""`ftbridge migrate record`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from ftbridge.cli.migrate.options import migration_option
from ftbridge.cli.options import as_json, print_json, verbosity, verbosity_options
from ftbridge.cli.run import ASK_ABOVE_USD
from ftbridge.errors import UsageError
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.forecast import Forecast
from ftbridge.migrate.record import ITEMS, SAMPLES, Recorded, RecordWish, record


@click.command(help="Record a tuned model's completions while it is still available.")
@click.argument("model")
@migration_option
@click.option(
    "--items", type=click.Path(path_type=Path, dir_okay=False), help="Record the prompts of this JSONL file instead."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=ITEMS, show_default=True, help="Record at most this many items."
)
@click.option(
    "--samples",
    type=click.IntRange(min=0, max=20),
    default=SAMPLES,
    show_default=True,
    help="Sample this many more completions of each item, to show how well the model agrees with itself.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    help="Sample them at this temperature [default: that of stored requests, or 1].",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Limit completions to this many tokens [default: as clients send]."
)
@click.option(
    "--way",
    type=click.Choice(["auto", "live", "batch"]),
    default="auto",
    show_default=True,
    help="Send requests live, or through the Batch API at half the price; auto decides by time, price and queue.",
)
@click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), help="Stop before spending more than this.")
@click.option(
    "--no-store",
    is_flag=True,
    help="Do not let the service store the completions; a request in flight during a crash may then be paid for twice.",
)
@click.option("--dry-run", is_flag=True, help="Print the cost and the time; send no requests.")
@click.option("--yes", is_flag=True, help=f"Do not ask before spending more than ${ASK_ABOVE_USD:g}.")
@as_json
@verbosity_options
def command(
    model: str,
    name: str,
    items: Path | None,
    limit: int,
    samples: int,
    temperature: float | None,
    max_tokens: int | None,
    way: Literal["auto", "live", "batch"],
    max_usd: float | None,
    no_store: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Record a model, or go on with its recording."""
    wish = RecordWish(
        model=model,
        items=items,
        limit=limit,
        samples=samples,
        temperature=temperature,
        max_completion_tokens=max_tokens,
        way=way,
        max_usd=max_usd,
        store=not no_store,
    )

    def agree(estimate: Forecast, notes: Sequence[str]) -> None:
        say(estimate, notes)
        if dry_run:
            raise _DryRun(estimate)
        ask(estimate, max_usd, yes)

    try:
        with RecordingBar() as bar:
            recorded = record(Migration.open(name), wish, agree=agree, progress=bar.show_progress, tell=bar.tell)
    except _DryRun as stopped:
        if as_json:
            print_json(stopped.estimate.model_dump(mode="json"))
        return
    if as_json:
        print_json(recorded.model_dump(mode="json"))
        return
    _show(recorded)


class _DryRun(Exception):
    """Ends a dry run with its forecast."""

    def __init__(self, estimate: Forecast) -> None:
        super().__init__()
        self.estimate = estimate


def say(estimate: Forecast, notes: Sequence[str]) -> None:
    """Cost, time and way on standard error, before anything is spent."""
    if verbosity() < 0:
        return
    for note in notes:
        click.echo(f"note: {note}", err=True)
    price = (
        f"about ${estimate.usd:,.2f} (prices of {estimate.prices_as_of})"
        if estimate.usd is not None
        else "no price is known"
    )
    other = estimate.usd_live if estimate.way == "batch" else estimate.usd_batch
    instead = f"; {'live' if estimate.way == 'batch' else 'by batch'} ${other:,.2f}" if other is not None else ""
    click.echo(
        f"{estimate.requests:,} requests, {estimate.read:,} tokens in and about {estimate.written:,} out: {price}{instead}; "
        f"{'up to ' if estimate.way == 'batch' else 'about '}{span(estimate.hours * 3600)}, {estimate.way}: {estimate.reason}.",
        err=True,
    )


def ask(estimate: Forecast, max_usd: float | None, yes: bool) -> None:
    """Ask before a large sum; a budget is an agreement. Raises `UsageError` where nobody can be asked."""
    usd = estimate.usd if max_usd is None else min(estimate.usd or 0.0, max_usd)
    if yes or usd is None or usd <= ASK_ABOVE_USD:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"this costs about ${usd:,.2f}, and there is no terminal to confirm that on.", hint="Say --yes."
        )
    click.confirm("Go on?", abort=True, err=True)


def span(seconds: float) -> str:
    """A time in the two largest units that it fills."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class RecordingBar:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, doing: str = "recording") -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        from ftbridge.report.terminal.console import SafeConsole

        self.doing = doing
        self.console = SafeConsole(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = verbosity() < 0
        self.bar: Progress | None = None
        self._last = -1
        if self.console.is_terminal and not self.quiet:
            columns = (
                TextColumn(doing),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f} items"),
                TextColumn("{task.fields[figures]}", style="dim"),
            )
            self.bar = Progress(*columns, console=self.console)
        self._task = self.bar.add_task("recording", total=1, figures="") if self.bar else None

    def __enter__(self) -> RecordingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tell(self, text: str) -> None:
        """One line above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, style="dim", markup=False)
        elif not self.quiet:
            click.echo(text, err=True)

    def show_progress(self, done: int, total: int, usd: float | None, seconds: float | None) -> None:
        """Show items done, money spent, and the time left."""
        figures = " · ".join(
            part
            for part in (
                f"${usd:.2f}" if usd is not None else "",
                f"{span(seconds)} left" if seconds is not None else "",
            )
            if part
        )
        if self.bar is not None and self._task is not None:
            self.bar.start()
            self.bar.update(self._task, completed=done, total=total, figures=figures)
        elif not self.quiet and total and done * 10 // total != self._last:
            self._last = done * 10 // total
            click.echo(f"{self.doing}: {done} of {total} items{f' ({figures})' if figures else ''}", err=True)


def _show(recorded: Recorded) -> None:
    so_far = recorded.so_far
    cost = f", ${so_far.usd:,.2f} in all" if so_far.usd is not None else ""
    refused = f", {so_far.refused} of them refused" if so_far.refused else ""
    click.echo(f"{so_far.complete} of {so_far.items} items of {recorded.model} are recorded{refused}{cost}.")
    if not so_far.finished:
        click.echo("The rest have no completion yet; run the same command again to request them.")
    click.echo(f"next: ftbridge migrate retrain {recorded.model} --base LOCAL_MODEL")
