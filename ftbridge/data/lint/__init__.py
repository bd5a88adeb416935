"""The linter: `lint(paths, Options(...))` for a report, `Linting` for findings as they come."""

from ftbridge.data.lint.engine import Linting, Options, lint
from ftbridge.data.lint.findings import FileReport, Finding, LintReport

__all__ = ["FileReport", "Finding", "LintReport", "Linting", "Options", "lint"]
