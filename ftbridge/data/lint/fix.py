"""Write a repaired copy of a file: every safe fix applied, everything else byte for byte as it was.

A fix is safe when nothing a model learns changes and nothing that may mean something goes: line ends, a role in the wrong
case, an id beside the messages. What needs a decision is left and reported. A line in which no rule can fix anything is
known by its shape and copied unread; of any other, all repairs that are found together are made together.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.json_slips import repaired_text
from ftbridge.data.lint.block import Checker
from ftbridge.data.lint.engine import Linting, Options, lint
from ftbridge.data.lint.findings import LintReport
from ftbridge.data.lint.forms import BOM, CONVERTED
from ftbridge.data.lint.plain import plain
from ftbridge.data.lint.rule import Repair, chosen_codes, look
from ftbridge.data.lint.rules import RULES
from ftbridge.data.lint.source import FileFacts, Source
from ftbridge.data.lint.spread import Unspreadable, spread
from ftbridge.errors import UsageError
from ftbridge.files import atomic_path
from ftbridge.strict_json import Parsed, Trouble, parse

KEPT = 10_000
"""Changes that are told one by one; all are counted."""

_ROUNDS = 50
"""Repairs of one line, one after the other: each is looked for again after the one before it."""

_NOTHING = Parsed(None)
"""What rules about JSON are given of a line whose JSON is fixed already."""


class Change(BaseModel):
    """One thing that was fixed: where it stood and stands now (both count from 1; null for the whole file)."""

    model_config = ConfigDict(frozen=True)
    line: int | None
    out_line: int | None
    code: str
    did: str = Field(description="What was done, in the past tense, after the field it was done to.")


class FixReport(BaseModel):
    """What was done to one file, and what is left for a person, as a lint report of the copy."""

    model_config = ConfigDict(frozen=True)
    path: str
    out: str
    lines: int = Field(description="Lines of the copy.")
    changed: int = Field(description="Lines that were fixed inside.")
    changes: list[Change]
    more_changes: int = Field(description=f"Changes beyond the {KEPT:,} that are told one by one.")
    rules: dict[str, int] = Field(default_factory=dict, description="How many changes each rule made, most first.")
    left: LintReport


def fix_files(paths: Sequence[str], out: str, options: Options) -> list[FixReport]:
    """Repair each file into `out`: a file for one, a folder for several (or when it is one). Raises `UsageError`."""
    folder = Path(out)
    if len(paths) == 1 and not folder.is_dir():
        return [fix(paths[0], folder, options)]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out} is a file; to repair several files, name a folder.")
    names = ["stdin.jsonl" if path == "-" else Path(path).name for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two of the files are named {twice}; repair them separately.")
    return [fix(path, folder / name, options) for path, name in zip(paths, names, strict=True)]


def fix(path: str, out: Path, options: Options) -> FixReport:
    """Write a repaired copy of one file, whole or not at all; the original is never touched.

    Rules that are not asked for fix nothing. Raises `UsageError` where the copy would be the original, or there is
    nothing that could be read as lines.
    """
    if path != "-" and out.exists() and Path(path).exists() and out.samefile(path):
        raise UsageError(f"{out} is the input file.", hint="Choose another file: the original is never changed.")
    ignored = dict(options.file_ignores).get(path, ())
    codes = chosen_codes(RULES, options.select, (*options.ignore, *ignored))
    with Linting([path], options) as linting:
        source, facts, checker = linting.prepare(0)
        work = _Repair(checker, facts, frozenset(code for code in codes if RULES[code].severity_for(options.target)))
        with atomic_path(out) as temporary, temporary.open("wb") as target:
            target.write(work.mark())
            for line in work.lines(source):
                target.write(line + b"\n")
            source.check_unchanged()
        method = checker.plan.context.method
    left = lint(out, replace(options, method=method, file_ignores=((str(out), ignored),)))
    return FixReport(
        path=facts.path,
        out=str(out),
        lines=work.written,
        changed=work.changed,
        changes=work.changes,
        more_changes=work.more,
        rules=dict(work.rules.most_common()),
        left=left,
    )


class _Repair:
    """One file under repair. `codes` are the rules asked for that apply to its target."""

    def __init__(self, checker: Checker, facts: FileFacts, codes: frozenset[str]) -> None:
        self._checker, self._facts, self._codes = checker, facts, codes
        self._shapes = checker.shapes if checker.plan.context.method == "supervised" else None
        self.changes: list[Change] = []
        self.rules: Counter[str] = Counter()
        self.written = self.changed = self.more = 0

    def mark(self) -> bytes:
        """The byte order mark of the copy, or nothing."""
        has = self._facts.bom and self._facts.form == "lines"
        policy = self._checker.plan.context.target.bom if "FTB004" in self._codes else "ignored"
        if policy == "needed" and not has:
            self._note(None, None, "FTB004", "added a byte order mark")
        elif policy == "breaks" and self._facts.bom:
            self._note(None, None, "FTB004", "removed the byte order mark")
        return BOM if policy == "needed" or (policy == "ignored" and has) else b""

    def lines(self, source: Source) -> Iterator[bytes]:
        """The repaired file's lines, without line feeds."""
        numbered: Iterable[tuple[int | None, bytes]] = ()
        if self._facts.form == "lines":
            numbered = self._raw_lines(source.file)
        elif self._facts.form != "empty":
            numbered = ((None, value) for value in self._values(source))
        for number, raw in numbered:
            for line in self._one(number, raw):
                self.written += 1
                yield line

    def _raw_lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        file.seek(len(BOM) if self._facts.bom else 0)
        crlf = 0
        for number, raw in enumerate(file, 1):
            line = raw.removesuffix(b"\n")
            if line.endswith(b"\r") and "FTB008" in self._codes:
                line, crlf = line.removesuffix(b"\r"), crlf + 1
            if line.strip() or "FTB007" not in self._codes:
                yield number, line
            else:
                self._note(number, None, "FTB007", "removed a blank line")
        if crlf:
            self._note(None, None, "FTB008", f"ended {crlf:,} lines in LF")

    def _values(self, source: Source) -> list[bytes]:
        """The values of a file that is not JSON Lines: an array's elements, or values one after the other."""
        form, path = self._facts.form, self._facts.path
        if self._facts.detail and form != "wrapped":
            raise UsageError(f"{path} cannot be repaired: it is {self._facts.detail}.", hint=self._facts.advice or None)
        if form not in ("array", "pretty", "wrapped", "utf-16"):
            raise UsageError(
                f"{path} cannot be repaired: it is not JSON text.",
                hint=f"`ftbridge convert {shlex.quote(path)} out.jsonl` reads it." if form in CONVERTED else None,
            )
        try:
            examples = spread(source, self._facts)
        except Unspreadable as error:
            raise UsageError(f"{path} cannot be repaired: {error}.") from None
        if examples.did:
            self._note(None, None, "FTB010", examples.did)
        if form == "utf-16":
            self._note(None, None, "FTB002", "wrote UTF-8")
        else:
            self._note(None, None, "FTB001", f"wrote {len(examples.values):,} examples, one per line")
        return examples.values

    def _one(self, number: int | None, raw: bytes) -> Iterator[bytes]:
        """The lines that one line becomes."""
        if self._shapes and b"\\u00" not in raw and plain(raw, self._shapes):
            yield raw
            return
        parsed = parse(raw)
        if isinstance(parsed, Trouble):
            code = "FTB012" if parsed.kind == "extra" else "FTB010"
            repaired_line = (
                repaired_text(parsed.text) if parsed.kind in ("extra", "json") and code in self._codes else None
            )
            if repaired_line and repaired_line.text is not None:
                self._note(number, self.written + 1, code, repaired_line.did)
                before = self.changed
                yield from self._one(number, repaired_line.text.strip().encode())
                self.changed = before + 1
                return
            pieces = _split(raw) if parsed.kind == "extra" and "FTB012" in self._codes else []
            if pieces:
                self._note(number, self.written + 1, "FTB012", f"wrote {len(pieces)} examples, one a line")
                for piece in pieces:
                    yield from self._one(number, piece)
                return
            yield raw
            return
        if parsed.doubled and not all(same for _, same in parsed.doubled):
            yield raw  # readers keep one or the other: fixing anything else would decide which
            return
        doubled = parsed.doubled and "FTB014" in self._codes
        if doubled:
            self._note(number, self.written + 1, "FTB014", "kept one of two equal keys")
        repaired = self._mend(parsed.document, parsed.text, number)
        self.changed += bool(doubled or repaired)
        yield _dump(parsed.document) if doubled or repaired else raw

    def _mend(self, document: Any, text: str, number: int | None) -> bool:
        """Make every repair in the document; whether there was any."""
        for round in range(_ROUNDS):
            repairs: dict[str, tuple[str, Repair]] = {}
            for rule, problem in self._checker.judge(look(document, self._checker.plan.context, text), _NOTHING):
                if problem.repair is not None:  # of two repairs of one field, the second is looked for again
                    repairs.setdefault(problem.field, (rule.code, problem.repair))
            if not repairs:
                return round > 0
            for field, (code, repair) in repairs.items():
                repair.apply()
                description = (
                    repair.description
                    if field in ("", *repair.description.split())
                    else f"{field}: {repair.description}"
                )
                self._note(number, self.written + 1, code, description)
        return True

    def _note(self, line: int | None, out_line: int | None, code: str, did: str) -> None:
        self.rules[code] += 1
        if len(self.changes) < KEPT:
            self.changes.append(Change(line=line, out_line=out_line, code=code, did=did))
        else:
            self.more += 1


_TEXT = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds where a value ends; what its numbers are does not matter."""


def _split(raw: bytes) -> list[bytes]:
    """The values of a line that holds several; none if something between them is not JSON."""
    text, position = raw.decode(), 0
    pieces: list[bytes] = []
    while position < len(text):
        if text[position] in " \t\r" or (pieces and text[position] == ","):
            position += 1
            continue
        try:
            end = _TEXT.raw_decode(text, position)[1]
        except (ValueError, RecursionError):
            return []
        pieces.append(text[position:end].encode())
        position = end
    return pieces


def _dump(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(document).encode()
