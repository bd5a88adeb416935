"""Judge one line by the rules of structure, or by the whole linter."""

import json
from pathlib import Path

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.block import Checker, LintPlan
from ftbridge.data.lint.findings import Finding
from ftbridge.data.lint.rule import look
from ftbridge.data.lint.rules import RULES, Context, Problem, Rule
from ftbridge.data.targets import TARGETS
from ftbridge.strict_json import Parsed

_MODULES = {
    f"ftbridge.data.lint.rules.{name}"
    for name in ("lines", "messages", "order", "tools", "calls", "images", "preference", "reinforcement")
}
STRUCTURE = [rule for rule in RULES.values() if rule.check.__module__ in _MODULES and rule.kind == "line"]
"""The rules about the structure of a line."""

_ELSEWHERE = {
    "FTB078": {"model": "gpt-4.1-nano-2025-04-14"},
    "FTB079": {"target": TARGETS["local"]},
    "FTB019": {"target": TARGETS["local"]},
}
"""Rules whose bad line is bad for another target, or for a model that is named."""


def findings(folder: Path, line: str, method: str, target: str = "openai") -> list[Finding]:
    """What the whole linter finds in a line, by itself; what is wrong with the file as a whole is left out."""
    path = folder / "line.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    report = lint(path, Options(method=method, target=target, jobs=1))  # type: ignore[arg-type]
    return [finding for finding in report.files[0].findings if finding.line is not None]


def verdict(lint_findings: list[Finding]) -> str:
    """The worst severity; "ok" for advice at most."""
    worst = {finding.severity for finding in lint_findings}
    return "error" if "error" in worst else "warning" if "warning" in worst else "ok"


def problems_in(line: str, context: Context) -> list[tuple[str, Problem]]:
    """Problems of the rules of structure, as (code, problem)."""
    return judged_document(json.loads(line), context)


def judged_document(document: object, context: Context) -> list[tuple[str, Problem]]:
    """The same, for a document, which the problems' repairs mend."""
    checker = Checker(LintPlan(context, tuple(rule.code for rule in STRUCTURE)))
    return [(rule.code, problem) for rule, problem in checker.judge(look(document, context), Parsed(document))]


def severity(code: str, problem: Problem, context: Context) -> str | None:
    """How bad a problem is for a target."""
    return problem.severity or RULES[code].severity_for(context.target.name)


def severities(line: str, code: str, method: str = "supervised") -> dict[str, str | None]:
    """A rule's worst severity for a line, by target."""
    by_name = {}
    for target in TARGETS.values():
        context = Context(target=target, method=method)  # type: ignore[arg-type]
        matches = [severity(c, problem, context) for c, problem in problems_in(line, context) if c == code]
        by_name[target.name] = next((s for s in ("error", "warning", "info") if s in matches), None)
    return by_name


def repaired(line: str, method: str = "supervised", target: str = "openai") -> object:
    """The document after every repair, again and again until none is left."""
    document, context = json.loads(line), Context(target=TARGETS[target], method=method)  # type: ignore[arg-type]
    for _ in range(20):
        repair = next((problem.repair for _, problem in judged_document(document, context) if problem.repair), None)
        if repair is None:
            return document
        repair.apply()
    raise AssertionError("repairs do not end")


def context_of(rule: Rule) -> Context:
    """The context in which a rule's bad line is bad."""
    by_name = {"method": rule.methods[0], **_ELSEWHERE.get(rule.code, {})}
    return Context(**by_name)  # type: ignore[arg-type]
