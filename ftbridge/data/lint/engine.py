"""Lint files: read each in pieces, check the pieces side by side, then judge the whole file and the job's files together.

`Linting` is the work as it goes: iterate it for findings, in order, as soon as they are known; `report()` afterwards (or
after an interrupt, for what was found so far).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ftbridge.data.lint import shape
from ftbridge.data.lint.as_run import file_records, is_read_as_lines, obstacle
from ftbridge.data.lint.block import Checker, LintPlan, document_of, example_of
from ftbridge.data.lint.counting import ModelCounter, recount
from ftbridge.data.lint.dataset import Block, Columns, Counts, Dataset, Found, Splits, join
from ftbridge.data.lint.findings import FileReport, Finding, LintReport, report, text_of, token_counts
from ftbridge.data.lint.forms import BOM, TO_CONVERT, is_utf8
from ftbridge.data.lint.parallel import WorkerPool
from ftbridge.data.lint.rule import Context, Kind, Method, Problem, Rule, chosen_codes
from ftbridge.data.lint.rules import RULES
from ftbridge.data.lint.source import Chunk, FileFacts, Source
from ftbridge.data.lint.spread import SpreadLines, Unspreadable, distinct_numbers, spread
from ftbridge.data.lint.worker import FileJob
from ftbridge.data.targets import TARGETS
from ftbridge.data.tokens import encoding_for

Role = Literal["train", "validation", "test"]
Progress = Callable[[str, int, int], None]
"""Called with a file's path, bytes checked and bytes in all."""

_SMALL = 3 << 20
"""Bytes up to which starting other processes costs more than it saves."""

_MOST_JOBS = 8
"""Processes where their number is not told."""


@dataclass(frozen=True)
class Options:
    """What to lint for.

    `method` None is found out from each file. `select` and `ignore` are codes or their beginnings (FTB2 is all of
    FTB200..299); an empty `select` is every rule. `keep` bounds the findings kept for each rule and file (all are
    counted). `jobs` is the number of processes, 0 for one a core. `variables` are what the job's graders read
    (`item.reference`). `counter` counts with a local model instead of a hosted model's vocabulary.
    """

    target: str = "openai"
    method: Method | None = None
    model: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep: int = 1_000
    jobs: int = 0
    variables: tuple[str, ...] = ()
    counter: ModelCounter | None = None
    file_ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Codes that are ignored in one file only, by the path it was named by."""
    is_prepared: bool = False
    """Whether the files are a run's prepared data, which no run reads and prepares again."""


@dataclass
class _File:
    source: Source
    role: Role
    codes: tuple[str, ...]
    facts: FileFacts = field(init=False)
    numbers: list[int] | None = None
    """How findings name the records of a file that is not JSON Lines, which `source` has on lines; None for its own lines."""
    tally: Counts = field(default_factory=Counts)
    pieces: list[Columns] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    reported: Counter[str] = field(default_factory=Counter)
    secrets: dict[int | None, list[Finding]] = field(default_factory=dict)
    method: Method = "supervised"
    dataset: Dataset | None = None

    @property
    def is_lines(self) -> bool:
        """Whether there are lines to look at."""
        return self.facts.form == "lines" or self.numbers is not None

    def number(self, line: int) -> int:
        """The number by which findings name a line of `source`."""
        return line if self.numbers is None else self.numbers[line - 1]


