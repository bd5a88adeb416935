"""The linter has all its rules, whichever of its modules is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = "import importlib, sys; print(len(importlib.import_module(sys.argv[1]).RULES))"


@pytest.mark.parametrize("module", ["block", "engine", "fix", "prepared"])
def test_every_rule_is_registered_whichever_module_is_imported_first(module: str) -> None:
    from ftbridge.data.lint.rules import RULES

    command = [sys.executable, "-c", COUNT, f"ftbridge.data.lint.{module}"]
    counted = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(counted.stdout) == len(RULES) > 100
