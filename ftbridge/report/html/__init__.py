"""One self-contained HTML page about runs: nothing is loaded from anywhere, whatever completions hold is text.

    runs ─▶ contents ─▶ page ─▶ rendering ─▶ one file
              │           │         └── templates/*.html.j2 (jinja2, all values escaped), style.css, script.js
              │           └── summary, scores, measures, curves, completions, reproduce: what the templates show
              └── reads run folders

Python prepares values: numbers, words, order, coordinates. Templates hold the markup: `report.html.j2`, one file for each
section in `templates/sections/`, and macros. Templates of other packages (`ftbridge.migrate`, `ftbridge.server.api`) extend
`document.html.j2` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftbridge.report.formats.tables import write_output
from ftbridge.report.html.contents import Contents, contents_of
from ftbridge.report.html.page import page
from ftbridge.runs.run import Run


def write_report(runs: Sequence[Run], out: Path | None = None) -> Path:
    """Write a page about one run or several, and return its path.

    `out` defaults to `report.html` in the run's folder; for several, in the first's, to a name that holds the others' ids.
    Raises `UsageError` for no run, one twice or a path that cannot be written, and `DiskFull`.
    """
    contents = contents_of(runs)
    others = "".join(f"-{run.id}" for run in runs[1:])
    return write_page(contents, out or runs[0].path / f"report{others}.html")


def write_page(contents: Contents, path: Path, command: str = "") -> Path:
    """Write a page that is gathered already; `command` is what writes it. Raises as `write_report` does."""
    text = page(contents, command=command)
    text = text.encode("utf-8", "replace").decode()  # completions may hold half a surrogate pair, files cannot
    write_output(path, text)
    return path
