"""Lint a run's prepared data: the canonical splits, with every finding told where the line came from.

A run lints the very bytes that it trains on, whatever format they were read from, before anything is spent.
"""

from __future__ import annotations

import json
from pathlib import Path

from ftbridge.data.convert.formats import data_error
from ftbridge.data.lint.engine import Options, Role, lint
from ftbridge.data.lint.findings import Finding, LintReport, report
from ftbridge.data.lint.rule import Method
from ftbridge.data.lint.rules import RULES
from ftbridge.data.replay import PROMPTS
from ftbridge.errors import DataError

_TOO_FEW = frozenset(code for code, rule in RULES.items() if rule.name == "too-few-examples")
_SPLITS: tuple[Role, ...] = ("train", "validation", "test")
_NOT_OF_REPLAY = tuple(
    code for code, rule in RULES.items() if rule.name in ("too-few-examples", "few-examples", "no-item-fields")
)
"""Rules of reinforcement data that say nothing of prompts without a grader."""


def lint_prepared(folder: Path, *, method: Method, target: str, model: str | None) -> LintReport:
    """Lint the splits in a prepared folder for where they go.

    Leakage between splits is left to preparation, which refuses it with both origins. Replay prompts are linted as those
    of reinforcement are.
    """
    splits = [split for split in _SPLITS if (folder / f"{split}.jsonl").exists()]
    ignored = tuple(code for code, rule in RULES.items() if rule.kind == "split" and rule.needs)
    options = Options(target=target, method=method, model=model, ignore=ignored, keep=50, is_prepared=True)
    linted = lint([folder / f"{split}.jsonl" for split in splits], options, roles=splits)
    if not (prompts := folder / PROMPTS).exists():
        return linted
    options = Options(
        target="local", method="reinforcement", ignore=(*ignored, *_NOT_OF_REPLAY), keep=50, is_prepared=True
    )
    return report([*linted.files, *lint([prompts], options).files], target=target)


def stop_on_errors(report: LintReport, folder: Path) -> None:
    """Raise `DataError` with every error that was kept, each with the file and line it came from."""
    if report.ok:
        return
    origins: dict[str, list[str]] = json.loads((folder / "lines.json").read_bytes())
    problems = [
        _sentence(finding, Path(file.path).stem, origins)
        for file in report.files
        for finding in file.findings
        if finding.severity == "error"
    ]
    errors = ((file, finding) for file in report.files for finding in file.findings if finding.severity == "error")
    file, finding = next(errors)
    raise DataError(
        data_error(problems).message,
        problems=problems,
        hint="Repair the data, or start anyway with --no-lint.",
        split=Path(file.path).stem,
        too_few=finding.code in _TOO_FEW,
    )


def summary(report: LintReport) -> list[str]:
    """One sentence for each rule that warns, for a run's notes."""
    warned: dict[str, int] = {}
    for file in report.files:
        for finding in file.findings:
            if finding.severity == "warning":
                warned[finding.code] = file.rules.get(finding.code, 0)
    return [f"{code} {RULES[code].name}: {count:,} warnings in the prepared data." for code, count in warned.items()]


def _sentence(finding: Finding, split: str, origins: dict[str, list[str]]) -> str:
    at = f"{split} data" if finding.line is None else origins[split][finding.line - 1]
    field = f" {finding.field}" if finding.field else ""
    return f"{at}{field} {finding.message} ({finding.code})"
