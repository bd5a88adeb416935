"""The linter: `lint(paths, Options(...))` for a report, `Linting` for findings as they come.

Names are imported when they are used, so that worker processes load no more than they need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftbridge.data.lint.engine import Linting, Options, lint
    from ftbridge.data.lint.findings import FileReport, Finding, LintReport

METHOD_ALIASES = {"sft": "supervised", "rft": "reinforcement"}
"""Other names of methods that the command and the SDK take."""

__all__ = ["FileReport", "Finding", "LintReport", "Linting", "Options", "lint"]


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in __all__:
        raise AttributeError(f"module 'ftbridge.data.lint' has no attribute {name!r}")
    module = "engine" if name in ("Linting", "Options", "lint") else "findings"
    return getattr(importlib.import_module(f"ftbridge.data.lint.{module}"), name)
