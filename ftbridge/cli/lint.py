"""`ftbridge lint`."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import output_format, print_json, verbosity, verbosity_options
from ftbridge.data.lint import METHOD_ALIASES
from ftbridge.errors import UsageError

if TYPE_CHECKING:
    from ftbridge.data.lint.config import LintConfig
    from ftbridge.data.lint.engine import Linting, Options, Role
    from ftbridge.data.lint.findings import LintReport
    from ftbridge.data.lint.fix import FixReport
    from ftbridge.data.lint.rule import Rule

_BAR_FROM = 20_000_000
"""Bytes of a file from which a bar tells how far it is."""
_TEXT_LIMIT = 100
_KEPT = 1_000
"""Findings of one rule and file that programs get."""
_ALL = 10**9


def _words(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip() for item in value for word in item.split(",") if word.strip())


@click.command(help=COMMANDS["lint"])
@click.argument("paths", metavar="FILE...", nargs=-1, type=click.Path(path_type=str))
@click.option(
    "--method",
    type=click.Choice(["supervised", "dpo", "reinforcement", *METHOD_ALIASES]),
    help="Set the fine-tuning method. Detected by default.",
)
@click.option(
    "--target",
    type=click.Choice(["openai", "azure", "nebius", "local"]),
    help="Check the rules of this service, or of local training [default: openai].",
)
@click.option(
    "--model", help="Count tokens and check limits for this model; a local model's own tokenizer and template are used."
)
@click.option(
    "--validation", multiple=True, metavar="FILE", help="Check this validation file too, and look for leakage from it."
)
@click.option("--test", multiple=True, metavar="FILE", help="Check this test file too, and look for leakage from it.")
@click.option(
    "--select",
    multiple=True,
    callback=_words,
    metavar="CODES",
    help="Check only these rules, by code, code prefix or name.",
)
@click.option("--ignore", multiple=True, callback=_words, metavar="CODES", help="Skip these rules.")
@click.option(
    "--fix", "fix_to", metavar="OUT", help="Write a repaired copy to OUT (a folder if there are several files)."
)
@click.option("--explain", metavar="CODE", help="Explain a rule; `all` lists every rule.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    help="Set the output format [default: text].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--statistics", is_flag=True, help="Print only how often each rule is broken.")
@click.option(
    "--max-findings",
    metavar="N",
    type=click.IntRange(min=0),
    help="Print at most N findings; 0 prints all [default: 100 as text, else all].",
)
@click.option(
    "--jobs", metavar="N", type=click.IntRange(min=0), default=0, help="Use N processes; 0 uses one per core."
)
@verbosity_options
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
    form: str | None,
    as_json: bool,
    statistics: bool,
    max_findings: int | None,
    jobs: int,
) -> int:
    """Lint; the exit code is 0, or 3 when there are errors."""
    from ftbridge.data.lint.config import find_config
    from ftbridge.data.lint.engine import Linting, Options

    form = output_format(form, as_json, "form") or "text"
    if isinstance(sys.stdout, io.TextIOWrapper):
        if form == "text":
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")
    if (statistics or explain) and form not in ("text", "json"):
        option = "--explain" if explain else "--statistics"
        raise UsageError(f"{option} prints text or JSON, not {form}.", hint="Leave one of them out.")
    if explain:
        _explain(explain, form)
        return 0
    paths, validation, test = (_matched(named) for named in (paths, validation, test))
    listed = [*paths, *validation, *test]
    if not listed:
        raise UsageError("name a file to lint, or - for standard input.", hint="ftbridge lint train.jsonl")
    config: LintConfig = find_config(Path.cwd())
    limit = max_findings if max_findings is not None else config.max_findings
    options = Options(
        target=target or config.target or "openai",
        method=METHOD_ALIASES.get(method, method) if method else config.method,  # type: ignore[arg-type]
        model=model or config.model,
        select=select or config.select,
        ignore=(*config.ignore, *ignore),
        keep=_ALL if limit == 0 else limit or _KEPT,
        jobs=jobs,
        file_ignores=tuple((path, config.ignored_for(path)) for path in listed),
    )
    if fix_to:
        return _fix(listed, fix_to, options, form, limit)
    roles = _roles(paths, validation, test)
    bar = _Bar()
    with (
        _counting(options) as counting,
        Linting(listed, counting, roles=roles, whole_job=False, progress=bar.show) as linting,
    ):
        report = _told(linting, form, limit, statistics, bar)
    return 130 if not report.complete else 0 if report.ok else 3


def _told(linting: Linting, form: str, limit: int | None, statistics: bool, bar: _Bar) -> LintReport:
    """Lint to the end, or to Ctrl-C, and print in the form asked for; the report."""
    from ftbridge.report.formats import findings
    from ftbridge.report.terminal.console import SafeConsole
    from ftbridge.report.terminal.lint import text

    console = SafeConsole(highlight=False)
    shows = form == "text" and not statistics and verbosity() >= 0
    printed = text.TextReport(console, linting, None if limit == 0 else limit or _TEXT_LIMIT) if shows else None
    with contextlib.suppress(KeyboardInterrupt):
        for path, finding in linting:
            if printed:
                bar.clear()
                printed.add(path, finding)
    bar.clear()
    report = linting.report()
    if statistics and form == "json":
        counts = {"errors": report.errors, "warnings": report.warnings, "rules": report.rules}
        print_json({"ok": report.ok, "complete": report.complete, **counts})
    elif form != "text":
        _print_for_programs(findings.at_most(report, limit) if limit else report, linting, form)
    elif printed:
        printed.finish(report)
    else:
        if statistics:
            text.statistics(report, console)
        console.print(text.summary(report), soft_wrap=True)
    return report


def _print_for_programs(report: LintReport, linting: Linting, form: str) -> None:
    from ftbridge.report.formats import findings

    if form == "json":
        print(findings.as_json(report))
    elif form == "sarif":
        print(json.dumps(findings.sarif(report, linting), ensure_ascii=False, indent=2))
    else:
        for line in findings.github(report, linting):
            print(line)


def _fix(paths: list[str], out: str, options: Options, form: str, limit: int | None) -> int:
    """Write repaired copies; tell what was done, and what is left. The exit code is that of linting the copies."""
    from ftbridge.data.lint.fix import fix_files

    if form not in ("text", "json"):
        raise UsageError(f"--fix reports as text or JSON, not as {form}.", hint=f"Lint {out} afterwards.")
    reports = fix_files(paths, out, options)
    ok = all(report.left.ok for report in reports)
    if form == "json":
        print_json({"ok": ok, "files": [report.model_dump(mode="json") for report in reports]})
    else:
        _print_fixes(reports, None if limit == 0 else limit or _TEXT_LIMIT)
    return 0 if ok else 3


def _print_fixes(reports: Iterable[FixReport], limit: int | None) -> None:

    from ftbridge.report.terminal.console import SafeConsole
    from ftbridge.report.terminal.lint.text import print_fix

    console = SafeConsole(highlight=False)
    for report in reports:
        print_fix(report, console, shown=limit if verbosity() >= 0 else 0)


def _explain(code: str, form: str) -> None:

    from ftbridge.data.lint.rule import find_rule
    from ftbridge.data.lint.rules import RULES
    from ftbridge.report.terminal.console import SafeConsole
    from ftbridge.report.terminal.lint.explain import explain, rule_list

    console = SafeConsole(highlight=False)
    listed = [RULES[code] for code in sorted(RULES)] if code.lower() == "all" else [find_rule(RULES, code)]
    if form == "json":
        documents = [_rule_document(rule) for rule in listed]
        print_json(documents if code.lower() == "all" else documents[0])
    elif code.lower() == "all":
        rule_list(listed, console)
    else:
        explain(listed[0], console)


def _rule_document(rule: Rule) -> dict[str, Any]:
    """What is known of a rule, for programs. `severities` names the services where it is another, or null for none."""
    names = ("code", "name", "kind", "severity", "summary", "reason", "source", "bad", "good", "fixable")
    document = {name: getattr(rule, name) for name in names}
    return {**document, "methods": list(rule.methods), "severities": dict(rule.severities)}


def _roles(paths: tuple[str, ...], validation: tuple[str, ...], test: tuple[str, ...]) -> list[Role]:
    """Which of a job's files each is: as told, or by its name when nothing is told and there are several."""
    if validation or test or len(paths) < 2:
        return [*["train"] * len(paths), *["validation"] * len(validation), *["test"] * len(test)]  # type: ignore[list-item]
    roles = [_role(path) for path in paths]
    for path, role in zip(paths, roles, strict=True):
        if role != "train" and verbosity() >= 0:
            click.echo(
                f"{path} is taken for {role} data because of its name; use --validation and --test to say otherwise.",
                err=True,
            )
    return roles


