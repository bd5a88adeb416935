"""`ftbridge convert`."""

from __future__ import annotations

import sys

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import Command, pairs, verbosity, verbosity_options
from ftbridge.data.convert.convert import UNFINISHED_HINT, Converted, convert, left_out_sentences
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.convert.shapes import SHAPES, WRITABLE
from ftbridge.data.known_formats import listed_formats
from ftbridge.data.reading.compression import MAX_RATIO
from ftbridge.data.reading.containers import CONTAINERS
from ftbridge.errors import UsageError


def _list_formats(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    for name, shape, sample, source in listed_formats():
        click.echo(f"{name} ({shape})\n  {sample}\n  {source}\n")
    ctx.exit()


@click.command("convert", cls=Command, help=COMMANDS["convert"])
@click.argument("sources", nargs=-1, required=True, metavar="IN...")
@click.argument("out", metavar="OUT")
@click.option(
    "--from", "source_shape", type=click.Choice(SHAPES), help="Set the format of IN's records. Detected by default."
)
@click.option(
    "--to",
    "target_shape",
    type=click.Choice(WRITABLE),
    help="Set the format of OUT's records. Canonical by default: chat, preference or reinforcement.",
)
@click.option("--input-format", type=click.Choice(CONTAINERS), help="Set how IN is stored. Detected by default.")
@click.option(
    "--map",
    "columns",
    multiple=True,
    callback=pairs,
    metavar="NAME=COLUMN",
    help="Read the column COLUMN as the field NAME.",
)
@click.option("--system", metavar="TEXT", help="Add this system message to conversations without one.")
@click.option(
    "--drop",
    multiple=True,
    metavar="FIELD",
    help="Drop a field that OUT cannot hold (messages[].NAME drops it from each message).",
)
@click.option("--keep", is_flag=True, help="Keep the other fields, at the top level of the example.")
@click.option("--skip-invalid", is_flag=True, help="Leave out records that cannot be read, and list them.")
@click.option(
    "--parse", "parsed", multiple=True, metavar="COLUMN", help="Parse the cells of this column as JSON instead of text."
)
@click.option("--delimiter", metavar="CHAR", help="Set the delimiter of a CSV file. Detected by default.")
@click.option(
    "--max-ratio",
    type=click.FloatRange(min=0),
    default=MAX_RATIO,
    help="Refuse a file that unpacks to more than this many times its size; 0 allows any [default: 250].",
)
@click.option(
    "--encoding", metavar="NAME", help="Set the encoding of a file that is not UTF-8, such as cp1252 or utf-16."
)
@click.option("--only-liked", is_flag=True, help="Write only the completions labelled as good in KTO data, as chats.")
@click.option(
    "--include-unfinished",
    is_flag=True,
    help="Include completions that were cut off or filtered (finish_reason length or content_filter).",
)
@click.option(
    "--list-formats",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_formats,
    help="List every format that can be read.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout about what was done.")
@verbosity_options
def command(
    sources: tuple[str, ...],
    out: str,
    source_shape: str | None,
    target_shape: str | None,
    input_format: str | None,
    columns: dict[str, str],
    system: str | None,
    drop: tuple[str, ...],
    keep: bool,
    skip_invalid: bool,
    parsed: tuple[str, ...],
    delimiter: str | None,
    max_ratio: float,
    encoding: str | None,
    only_liked: bool,
    include_unfinished: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Convert IN to OUT; `-` is standard input and output, and IN may be several files, a glob, an https or hf:// address."""
    if as_json and out == "-":
        raise UsageError("--json and OUT - would both write to standard output.", hint="Write to a file.")
    recipe = Recipe(
        source=source_shape,  # type: ignore[arg-type]
        target=target_shape,  # type: ignore[arg-type]
        container=input_format,  # type: ignore[arg-type]
        columns=tuple(columns.items()),
        system=system,
        drop=drop,
        keep=keep,
        skip_bad=skip_invalid,
        parsed=parsed,
        delimiter={"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter) if delimiter else None,
        max_ratio=max_ratio,
        encoding=encoding,
        only_liked=only_liked,
        include_unfinished=include_unfinished,
    )
    if recipe.delimiter and len(recipe.delimiter) != 1:
        raise UsageError(f"--delimiter {delimiter}: give one character, or tab.")
    draws = sys.stderr.isatty() and verbosity() >= 0

    def progress(records: int) -> None:
        if draws:
            click.echo(f"\r{records:,} records\x1b[K", err=True, nl=False)

    try:
        done = convert(sources, out, recipe, force=force, progress=progress)
    finally:
        if draws:
            click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        click.echo(done.model_dump_json(indent=2))
    elif verbosity() >= 0:
        _tell(done)


def _tell(done: Converted) -> None:
    for problem in done.skipped[:20]:
        click.echo(f"left out: {problem}", err=True)
    if done.skipped_count > 20:
        click.echo(f"… and {done.skipped_count - 20:,} more; --json lists them.", err=True)
    if done.json_columns:
        names = " ".join(f"--parse {name}" for name in done.json_columns)
        click.echo(f"note: some columns hold JSON; read {done.out} back with {names}", err=True)
    shapes = ", ".join(done.shapes)
    for sentence in left_out_sentences(done.left_out, done.left_out_lines):
        click.echo(f"left out: {sentence}", err=True)
    if done.unfinished_count:
        click.echo(f"note: {UNFINISHED_HINT}", err=True)
    for number, fields in _by_count(done.carried).items():
        examples = "1 example has" if number == 1 else f"{number:,} examples have"
        click.echo(f"note: {examples} {', '.join(fields)} beside the messages, which training does not read", err=True)
    dropped = "".join(
        f"; dropped {', '.join(fields)} from {number:,}" for number, fields in _by_count(done.dropped).items()
    )
    examples = "1 example" if done.examples == 1 else f"{done.examples:,} examples"
    click.echo(f"{done.out}: {examples} from {shapes} to {done.to}{dropped}", err=True)


def _by_count(counts: dict[str, int]) -> dict[int, list[str]]:
    """The fields that were counted equally often, by that count."""
    fields: dict[int, list[str]] = {}
    for field, count in counts.items():
        fields.setdefault(count, []).append(field)
    return fields
