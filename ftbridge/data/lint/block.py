"""Check one piece of a file: every line by the rules, and one row of figures for each example. Runs in a worker.

bytes ─▶ lines ─▶ plain? ──yes──▶ nothing to find ─────────────▶ row
└─no─▶ JSON value ─▶ line rules, text rules ─▶ row
└─ a text rule's screen matches ─▶ that text rule on this line
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ftbridge.data.lint.dataset import Block, Counts, Found
from ftbridge.data.lint.forms import BOM
from ftbridge.data.lint.plain import PlainShapes, plain
from ftbridge.data.lint.rows import Rows
from ftbridge.data.lint.rule import Context, Line, Problem, Rule, look, texts
from ftbridge.data.lint.rules import RULES
from ftbridge.data.lint.screens import RawLines
from ftbridge.data.lint.shape import kind_of_line
from ftbridge.strict_json import Parsed, Trouble, parse

_ESCAPED_ASCII = re.compile(rb"\\u00[0-7]")
"""Letters, digits and signs spelled as escapes, which hide words and keys from a search in bytes."""

_BLANK = b" \t\r"

REFUSED_BY_RUN = "FTB019"
"""The rule that says in a run's own words why it refuses a line, where no other rule, ignored or not, has an error there."""

MOST_IN_A_LINE = 1_000
"""Problems of one rule in one line that are looked for: a line of millions of wrong parts tells no more than that."""


@dataclass(frozen=True)
class LintPlan:
    """What to look for. `rules` are codes; `keep` is how many findings of a rule a block keeps, all are counted."""

    context: Context
    rules: tuple[str, ...]
    keep: int = 1_000
    rows: bool = True
    """Whether examples get rows at all; rules about lines need none."""
    count: bool = True
    """Whether tokens are counted in a hosted model's vocabulary."""
    compare: bool = True
    """Whether examples get hashes, for duplicates, conflicts and leakage."""
    sketch: bool = True
    """Whether examples get a sketch, for near duplicates."""
    encoding: str = "o200k_base"


