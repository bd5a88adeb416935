"""Findings for programs: GitHub's workflow commands, and SARIF 2.1.0 for code scanning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from ftbridge import __version__
from ftbridge.data.lint.engine import Linting
from ftbridge.data.lint.findings import Finding, LintReport
from ftbridge.data.lint.locate import locate
from ftbridge.data.lint.rules import RULES

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def github(report: LintReport, linting: Linting) -> Iterator[str]:
    """One workflow command a finding (GitHub's documentation, "Workflow commands for GitHub Actions")."""
    for file in report.files:
        for finding in file.findings:
            properties = {"file": file.path, "title": f"{finding.code} {RULES[finding.code].name}"}
            if finding.line is not None:
                region = _region(file.path, finding, linting)
                properties["line"] = str(finding.line)
                for name, key in (("col", "startColumn"), ("endColumn", "endColumn")):
                    if key in region:
                        properties[name] = str(region[key])
            attributes = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
            yield f"::{_COMMANDS[finding.severity]} {attributes}::{_data(_sentence(finding))}"


def sarif(report: LintReport, linting: Linting) -> dict[str, Any]:
    """The report as a SARIF log with one run; columns count UTF-16 units from 1, as SARIF does by default."""
    used = sorted({finding.code for file in report.files for finding in file.findings})
    results = [_result(file.path, finding, used, linting) for file in report.files for finding in file.findings]
    driver = {
        "name": "ftbridge",
        "semanticVersion": __version__,
        "rules": [_rule(code) for code in used],
    }
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    rule = RULES[code]
    return {
        "id": code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.reason},
        "help": {
            "text": f"{rule.reason}\n\nSource: {rule.source}\n\nMore: ftbridge lint --explain {code}",
            "markdown": f"{rule.reason}\n\n*Source: {rule.source}*\n\nMore: `ftbridge lint --explain {code}`",
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(path: str, finding: Finding, used: list[str], linting: Linting) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(path.replace("\\", "/"))}}
    if finding.line is not None:
        location["region"] = _region(path, finding, linting)
    return {
        "ruleId": finding.code,
        "ruleIndex": used.index(finding.code),
        "level": _LEVELS[finding.severity],
        "message": {"text": _sentence(finding)},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"field/v1": f"{finding.code}:{finding.field or ''}:{finding.line}"},
    }


def _region(path: str, finding: Finding, linting: Linting) -> dict[str, int]:
    region = {"startLine": finding.line or 1}
    raw = linting.line_at(path, finding)
    if raw is not None and (finding.field or finding.span):
        text = raw.decode("utf-8", "replace")
        located = locate(text, finding.field, finding.span)
        region["startColumn"] = _units(text[: located.start]) + 1
        region["endColumn"] = _units(text[: max(located.end, located.start + 1)]) + 1
    return region


def at_most(report: LintReport, limit: int) -> LintReport:
    """The report with the first findings only, `limit` in all files together; counts stay complete."""
    files = []
    for file in report.files:
        files.append(file.model_copy(update={"findings": file.findings[:limit]}))
        limit -= len(files[-1].findings)
    return report.model_copy(update={"files": files})


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _sentence(finding: Finding) -> str:
    return f"{finding.field} {finding.message}" if finding.field else finding.message


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_json(report: LintReport) -> str:
    """The report as `lint --json` prints it."""
    return json.dumps(report.model_dump(mode="json"), ensure_ascii=False, indent=2)
