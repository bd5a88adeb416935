"""Find runs by id, prefix or folder."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ftbridge import files
from ftbridge.errors import FtbridgeError, RunNotFound
from ftbridge.runs.run import Run

_LISTED = 10


def find(home: Path, name: str) -> Run:
    """The run called `name`: an id, a unique prefix of one, "latest", or a path to a run folder.

    An id goes before a prefix. Raises `RunNotFound` with the nearest ids, or with those that share the prefix.
    """
    if os.sep in name or name.startswith("."):
        return Run.open(Path(name).expanduser())
    if name == "latest":
        if newest := runs(home)[:1]:
            return newest[0]
        raise RunNotFound(f"there are no runs in {home / 'runs'} yet.", hint=_WHERE)
    ids = [path.name for path in _folders(home)]
    matches = [name] if name in ids else [run_id for run_id in ids if name and run_id.startswith(name)]
    if len(matches) == 1:
        return Run.open(home / "runs" / matches[0])
    if matches:
        listed = "\n".join(f"  {run_id}" for run_id in matches[:_LISTED])
        more = f"\n  and {len(matches) - _LISTED} more" if len(matches) > _LISTED else ""
        raise RunNotFound(
            f"{name!r} begins the ids of {len(matches)} runs:\n{listed}{more}", hint="Give more of the id."
        )
    close = difflib.get_close_matches(name, ids, n=3, cutoff=0.5)
    raise RunNotFound(
        f"no run {name!r} in {home / 'runs'}.", hint=f"Did you mean {' or '.join(close)}?" if close else _WHERE
    )


def runs(home: Path) -> list[Run]:
    """All runs, newest first. Folders that are not runs, or whose journal cannot be read, are passed over."""
    entries: list[tuple[float, str, Run]] = []
    for path in _folders(home):
        run = Run(path)
        try:
            state = run.state()
        except (FtbridgeError, OSError):
            continue
        if state.id:
            entries.append((state.created, run.id, run))
    return [run for _, _, run in sorted(entries, key=lambda item: item[:2], reverse=True)]


def sweep_unfinished(home: Path) -> None:
    """Remove what processes left that were killed while they made a run: scratch folders, half-written files."""
    files.sweep(home, home / "runs")
    for path in _folders(home):
        run = Run(path)
        if not run.lowering_path.exists() and not run.is_driven():
            files.sweep_run(path)


_WHERE = "List them with: ftbridge list (FTBRIDGE_HOME says where they are)."


def _folders(home: Path) -> list[Path]:
    """Folders with a journal; those that begin with a dot are not finished."""
    folder = home / "runs"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and (path / "journal.jsonl").exists())