@dataclass
class Checker:
    """A plan, made ready: the rules by kind, and what is known of shapes. One for each worker."""

    plan: LintPlan
    shapes: PlainShapes = field(init=False)

    def __post_init__(self) -> None:
        """Sort the rules."""
        context = self.plan.context
        active = [RULES[code] for code in self.plan.rules]
        active = [r for r in active if context.method in r.methods and r.severity_for(context.target.name)]
        self.json_rules = [r for r in active if r.kind == "json"]
        self.line_rules = [r for r in active if r.kind == "line"]
        self.text_rules = [r for r in active if r.kind == "text"]
        self.ignored_line_rules = [
            r
            for r in RULES.values()
            if r.kind == "line" and r.code not in (*self.plan.rules, REFUSED_BY_RUN) and context.method in r.methods
        ]
        self.shapes = PlainShapes(self._finds_something)

    def check(self, raw: bytes, *, last: bool, first: bool, finish: bool = True) -> Block:
        """Check a piece. `first` and `last` tell whether it begins and ends the file; `finish` makes the columns too."""
        offset = len(BOM) if first and raw.startswith(BOM) else 0
        pieces = raw[offset:].split(b"\n") if offset else raw.split(b"\n")
        ends_open = bool(pieces[-1]) if last else False
        if not pieces[-1]:
            pieces.pop()
        block = _Work(self, raw, pieces, offset, ends_open).run()
        return block.finish() if finish else block

    def judge(
        self, line: Line, parsed: Parsed, text_rules: Iterable[Rule] | None = None
    ) -> Iterator[tuple[Rule, Problem]]:
        """Every problem of a line that is JSON, by all rules of this plan that look at lines, and by these text rules.

        Without `text_rules` it is all of them.
        """
        written = [(r, problem) for r in self.json_rules for problem in r.check(parsed, self.plan.context)]
        yield from written
        if self.plan.context.trains_here and not written:
            yield from self._judge_as_run(line)
        else:  # a line that is not even read has no other refusal
            yield from ((r, problem) for r, problem in self._judge_line(line) if r.code != REFUSED_BY_RUN)
        yield from self.judge_texts(line, self.text_rules if text_rules is None else text_rules)

    def judge_texts(self, line: Line, rules: Iterable[Rule]) -> Iterator[tuple[Rule, Problem]]:
        """Every problem of a line's texts, by these text rules; fields are set here."""
        chosen = list(rules)
        completion_fields = tuple(f"{spot.at}." for spot in line.messages if spot.role == "assistant")
        elsewhere = [r for r in chosen if not r.answers_only]
        for at, text in texts(line) if chosen else ():
            for r in chosen if at.startswith(completion_fields) else elsewhere:
                for problem in r.check(text, self.plan.context):
                    yield r, problem._replace(field=problem.field or at)

    def _judge_line(self, line: Line) -> Iterator[tuple[Rule, Problem]]:
        """Every problem of a line, by the rules of its structure."""
        for r in self.line_rules:
            yield from ((r, problem) for problem in itertools.islice(r.check(line), MOST_IN_A_LINE))

    def _judge_as_run(self, line: Line) -> Iterator[tuple[Rule, Problem]]:
        """A line for this machine: its errors are what a run refuses to prepare, and the errors of the example it prepares."""
        problems = list(self._judge_line(line))
        prepared = line.as_run.document
        if prepared is None:
            others = [(r, problem) for r, problem in problems if r.code != REFUSED_BY_RUN]
            ignored = ((r, problem) for r in self.ignored_line_rules for problem in r.check(line))
            has_error = any(self._is_error(r, problem) for r, problem in itertools.chain(others, ignored))
            yield from others if has_error else problems
            return
        context = replace(self.plan.context, is_prepared=True)
        there = list(self._judge_line(look(prepared, context))) if prepared != line.document else problems
        errors = [(r, problem) for r, problem in there if self._is_error(r, problem)]
        codes = {r.code for r, _ in errors}
        for r, problem in problems:
            if self._is_error(r, problem):
                yield r, problem if r.code in codes else problem._replace(severity="info")
            elif r.code not in codes:
                yield r, problem
        as_written = {r.code for r, problem in problems if self._is_error(r, problem)}
        yield from ((r, problem) for r, problem in errors if r.code not in as_written)

    def _is_error(self, r: Rule, problem: Problem) -> bool:
        return (problem.severity or r.severity_for(self.plan.context.target.name)) == "error"

    def judge_trouble(self, trouble: Trouble) -> Iterator[tuple[Rule, Problem]]:
        """Every problem of a line that is not JSON."""
        for r in self.json_rules:
            yield from ((r, problem) for problem in r.check(trouble, self.plan.context))

    def _finds_something(self, sample: dict[str, object]) -> bool:
        line = look(sample, self.plan.context)
        return any(True for r in self.line_rules for _ in r.check(line))


