"""Find runs by id, prefix or folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from ftbridge.errors import FtbridgeError, RunNotFound
from ftbridge.runs.run import Run, open_run


def find(home: Path, name: str) -> Run:
    """The run called `name`: an id, a unique prefix of one, a run folder, or "latest". Raises `RunNotFound`."""
    if ("/" in name or name.startswith(".")) and (Path(name) / "journal.jsonl").exists():
        return open_run(Path(name).resolve())
    folders = _folders(home)
    if name == "latest" and folders:
        return runs(home)[0]
    matches = [path for path in folders if path.name == name] or [path for path in folders if path.name.startswith(name)]
    if len(matches) == 1:
        return open_run(matches[0])
    if matches:
        listed = "\n".join(f"  {path.name}" for path in matches)
        raise RunNotFound(f"{name!r} begins the ids of {len(matches)} runs:\n{listed}", hint="Give more of the id.")
    close = difflib.get_close_matches(name, [path.name for path in folders], n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}?" if close else "List them with: ftbridge list (FTBRIDGE_HOME says where they are)."
    raise RunNotFound(f"no run {name!r} in {home / 'runs'}.", hint=hint)


def runs(home: Path) -> list[Run]:
    """All runs, newest first. Folders that are not runs, or whose journal cannot be read, are passed over."""
    found: list[tuple[float, Run]] = []
    for path in _folders(home):
        run = Run(path)
        try:
            found.append((run.state().created, run))
        except FtbridgeError:
            continue
    return [run for _, run in sorted(found, key=lambda item: (item[0], item[1].id), reverse=True)]


def _folders(home: Path) -> list[Path]:
    folder = home / "runs"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if (path / "journal.jsonl").exists() and path.name[0] != ".")
