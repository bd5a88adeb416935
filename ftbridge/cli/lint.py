"""`ftbridge lint`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ftbridge.cli.options import print_json, talkative, verbosity
from ftbridge.data.lint.config import find_config
from ftbridge.data.lint.engine import Linting, Options, Role
from ftbridge.errors import UsageError

METHODS = {"sft": "supervised", "rft": "reinforcement"}
_BAR_FROM = 20_000_000


def _words(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip() for item in value for word in item.split(",") if word.strip())


@click.command(help="Find what is wrong with fine-tuning files, before anyone is paid.")
@click.argument("paths", metavar="FILE...", nargs=-1, type=click.Path(path_type=str))
@click.option(
    "--method", type=click.Choice(["supervised", "dpo", "reinforcement", *METHODS]), help="Else told by the lines."
)
@click.option(
    "--target", type=click.Choice(["openai", "azure", "nebius", "local"]), help="Where the file goes [openai]."
)
@click.option("--model", help="The model to train: its token limit, its vocabulary; a local one's own template.")
@click.option("--validation", multiple=True, metavar="FILE", help="Held out for validation: leakage is looked for.")
@click.option("--test", multiple=True, metavar="FILE", help="Held out for the judge: leakage is looked for.")
@click.option(
    "--select", multiple=True, callback=_words, metavar="CODES", help="Only these rules: FTB021, FTB3, names."
)
@click.option("--ignore", multiple=True, callback=_words, metavar="CODES", help="Not these rules.")
@click.option("--fix", "fix_to", metavar="OUT", help="Write a repaired copy to OUT (a folder for several files).")
@click.option("--explain", metavar="CODE", help="Explain a rule; `all` lists them.")
@click.option("--format", "form", type=click.Choice(["text", "json", "github", "sarif"]), default="text")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--statistics", is_flag=True, help="Only how often each rule is broken.")
@click.option("--max-findings", type=click.IntRange(min=0), help="Findings told, 0 for all [100; 1,000 for programs].")
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Processes; 0 is one a core.")
@talkative
def command(
    paths: tuple[str, ...],
    method: str | None,
    target: str | None,
    model: str | None,
    validation: tuple[str, ...],
    test: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fix_to: str | None,
    explain: str | None,
    form: str,
    as_json: bool,
    statistics: bool,
    max_findings: int | None,
    jobs: int,
) -> int:
    """Lint; the exit code is 0, or 3 when there are errors."""
    if explain:
        _explain(explain)
        return 0
    listed = [*paths, *validation, *test]
    if not listed:
        raise UsageError("name a file to lint, or - for standard input.", hint="ftbridge lint train.jsonl")
    form = "json" if as_json else form
    config = find_config(Path.cwd())
    chosen = target or config.target or "openai"
    limit = max_findings if max_findings is not None else config.max_findings
    options = Options(
        target=chosen,
        method=METHODS.get(method, method) if method else config.method,  # type: ignore[arg-type]
        model=model or config.model,
        select=select or config.select,
        ignore=(*config.ignore, *ignore),
        keep=10**9 if limit == 0 else limit or 1_000,
        jobs=jobs,
        file_ignores=tuple((path, config.ignored_for(path)) for path in listed),
    )
    if fix_to:
        return _fix(listed, fix_to, options, form)
    roles = _roles(paths, validation, test)
    with _counter(options) as options, Linting(listed, options, roles=roles, progress=_bar(form)) as linting:
        report = _told(linting, form, limit, statistics)
    return 0 if report.ok and report.complete else 130 if not report.complete else 3


def _told(linting: Linting, form: str, limit: int | None, statistics: bool) -> Any:
    """Lint to the end, or to Ctrl-C, and print in the form asked for; the report."""
    from ftbridge.report.lint.machine import as_json, github, sarif
    from ftbridge.report.lint.text import TextReport, summary
    from ftbridge.report.lint.text import statistics as count_table

    console = Console(highlight=False)
    shows = form == "text" and not statistics and verbosity() >= 0
    printed = TextReport(console, linting, None if limit == 0 else limit or 100) if shows else None
    try:
        for path, finding in linting:
            if printed:
                _clear()
                printed.add(path, finding)
    except KeyboardInterrupt:
        pass
    _clear()
    report = linting.report()
    if form == "json":
        print(as_json(report))
    elif form == "sarif":
        print(json.dumps(sarif(report, linting), ensure_ascii=False, indent=2))
    elif form == "github":
        for line in github(report):
            print(line)
    elif statistics:
        count_table(report, console)
        console.print(summary(report))
    elif printed:
        printed.finish(report)
    else:
        console.print(summary(report))
    return report


def _fix(paths: list[str], out: str, options: Options, form: str) -> int:
    """Write repaired copies; tell what was done, and what is left. The exit code is that of linting the copies."""
    from ftbridge.data.lint.fix import fix_files

    reports = fix_files(paths, out, options)
    ok = all(report.left.ok for report in reports)
    if form == "json":
        print_json({"ok": ok, "files": [report.model_dump(mode="json") for report in reports]})
        return 0 if ok else 3
    for report in reports:
        for change in report.changes if verbosity() >= 0 else ():
            at = "" if change.line is None else f":{change.line}"
            click.echo(f"{report.path}{at} {change.did} ({change.code})")
        if report.more_changes:
            click.echo(f"… and {report.more_changes:,} more changes")
        left = report.left.errors + report.left.warnings
        told = f"; {left:,} errors and warnings are left to a person: ftbridge lint {report.out}" if left else ""
        click.echo(f"{report.out}: {report.lines:,} lines, {report.changed:,} of them changed{told}.")
    return 0 if ok else 3


def _explain(code: str) -> None:
    from ftbridge.data.lint.select import one
    from ftbridge.data.rules import RULES
    from ftbridge.report.lint.explain import explain, rule_list

    console = Console(highlight=False)
    if code.lower() == "all":
        rule_list([RULES[known] for known in sorted(RULES)], console)
    else:
        explain(one(RULES, code), console)


def _roles(paths: tuple[str, ...], validation: tuple[str, ...], test: tuple[str, ...]) -> list[Role]:
    """Which of a job's files each is: as told, or by their names if those differ; nothing where it is not known."""
    if validation or test:
        return [*["train"] * len(paths), *["validation"] * len(validation), *["test"] * len(test)]  # type: ignore[list-item]
    guessed = [_role(path) for path in paths]
    return guessed if len(set(guessed)) > 1 else []


def _role(path: str) -> Role:
    name = Path(path).stem.lower()
    words = set(name.replace("-", "_").replace(".", "_").split("_"))
    if words & {"test", "testing", "holdout"}:
        return "test"
    return "validation" if words & {"validation", "valid", "val", "dev", "eval"} else "train"


def _counter(options: Options) -> Any:
    """The options, with a local model's own counter where one is named for the local target."""
    from ftbridge.sdk import with_counter

    return with_counter(options, progress=lambda text: click.echo(text, err=True) if verbosity() > 0 else None)


def _bar(form: str) -> Callable[[str, int, int], None] | None:
    """A line on standard error that tells how far a large file is; nothing where there is no terminal."""
    if not sys.stderr.isatty() or verbosity() < 0:
        return None
    import time

    told = [0.0]

    def show(path: str, done: int, size: int) -> None:
        if size >= _BAR_FROM and time.monotonic() - told[0] > 0.1:
            told[0] = time.monotonic()
            filled = 24 * done // size
            print(
                f"\r{'━' * filled}{'─' * (24 - filled)} {done / size:4.0%} {path}\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
