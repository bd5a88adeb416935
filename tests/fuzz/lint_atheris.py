"""Fuzz the linter with coverage for as long as wanted; needs `pip install atheris` (Linux, Python up to 3.13).

    cd tests && python -m fuzz.lint_atheris CORPUS_FOLDER -max_total_time=600

Every input is a piece of a file: it must be judged by the fast path as by every rule, and rows must be made of it.
What it finds becomes a case of tests/data/lint/test_bad_input.py.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ftbridge"]):
    from support.lint_inputs import by_every_rule, checker_of, comparable

_CHECKERS = [checker_of(method) for method in ("supervised", "dpo", "reinforcement")]
_ROWS = checker_of(rows=True, count=False)


def one_input(raw: bytes) -> None:
    """Judge the bytes after the first, which chooses the method."""
    checker, raw = _CHECKERS[raw[0] % 3 if raw else 0], raw[1:]
    lines = raw.split(b"\n")
    ends_open = bool(lines[-1])
    if not ends_open:
        lines.pop()
    fast = comparable(checker.check(raw, first=False, last=True).findings)
    every = by_every_rule(lines, checker, ends_open=ends_open)
    if fast != every:
        raise AssertionError(f"{fast} is not {every}")
    _ROWS.check(raw, first=True, last=True)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