def _role(path: str) -> Role:
    name = Path(path).stem.lower()
    words = set(name.replace("-", "_").replace(".", "_").split("_"))
    if words & {"test", "testing", "holdout"}:
        return "test"
    return "validation" if words & {"validation", "valid", "val", "dev", "eval"} else "train"


def _matched(names: tuple[str, ...]) -> tuple[str, ...]:
    """The files of all names, each once; a glob that the shell did not open is opened here. Raises `UsageError`."""
    import glob

    matches: dict[str, None] = {}
    for name in names:
        if not glob.has_magic(name) or Path(name).exists():
            matches[name] = None
            continue
        files = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
        if not files:
            raise UsageError(f"{name}: no file matches.", hint="Check the pattern; ** matches folders at any depth.")
        matches.update(dict.fromkeys(files))
    return tuple(matches)


@contextlib.contextmanager
def _counting(options: Options) -> Iterator[Options]:
    """The options, with a local model's own counter where one is named."""
    if options.model is None:
        yield options
        return
    from ftbridge import files
    from ftbridge.api import with_counter

    if options.target == "local" or Path(options.model).exists():
        files.require_writable(files.home())  # the counter's process writes its log there

    def tell(text: str) -> None:
        if verbosity() > 0:
            click.echo(text, err=True)

    with with_counter(options, progress=tell) as counting:
        yield counting


class _Bar:
    """How far a large file is, on standard error; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty() and verbosity() >= 0
        self._told = 0.0
        self._drawn = False

    def show(self, path: str, done: int, size: int) -> None:
        """Draw it, ten times a second at most."""
        now = time.monotonic()
        if not self._on or size < _BAR_FROM or now - self._told < 0.1:
            return
        self._told, self._drawn = now, True
        utf = (sys.stderr.encoding or "").lower().startswith("utf")
        full, empty = ("━", "─") if utf else ("#", "-")
        filled = 24 * done // size
        bar = f"{full * filled}{empty * (24 - filled)} {done / size:4.0%} {Path(path).name[:40]}"
        self._write(f"\r{bar}\x1b[K")

    def clear(self) -> None:
        """Make room for a line."""
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _write(self, text: Any) -> None:
        print(text, end="", file=sys.stderr, flush=True)
