"""Find and open the files of a source: paths, globs, https addresses, hf:// datasets; downloads go on where they broke off."""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from ftbridge.data.reading.hub import dataset_files, hub_headers
from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.files import disk_full_is_an_error
from ftbridge.http import Policy, backoff, is_transient, retrying

LARGEST_DOWNLOAD = 1_000_000_000
"""Bytes after which a download is given up."""
DOWNLOAD_TRIES = 3
"""Tries in a row that bring nothing, before a download is given up."""
LONGEST_DOWNLOAD_WAIT = 5.0
"""Seconds between two tries, at most."""


@dataclass(frozen=True)
class SourceFile:
    """A file to read: `label` is how the user would name it, `place` its path or address."""

    label: str
    location: str
    remote: bool


def find_files(sources: Sequence[str], base: Path) -> list[SourceFile]:
    """The files of all sources in order, each once. Raises `UsageError` for what is not there."""
    if not sources:
        raise UsageError(
            "the spec's data section names no file to read.",
            hint="Give a path, a glob, an https URL or hf://datasets/….",
        )
    files: dict[str, SourceFile] = {}
    for source in sources:
        for file in _find(source, base):
            files.setdefault(file.location, file)
    return list(files.values())


def _find(source: str, base: Path) -> list[SourceFile]:
    if source.startswith("hf://"):
        return [SourceFile(label, address, remote=True) for label, address in dataset_files(source)]
    if source.startswith(("http://", "https://")):
        parts = urlsplit(source)
        # A user name, password or signature in a URL is a secret; it must not reach a manifest or an error.
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return [SourceFile(shown, source, remote=True)]
    if "://" in source:
        raise UsageError(f"{source}: ftbridge reads paths, globs, http(s) and hf:// addresses.")
    path = base / Path(source).expanduser()
    if path.is_dir():
        pattern = f"{source.rstrip('/')}/*.jsonl"
        raise UsageError(f"{source} is a folder.", hint=f"Name a file in it, or a glob such as {pattern}.")
    if path.exists() and not path.is_file():  # a pipe, such as a shell's <(…), has no other name
        return [SourceFile(source, str(path), remote=False)]
    if path.exists():
        return [SourceFile(source, str(path.resolve()), remote=False)]
    if glob.has_magic(source):
        # Path.glob refuses absolute patterns.
        names = sorted(glob.glob(str(Path(source).expanduser()), root_dir=base, recursive=True))  # noqa: PTH207
        if files := [name for name in names if (base / name).is_file()]:
            return [SourceFile(Path(name).as_posix(), str((base / name).resolve()), remote=False) for name in files]
        raise UsageError(f"{source}: no file matches in {base.resolve()}.")
    raise UsageError(f"{source}: no such file ({path.resolve()}).", hint=_near(path))


def _near(path: Path) -> str:
    folder = path.parent.resolve()
    if not folder.is_dir():
        return f"The folder {folder} does not exist either."
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    data = [name for name in names if name.endswith((".jsonl", ".json"))]
    return f"{folder} contains {', '.join(data[:5])}." if data else f"{folder} contains no .jsonl or .json file."


# Opening and downloading


def opened(file: SourceFile) -> contextlib.AbstractContextManager[BinaryIO]:
    """The file's bytes, downloaded to a temporary file if it is not here. Raises `UsageError` or `FtbridgeError`."""
    if file.remote:
        return _downloaded(file)
    try:
        return Path(file.location).open("rb")
    except OSError as error:
        raise UsageError(f"{file.label}: cannot be read ({error.strerror}).") from None


@contextlib.contextmanager
def _downloaded(file: SourceFile) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as temporary:
        _download(file, temporary)
        temporary.seek(0)
        yield temporary


class _Transient(Exception):
    """A failure that may pass: a lost connection, a timeout, or a status of `http.is_transient`."""


def _download(file: SourceFile, target: BinaryIO) -> None:
    """Fetch a file, each try going on where the last broke off; given up after `DOWNLOAD_TRIES` in a row that bring nothing."""
    progress = _Progress()
    policy = Policy(
        doing=f"downloading {file.label}",
        again=lambda error: isinstance(error, _Transient),
        attempts=lambda _attempt, _error: progress.in_vain >= DOWNLOAD_TRIES,
        wait=lambda _attempt, _error: backoff(progress.in_vain + 1, ceiling=LONGEST_DOWNLOAD_WAIT),
    )
    try:
        retrying(policy)(_fetch, file, target, progress)
    except _Transient as error:
        raise FtbridgeError(
            f"{file.label}: could not be downloaded in {DOWNLOAD_TRIES} tries: {error}.",
            hint="Try again later, or download the file and give its path.",
        ) from None


@dataclass
class _Progress:
    """What tries remember: what tells that the file is still the same, and how many of the last brought nothing."""

    validator: str = ""
    most: int = 0
    in_vain: int = 0


def _fetch(file: SourceFile, target: BinaryIO, progress: _Progress) -> None:
    """One try, which asks only for what is missing if the file is known to be the same."""
    import httpx  # takes 0.1 s, which only downloads should wait for

    # Compressed transfers are counted in other bytes than are written.
    headers = {"Accept-Encoding": "identity", **hub_headers(file.label)}
    have = target.seek(0, os.SEEK_END)
    if have and progress.validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": progress.validator}
    try:
        timeout = httpx.Timeout(30, connect=10)
        with httpx.stream("GET", file.location, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code == 416:  # there is no such range: the file is not what it was
                progress.validator = ""
                raise _Transient("the server does not have the requested range")
            _check_status(response.status_code, file.label)
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status_code != 206 or not goes_on:
                # the whole file, because it is the first try or the file has changed
                if response.status_code == 206:
                    progress.validator = ""
                    raise _Transient("the server sent another range than was requested")
                target.seek(0)
                target.truncate()
            progress.validator = _validator(response.headers)
            _check_size(target.tell() + int(response.headers.get("Content-Length") or 0), file.label)
            with disk_full_is_an_error(Path(tempfile.gettempdir())):
                for block in response.iter_bytes():
                    target.write(block)
                    _check_size(target.tell(), file.label)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError) as error:
        raise UsageError(f"{file.label}: cannot be downloaded ({type(error).__name__}).") from None
    except (httpx.TransportError, _Transient) as error:
        size = target.tell()
        progress.in_vain = 0 if size > progress.most and have else progress.in_vain + 1
        progress.most = max(size, progress.most)
        reason = str(error) if isinstance(error, _Transient) else f"{type(error).__name__} {error}".strip()
        raise _Transient(reason) from None


def _validator(headers: Mapping[str, str]) -> str:
    """What tells that the file is still the same (RFC 9110, section 13.1.5): a strong tag, else the date it was changed."""
    if headers.get("Content-Encoding", "identity") != "identity":
        return ""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _check_status(status: int, label: str) -> None:
    if is_transient(status):
        raise _Transient(f"the server answered {status}")
    if status in (401, 403):
        hint = (
            "Set HF_TOKEN to a token that may read it." if label.startswith("hf://") else "Use an address you may read."
        )
        raise UsageError(f"{label}: the server refuses access ({status}).", hint=hint)
    if status >= 400:
        raise UsageError(f"{label}: the server answered {status}.", hint="Check the address and the revision.")


def _check_size(size: int, label: str) -> None:
    if size > LARGEST_DOWNLOAD:
        raise UsageError(
            f"{label}: larger than 1 GB, the most that ftbridge downloads.",
            hint="Download it yourself and give its path.",
        )