class Linting:
    """Linting under way. Iterate for findings; close it, or use it as a context, to end its processes and files."""

    def __init__(
        self,
        paths: Sequence[str],
        options: Options,
        *,
        roles: Sequence[Role] = (),
        whole_job: bool | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Open every file. `roles` tell which of a job's files each is (train where not told). Raises `UsageError`.

        `whole_job` says whether these are all files of a job, so that one that is missing is a fault; by default they are
        where roles are told.
        """
        if options.target not in TARGETS:
            raise ValueError(f"target {options.target}")
        self.options = options
        self._whole_job = bool(roles) if whole_job is None else whole_job
        ignores = dict(options.file_ignores)
        self._progress = progress or (lambda path, done, size: None)
        self._crew: WorkerPool | None = None
        self._files: list[_File] = []
        self._complete = False
        chosen_roles: list[Role] = [*roles, *["train" for _ in paths[len(roles) :]]]  # type: ignore[list-item]
        try:
            for path, role in zip(paths, chosen_roles, strict=True):
                codes = chosen_codes(RULES, options.select, (*options.ignore, *ignores.get(path, ())))
                source = Source(path)
                self._files.append(_File(source, role, codes))
                self._files[-1].facts = source.facts()
                if options.target == "local" and not options.is_prepared:
                    _read_as_run(self._files[-1])
                elif self._files[-1].facts.form == "wrapped":
                    _spread_out(self._files[-1])
                elif self._files[-1].facts.form in TO_CONVERT:
                    _correct_advice(self._files[-1])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Linting:
        """The work itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End it."""
        self.close()

    def __iter__(self) -> Iterator[tuple[str, Finding]]:
        """Every finding kept, with its file's path: line by line, then those about whole files, then about all."""
        for file in self._files:
            file.method = self.options.method or _method(file)
        self._crew = self._new_crew()
        for index, file in enumerate(self._files):
            for finding in self._check(index, file):
                yield file.facts.path, finding
        self._crew.close()
        yield from self._check_together()
        self._complete = True

    def prepare(self, index: int) -> tuple[Source, FileFacts, Checker]:
        """One file, its first look, and the rules that fix its lines, for those who repair rather than report."""
        file = self._files[index]
        file.method = self.options.method or _method(file)
        plan = self._plan(file, self._context(file))
        fixing = tuple(code for code in plan.rules if RULES[code].fixable and RULES[code].kind == "line")
        return file.source, file.facts, Checker(replace(plan, rules=fixing))

    def report(self) -> LintReport:
        """The report of what was found so far; whole once iteration has ended."""
        return report(
            [self._describe(file) for file in self._files], target=self.options.target, complete=self._complete
        )

    def line_at(self, path: str, finding: Finding) -> bytes | None:
        """The line a finding is about, as it stands in its file; None for a whole file."""
        if finding.start is None:
            return None
        return next(file.source.line_at(finding.start) for file in self._files if file.facts.path == path)

    def secrets_at(self, path: str, line: int | None) -> list[Finding]:
        """Findings of one line whose piece must not be shown, whichever finding of the line is."""
        file = next(file for file in self._files if file.facts.path == path)
        return file.secrets.get(line, [])

    def close(self) -> None:
        """End processes and close files."""
        if self._crew:
            self._crew.close()
        for file in self._files:
            file.source.close()

    # One file

    def _check(self, index: int, file: _File) -> Iterator[Finding]:
        facts = file.facts
        context = self._context(file)
        yield from self._whole(file, "file", facts, context)
        if file.is_lines:
            assert self._crew
            size = file.source.size
            for piece, block in self._crew.blocks(index, file.source.pieces(), size=size, alone=size <= _SMALL):
                yield from self._merge(file, piece, block)
                self._progress(facts.path, piece.start + piece.length, size)
            file.source.check_unchanged()
            if all(later.facts.bytes <= _SMALL for later in self._files[index + 1 :]):
                self._crew.close()  # so that the children's memory is free for the rules about whole files
        tally = file.tally
        file.facts = replace(facts, lines=tally.lines, crlf=tally.crlf, blank=tally.blank)
        yield from self._whole(file, "file", file.facts, context, again=True)
        if (file.is_lines or facts.form == "empty") and self._plan(file, context).rows:
            yield from self._data(file, context)

    def _data(self, file: _File, context: Context) -> Iterator[Finding]:
        columns = join(file.pieces)
        counted = encoding_for(self.options.model)
        file.dataset = Dataset(file.facts.path, file.facts.bytes, file.role, file.method, file.tally, columns, counted)
        file.dataset.read = lambda start: example_of(document_of(file.source.line_at(start)), context)
        if self.options.counter and self._needs_tokens(file):
            recount(file.dataset, self.options.counter)
        yield from self._whole(file, "data", file.dataset, context)

    def _merge(self, file: _File, piece: Chunk, block: Block) -> Iterator[Finding]:
        lines = file.tally.lines
        file.tally.add(block.tally)
        selected = [finding for finding in block.findings if self._keep(file, finding.code)]
        fresh = [_finding(finding, file.number(finding.line + lines), piece.start) for finding in selected]
        file.findings += fresh
        for finding in fresh:  # all of them before the first is told: secrets are masked for their whole line
            if finding.secret:
                file.secrets.setdefault(finding.line, []).append(finding)
        yield from fresh
        if columns := block.finish().columns:
            columns.line += lines
            if file.numbers is not None:
                import numpy as np

                columns.line = np.array(file.numbers, np.int32)[columns.line - 1]
            columns.start += piece.start
            file.pieces.append(columns)

    # Whole files, and all together

    def _whole(
        self, file: _File, kind: Kind, subject: object, context: Context, *, again: bool = False
    ) -> Iterator[Finding]:
        for rule in self._rules(file, kind, context):
            if kind == "file" and again != rule.late:
                continue
            for problem in rule.check(subject, context):
                if finding := self._note(file, rule, problem):
                    yield finding

    def _check_together(self) -> Iterator[tuple[str, Finding]]:
        datasets = [file.dataset for file in self._files if file.dataset is not None]
        by_path = {file.facts.path: file for file in self._files}
        splits = Splits(datasets, is_complete=self._whole_job)
        if not self._files:
            return
        context = self._context(self._files[0])
        for rule in self._rules(self._files[0], "split", context):
            for path, problem in rule.check(splits, context):
                if rule.code in by_path[path].codes and (finding := self._note(by_path[path], rule, problem)):
                    yield path, finding

    def _note(self, file: _File, rule: Rule, problem: Problem) -> Finding | None:
        severity = problem.severity or rule.severity_for(self.options.target) or "info"
        file.tally.codes[rule.code, severity] += 1
        file.tally.fixable += problem.repair is not None or bool(problem.fix)
        if not self._keep(file, rule.code):
            return None
        start = None
        if problem.line is not None and file.dataset is not None:
            start = file.dataset.start_of(problem.line)
        fix = problem.repair.description if problem.repair else problem.fix
        finding = Finding(
            code=rule.code, severity=severity, line=problem.line, field=text_of(problem.field) or None,
            message=text_of(problem.message),
            fix=fix and text_of(fix), span=problem.span, secret=problem.secret, start=start,
        )  # fmt: skip
        file.findings.append(finding)
        return finding

    def _keep(self, file: _File, code: str) -> bool:
        file.reported[code] += 1
        return file.reported[code] <= self.options.keep

    def _rules(self, file: _File, kind: Kind, context: Context) -> Iterable[Rule]:
        for code in file.codes:
            rule = RULES[code]
            if rule.kind == kind and context.method in rule.methods and rule.severity_for(context.target.name):
                yield rule

    def _context(self, file: _File) -> Context:
        options = self.options
        longest = options.counter.limit if options.counter else None
        return Context(
            TARGETS[options.target], file.method, options.model, file.role, variables=options.variables, longest=longest,
            path=file.facts.path, is_prepared=options.is_prepared,
        )  # fmt: skip

    def _needs_tokens(self, file: _File) -> bool:
        return any("tokens" in RULES[code].needs for code in file.codes)

    def _plan(self, file: _File, context: Context) -> LintPlan:
        file_rules = [rule for kind in ("data", "split") for rule in self._rules(file, kind, context)]
        counts = any("tokens" in rule.needs for rule in file_rules)
        return LintPlan(
            context=context,
            rules=tuple(code for code in file.codes if RULES[code].kind in ("json", "line", "text")),
            keep=self.options.keep,
            rows=bool(file_rules),
            count=counts and self.options.counter is None,
            compare=any("hashes" in rule.needs for rule in file_rules),
            sketch=any("sketch" in rule.needs for rule in file_rules),
            encoding=encoding_for(self.options.model),
        )

    def _new_crew(self) -> WorkerPool:
        """The processes for these files, which are not started before a large file comes."""
        subjects = [
            FileJob(file.facts.path, file.source.descriptor, self._plan(file, self._context(file)))
            for file in self._files
        ]
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        return WorkerPool(subjects, self.options.jobs or min(_MOST_JOBS, cores))

    def _describe(self, file: _File) -> FileReport:
        tally = file.tally
        by_severity: Counter[str] = Counter()
        by_code: Counter[str] = Counter()
        for (code, severity), count in tally.codes.items():
            by_severity[severity] += count
            by_code[code] += count
        counted = token_counts(file.dataset) if file.dataset else None
        return FileReport(
            path=file.facts.path, examples=tally.examples, tokens=counted.total if counted else None,
            errors=by_severity["error"], warnings=by_severity["warning"], infos=by_severity["info"],
            findings=file.findings, method=file.method, lines=tally.lines, bytes=file.facts.bytes,
            rules=dict(by_code.most_common()), fixable=tally.fixable, token_counts=counted,
        )  # fmt: skip


def lint(
    paths: str | Path | Sequence[str | Path],
    options: Options = Options(),
    *,
    roles: Sequence[Role] = (),
    progress: Progress | None = None,
) -> LintReport:
    """Lint files to the end and report. Raises `UsageError` for files that cannot be read."""
    listed = [paths] if isinstance(paths, (str, Path)) else paths
    with Linting([str(path) for path in listed], options, roles=roles, progress=progress) as linting:
        for _ in linting:
            pass
        return linting.report()


def _correct_advice(file: _File) -> None:
    """Say what stands in the way, rather than that `convert` reads the file, where its reader does not."""
    other = file.facts.form == "table" and not is_utf8(file.source.first_bytes())
    file.source.file.seek(0)
    if stopped := obstacle(file.source.file, file.facts.path, "cp1252" if other else None):
        advice = f"`ftbridge convert` does not read it as it is: {stopped}"
        file.facts = replace(file.facts, advice=advice)


def _spread_out(file: _File) -> SpreadLines | None:
    """The examples of a JSON array or object, each on one line; what stands in the way is noted in the file's facts."""
    try:
        return spread(file.source, file.facts)
    except Unspreadable as error:
        file.facts = replace(file.facts, advice=str(error))
        return None


def _read_as_run(file: _File) -> None:
    """Put the records of a file that is not JSON Lines on lines, as a run here reads them, and note what it cannot read."""
    source, form = file.source, file.facts.form
    if form == "empty" or (form == "lines" and is_read_as_lines(file.facts.path, source.first_bytes()[:1])):
        return
    examples = _spread_out(file) if form in ("array", "wrapped") else None
    if form in ("array", "wrapped") and examples is None:
        return
    source.file.seek(0)
    records = file_records(source.file, file.facts.path)
    if form == "lines" and not records.problems and source.is_one_to_one(len(records.lines)):
        return  # what the reader finds are the lines as they stand
    file.facts = replace(file.facts, refusals=records.problems, is_read_here=bool(records.lines))
    if examples is not None and len(examples.values) == len(records.lines):
        lines, numbers = examples.values, examples.numbers  # as they are written
    else:
        lines, numbers = records.lines, distinct_numbers(records.numbers)
    if form == "lines" and not lines:
        return
    file.source, file.numbers = source.rewritten(lines), numbers
    source.close()


def _method(file: _File) -> Method:
    """The method of the first lines."""
    if not file.is_lines:
        return "supervised"
    source = file.source
    head = source.read(Chunk(0, min(1 << 18, source.size)))
    head = head if b"\n" in head else source.line_at(0, 1 << 25)
    lines = head.removeprefix(BOM).split(b"\n")[:200]
    return shape.method_of(shape.kind_of_line(document_of(line)) for line in lines)


def _finding(raw: Found, line: int, start: int) -> Finding:
    return Finding(
        code=raw.code,
        severity=raw.severity,
        line=line,
        field=text_of(raw.field) or None,
        message=text_of(raw.message),
        fix=raw.fix and text_of(raw.fix),
        span=raw.span,
        secret=raw.secret,
        start=raw.start + start,
    )