class _Work:
    """One piece being checked."""

    def __init__(self, checker: Checker, raw: bytes, lines: list[bytes], offset: int, ends_open: bool) -> None:
        self.checker, self.raw, self.lines, self.ends_open = checker, raw, lines, ends_open
        self.plan, self.context = checker.plan, checker.plan.context
        self.tally = Counts(lines=len(lines), crlf=raw.count(b"\r\n") if b"\r" in raw else 0)
        self.findings: list[Found] = []
        self.counts: dict[str, int] = {}
        self.rows = Rows(self.plan) if self.plan.rows else None
        self.starts = list(itertools.accumulate([len(line) + 1 for line in lines], initial=offset))

    def run(self) -> Block:
        escaped = b"\\u00" in self.raw and _ESCAPED_ASCII.search(self.raw) is not None
        screened = self._screened() if self.checker.text_rules else {}
        shapes = self.checker.shapes if self.context.method == "supervised" else None
        rows, starts, tally, clean = self.rows, self.starts, self.tally, 0
        for index, raw in enumerate(self.lines):
            veiled = escaped and _ESCAPED_ASCII.search(raw) is not None
            if shapes and not veiled and (plain_rows := plain(raw, shapes)):
                clean += 1
                if rows:
                    rows.add_chat(index + 1, starts[index], *plain_rows, tally)
                if index in screened:
                    self._texts_only(index, raw, screened[index])
            elif raw.strip(_BLANK):
                self._slow(index, raw, None if veiled else screened.get(index, ()))
            else:
                tally.blank += 1
        tally.examples += clean
        if clean:
            tally.methods["supervised"] += clean
        return Block(tally, self.findings, None, rows.columns if rows else None)

    def _screened(self) -> dict[int, list[Rule]]:
        """Lines in which a text rule may find something, by searching the whole piece for each rule's screen."""
        suspects: dict[int, list[Rule]] = {}
        piece = RawLines(self.raw)
        for r in self.checker.text_rules:
            if r.screen is None:
                continue
            seen = -1
            for position in r.screen(piece):
                index = max(bisect.bisect_right(self.starts, position) - 1, 0)
                if index != seen and (not suspects.get(index) or suspects[index][-1] is not r):
                    suspects.setdefault(index, []).append(r)
                seen = index
        return suspects

    def _texts_only(self, index: int, raw: bytes, rules: list[Rule]) -> None:
        parsed = parse(raw)
        if isinstance(parsed, Parsed):
            line = look(parsed.document, self.context, parsed.text)
            self._tell(index, self.checker.judge_texts(line, rules))

    def _slow(self, index: int, raw: bytes, text_rules: Iterable[Rule] | None) -> None:
        parsed = parse(raw, ends_with_newline=not (self.ends_open and index == len(self.lines) - 1))
        if isinstance(parsed, Trouble):
            self.tally.methods["unknown"] += 1
            self._tell(index, self.checker.judge_trouble(parsed))
            return
        line = look(parsed.document, self.context, parsed.text)
        taught = as_trained(line)
        self.tally.methods[kind_of_line(taught.document)] += 1
        if text_rules is None:
            text_rules = _unveiled(parsed.document, self.checker.text_rules)
        self._tell(index, self.checker.judge(line, parsed, text_rules))
        if isinstance(taught.document, dict):
            self.tally.examples += 1
            if self.rows and taught.messages:  # what has no message is reported by line, and compares with nothing
                self.rows.add_line(index + 1, self.starts[index], taught, self.tally)

    def _tell(self, index: int, problems: Iterable[tuple[Rule, Problem]]) -> None:
        failed = False
        for r, problem in problems:
            severity = problem.severity or r.severity_for(self.context.target.name) or "info"
            failed |= severity == "error"
            self.tally.codes[r.code, severity] += 1
            self.tally.fixable += problem.repair is not None or bool(problem.fix)
            self.counts[r.code] = self.counts.get(r.code, 0) + 1
            if self.counts[r.code] <= self.plan.keep:
                fix = problem.repair.description if problem.repair else problem.fix
                self.findings.append(
                    Found(r.code, severity, index + 1, self.starts[index], problem.field, problem.message, fix,
                          problem.span, problem.secret)
                )  # fmt: skip
        self.tally.unfit += failed


def _unveiled(document: Any, rules: list[Rule]) -> list[Rule]:
    """Text rules that may find something in a line whose own bytes hide ASCII behind escapes."""
    try:
        piece = RawLines(json.dumps(document).encode())
    except RecursionError:
        return rules
    return [r for r in rules if r.screen is None or any(True for _ in r.screen(piece))]


def document_of(raw: bytes) -> Any:
    """The JSON value of a line, or None: for those who come back to a line that was checked before."""
    parsed = parse(raw)
    return parsed.document if isinstance(parsed, Parsed) else None


def example_of(document: Any, context: Context) -> Any:
    """The example that a line is where it goes: for this machine, as a run prepares it."""
    return as_trained(look(document, context)).document


def as_trained(line: Line) -> Line:
    """The line that is trained on: for this machine, as a run prepares it, if it does."""
    if not line.context.trains_here or line.as_run.document in (None, line.document):
        return line
    return look(line.as_run.document, line.context)
