"""`ftbridge report`."""

from __future__ import annotations

from pathlib import Path

import click

from ftbridge.cli.options import as_json, find_run, print_json, talkative


@click.command(help="One self-contained HTML page about runs.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to [the run's report.html]."
)
@as_json
@talkative
def command(runs: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Write the page and print where it is."""
    from ftbridge.report.html import write_report

    path = write_report([find_run(name) for name in runs], out)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(path)
