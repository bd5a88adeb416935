"""Files that are either whole or absent: write to a temporary name, flush, rename; and the hashes that name content."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftbridge.errors import DiskFull, UsageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


def home() -> Path:
    """The folder that holds runs and caches: `$FTBRIDGE_HOME`, or `.ftbridge` in the working directory.

    It need not be there yet. Raises `UsageError` for what is there and is no folder, or one that cannot be read.
    """
    named = Path(os.environ.get("FTBRIDGE_HOME") or ".ftbridge")
    hint = "Point FTBRIDGE_HOME at a folder that can be read and written."
    try:
        path = named.resolve()
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError) as error:  # Python 3.11 has RuntimeError for links in a circle
        why = getattr(error, "strerror", None) or "its links go in a circle"
        raise UsageError(f"the home folder {named} cannot be used ({why}).", hint=hint) from error
    if not is_folder:
        raise UsageError(f"the home folder {path} is not a folder.", hint=hint)
    if not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"the home folder {path} cannot be read.", hint=hint)
    return path


@contextlib.contextmanager
def disk_full_is_an_error(path: Path) -> Iterator[None]:
    """Turn "no space left" while writing under `path` into `DiskFull`, and "cannot be written to" into `UsageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise UsageError(
                f"cannot write to {path} ({error.strerror}).",
                hint="Point FTBRIDGE_HOME, or the path that was named, at a folder that can be written to.",
            ) from error
        if error.errno in _NO_ROOM:
            raise DiskFull(
                f"no room left on the disk that holds {path} ({error.strerror}).",
                hint="Free some space and resume the run; everything written before is complete.",
            ) from error
        raise


def require_room(path: Path, needed_bytes: int, purpose: str) -> None:
    """Raise `DiskFull` when the disk that will hold `path` has less than `needed_bytes` free."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        needed, room = _sizes(needed_bytes, free)
        raise DiskFull(
            f"{purpose} needs {needed} on the disk that holds {path}; {room} are free.",
            hint="Free some space, or point FTBRIDGE_HOME at a larger disk.",
        )


def _sizes(needed: int, free: int) -> tuple[str, str]:
    """Two numbers of bytes in the largest unit that `needed` fills, or in bytes where they would read the same."""
    name, unit = next((name, unit) for name, unit in _UNITS if needed >= unit or unit == 1)
    one, other = f"{needed / unit:.3g} {name}", f"{free / unit:.3g} {name}"
    return (f"{needed:,} bytes", f"{free:,} bytes") if one == other or unit == 1 else (one, other)


_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("bytes", 1))


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises `UsageError` where that cannot be, such as under /proc, or `DiskFull`."""
    with disk_full_is_an_error(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError) as error:
            raise NotADirectoryError(errno.ENOTDIR, error.strerror or "no folder can be made there") from error


def require_writable(folder: Path) -> None:
    """Make a folder where there is none, and write to it. Raises `UsageError` where that cannot be, or `DiskFull`."""
    make_folder(folder)
    with disk_full_is_an_error(folder):
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except FileNotFoundError as error:  # so does /proc refuse
            raise PermissionError(errno.EACCES, error.strerror) from error


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is flushed and renamed onto it, on failure removed."""
    make_folder(target.parent)
    with disk_full_is_an_error(target):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            temporary.chmod(0o666 & ~_umask())
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` to `target`, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write `content` to `target` as UTF-8, whole or not at all."""
    write_bytes(target, content.encode())


def write_json(target: Path, document: Any) -> None:
    """Write `document` to `target` as indented JSON, whole or not at all."""
    write_text(target, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut (a no-op where the system cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_bytes(content: bytes) -> str:
    """The SHA-256 of `content`, in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as `parent`, removed at the end; what is to stay is renamed out of it.

    What a killed process left is removed first: a folder in use has a file in it that its process locks. (Not the folder
    itself: that lock is taken while scratch folders are made in it, and a scratch folder may hold others.)
    """
    make_folder(parent)
    with disk_full_is_an_error(parent):
        sweep(parent)
        with _locked_folder(parent):
            folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
            alive = os.open(folder / _ALIVE, os.O_RDONLY | os.O_CREAT, 0o600)
            fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(alive)


def sweep(*parents: Path) -> None:
    """Remove scratch folders in these folders whose process is gone."""
    for parent in parents:
        left = list(parent.glob(f"{_SCRATCH}*"))
        if not left:
            continue
        with contextlib.suppress(OSError), _locked_folder(parent):
            for folder in left:
                if _is_left(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def sweep_run(folder: Path) -> None:
    """Remove what a killed driver left in its run folder: half-written files, copies for an upload. For the driver alone."""
    places = [folder, folder / "openai", folder / "predictions", folder / "data"]
    patterns = (".*.tmp", "requests-*.jsonl", "train.jsonl", "validation.jsonl")
    for run_folder in places:
        for pattern in patterns if run_folder.name == "openai" else patterns[:1]:
            for path in run_folder.glob(pattern):
                if not path.name.startswith(_OTHERS_WRITE):
                    path.unlink(missing_ok=True)


_SCRATCH = ".scratch-"
_ALIVE = ".in-use"
_OTHERS_WRITE = (".report",)
"""Temporary files of commands that do not hold the driver's lock."""


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder's own lock: scratch folders in it are made and swept one at a time, so that none is swept unlocked."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_left(folder: Path) -> bool:
    """Whether nobody holds the lock in the folder; the kernel lets go of it when its process dies.

    A folder without it belongs to a process that died while it made the folder: both are made under the parent's lock.
    """
    try:
        descriptor = os.open(folder / _ALIVE, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
