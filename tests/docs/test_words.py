"""The list of words that the project does not use is checked, and the check can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_words  # noqa: E402


def test_no_unused_word_occurs() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_words.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_bindings_of_every_kind_are_counted() -> None:
    code = "class Told:\n    def asked(self, kept):\n        self.made = [found for found in kept]\n"
    assert {name for name, _ in check_words.names_in(ast.parse(code))} >= {"Told", "asked", "kept", "made", "found"}


def test_uses_of_a_name_are_not_counted() -> None:
    assert list(check_words.names_in(ast.parse("print(told.asked)"))) == []
