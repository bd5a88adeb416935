"""Text files that output is compared with: a change of a table or a wording is seen in the diff.

FTBRIDGE_WRITE_SNAPSHOTS=1 pytest PATH        rewrites the snapshots of the tests that run
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def require_snapshot(text: str, path: Path) -> None:
    """Require that `text` is what the file at `path` holds, apart from spaces at line ends."""
    shown = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("FTBRIDGE_WRITE_SNAPSHOTS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown, encoding="utf-8")
        return
    assert path.exists(), f"there is no snapshot {path}; write it with FTBRIDGE_WRITE_SNAPSHOTS=1 and read it"
    expected = path.read_text(encoding="utf-8")
    difference = "".join(difflib.unified_diff(expected.splitlines(True), shown.splitlines(True), path.name, "now", n=2))
    assert shown == expected, f"{difference}\nIf this is meant, rewrite it with FTBRIDGE_WRITE_SNAPSHOTS=1."
