"""OpenAI's `python` grader: `grade(sample, item)` in a process of its own, that can reach nothing but its arguments.

    this process                      child: `python -I sandbox.py`, an empty working folder, an empty environment
    request, seal ──stdin──▶          limits, Landlock, seccomp; then the source
    answer, seal  ◀─stdout─                time, disk, threads and the size of the answer are watched from here

Off unless the grader's name is allowed: `PythonPolicy(allow=...)`, or FTBRIDGE_ALLOW_PYTHON_GRADERS=name,name.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ftbridge.graders import sandbox
from ftbridge.graders.result import Outcome, failed
from ftbridge.graders.template import GraderError
from ftbridge.spec.graders import PythonGrader

VARIABLE = "FTBRIDGE_ALLOW_PYTHON_GRADERS"
_KEPT_PRINT = 4_000
_LONGEST_OUTPUT = 100_000
_MOST_FILES = 10_000
"""Files and folders of a grader. An empty one takes room too: each counts as a page at least."""
_MOST_THREADS = 64
_PAGE = 4096


@dataclass(frozen=True)
class PythonPolicy:
    """Which python graders may run, by name, and their limits: OpenAI's by default (2 minutes, 2 GB, 1 GB of disk)."""

    allow: frozenset[str] = field(default_factory=frozenset)
    seconds: float = 120.0
    memory_bytes: int = 2_000_000_000
    disk_bytes: int = 1_000_000_000

    @classmethod
    def from_environment(cls) -> PythonPolicy:
        """What FTBRIDGE_ALLOW_PYTHON_GRADERS allows: names with commas between."""
        names = os.environ.get(VARIABLE, "").split(",")
        return cls(allow=frozenset(name.strip() for name in names if name.strip()))


def check(grader: PythonGrader, policy: PythonPolicy) -> None:
    """Raise `GraderError` when the grader is not allowed, cannot be isolated here, or is no source with grade(sample, item)."""
    if grader.name not in policy.allow:
        raise GraderError(
            f"grader {grader.name} runs Python source, and its name is not allowed.",
            hint=f"Read its source; to run it, set {VARIABLE}={grader.name}.",
        )
    if lacking := sandbox.missing():
        raise GraderError(
            f"grader {grader.name}: this machine cannot isolate Python source; it lacks {lacking}.",
            hint="Use another type of grader here, or run the evaluation on a Linux machine.",
        )
    try:
        module = ast.parse(grader.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise GraderError(f"grader {grader.name}: its source is not Python: {line}{reason}.") from None
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "grade"]
    if functions and not _takes_two(functions[-1].args):
        raise GraderError(f"grader {grader.name}: grade takes exactly two arguments, sample and item.")
    if not functions and not any(
        isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.If)) for node in module.body
    ):
        raise GraderError(f"grader {grader.name}: its source defines no function grade(sample, item).")


def grade(grader: PythonGrader, item: Mapping[str, Any], sample: Mapping[str, Any], policy: PythonPolicy) -> Outcome:
    """What `grade(sample, item)` returns, as a float; every failure is reward 0.

    python_grader_runtime_error    the source raised, or returned what is not a finite number
    unresponsive_reward_error      it did not return in time
    python_grader_server_error     its process died, or its answer, its files or its threads grew too many
    """
    request = {
        "source": grader.source,
        "sample": dict(sample),
        "item": dict(item),
        "seconds": policy.seconds,
        "memory_bytes": policy.memory_bytes,
        "disk_bytes": policy.disk_bytes,
        "caller": os.getpid(),
    }
    with tempfile.TemporaryDirectory(prefix="ftbridge-grader-", ignore_cleanup_errors=True) as folder:
        child = _Child(json.dumps(request).encode(), secrets.token_hex(sandbox.SEAL_BYTES // 2), Path(folder))
        why = child.watch(policy)
    details = {"printed": child.printed} if child.printed else {}
    if why == "time":
        return failed("unresponsive_reward_error", f"grade did not return within {policy.seconds:g} s", **details)
    if why == "disk":
        return failed("python_grader_server_error", f"wrote more than {policy.disk_bytes:,} bytes", **details)
    if why == "threads":
        return failed("python_grader_server_error", f"started more than {_MOST_THREADS} threads", **details)
    if why == "output":
        return failed("python_grader_server_error", "its output is too long", **details)
    return _read(child, details)


def _read(child: _Child, details: dict[str, Any]) -> Outcome:
    code = child.process.returncode
    if code == sandbox.UNPROTECTED:
        return failed("python_grader_server_error", f"could not be isolated, and was not run: {child.printed}")
    try:
        reply = json.loads(child.output)
        if reply["seal"] != child.seal:
            raise ValueError("written by the grader itself")
        if "reward" in reply:
            reward = float(reply["reward"])
            if not math.isfinite(reward):
                return failed("python_grader_runtime_error", f"its reward is {reward}, not a finite number", **details)
            return Outcome(reward, details=details)
        return failed("python_grader_runtime_error", str(reply["details"]), **details)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # not what sandbox.py writes
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return failed("python_grader_server_error", f"its process {end} without a result", **details)


class _Child:
    """The process and its three pipes, each served by a thread, so that none can fill up and stand still."""

    def __init__(self, request: bytes, seal: str, folder: Path) -> None:
        self.folder, self.seal = folder, seal
        self.captured: dict[str, bytes] = {"output": b"", "printed": b""}
        self.too_long, self.output_read, self.let_go = threading.Event(), threading.Event(), threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", sandbox.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        streams = self.process.stdin, self.process.stdout, self.process.stderr
        assert all(streams)
        self.threads = [
            threading.Thread(target=self._give, args=(streams[0], request), daemon=True),
            threading.Thread(target=self._take, args=(streams[1], "output", _LONGEST_OUTPUT), daemon=True),
            threading.Thread(target=self._take, args=(streams[2], "printed", _KEPT_PRINT), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    @property
    def output(self) -> bytes:
        return self.captured["output"]

    @property
    def printed(self) -> str:
        """The beginning of what the grader printed."""
        return self.captured["printed"].decode("utf-8", "replace")

    def watch(self, policy: PythonPolicy) -> str | None:
        """Wait for its end; past a limit, end it and say which: time, disk, threads or answer.

        A grader that has written its output is looked at once more before it may go.
        """
        deadline, why = time.monotonic() + policy.seconds, None
        pause = 0.005
        try:
            while why is None and self.process.poll() is None:
                done = self.output_read.wait(pause)
                if time.monotonic() > deadline:
                    why = "time"
                elif self.too_long.is_set():
                    why = "output"
                elif done or pause >= 0.02:
                    why = self._over_its_share(policy)
                if done:
                    break
                pause = min(pause * 1.5, 0.05)
        finally:
            if why is None:
                self.let_go.set()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(1)
            if self.process.poll() is None:
                self.process.kill()
            self.let_go.set()
            self.process.wait()
        for thread in self.threads:
            thread.join(5)
        return "output" if self.too_long.is_set() else why

    def _over_its_share(self, policy: PythonPolicy) -> str | None:
        """Which of disk and threads the process has too much of now."""
        if _threads(self.process.pid) > _MOST_THREADS:
            return "threads"
        taken = _size(self.folder) + _nameless(self.process.pid, policy.disk_bytes)
        return "disk" if taken > policy.disk_bytes else None

    def _give(self, stream: IO[bytes], request: bytes) -> None:
        """Write the request, and keep the pipe open until the process may go."""
        with contextlib.suppress(OSError), stream:
            stream.write(b"%0*d" % (sandbox.HEAD_BYTES, len(request)) + request + self.seal.encode())
            stream.flush()
            self.let_go.wait()

    def _take(self, stream: IO[bytes], name: str, most: int) -> None:
        """Read to the end; keep the beginning. An answer that is longer ends the process, a print is only cut."""
        with stream:
            while piece := os.read(stream.fileno(), 65536):
                room = most - len(self.captured[name])
                self.captured[name] += piece[:room]
                if name == "output" and len(piece) > room:
                    self.too_long.set()
                    self.output_read.set()
        if name == "output":
            self.output_read.set()


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's environment, which may hold keys; one thread each for numeric libraries."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        **dict.fromkeys(threads, "1"),
    }


def _size(folder: Path) -> int:
    """Bytes on disk under a folder; a file of holes counts what it holds. Stops counting at too many files."""
    total = 0
    for count, path in enumerate(folder.rglob("*")):
        if count >= _MOST_FILES:
            return sys.maxsize
        with contextlib.suppress(OSError):
            total += max(_taken(path.lstat()), _PAGE)
    return total


def _taken(file: os.stat_result) -> int:
    """Bytes that a file takes: its length, or what is set aside for it where that is another matter (holes, fallocate)."""
    blocks = file.st_blocks * 512
    return file.st_size if 0 <= blocks - file.st_size < _PAGE else blocks


def _nameless(pid: int, most: int) -> int:
    """Bytes on disk of files that a process holds open, or mapped, though they have no name any more."""
    sizes: dict[tuple[int, int], int] = {}
    process = Path(f"/proc/{pid}")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                file = descriptor.stat()
                if stat.S_ISREG(file.st_mode) and file.st_nlink == 0:
                    sizes[(file.st_dev, file.st_ino)] = _taken(file)
        for line in (process / "maps").read_text().splitlines():
            if line.endswith("(deleted)") and not line.split(None, 5)[5].startswith(("/dev/zero", "/SYSV")):
                major, _, minor = line.split()[3].partition(":")
                inode = (os.makedev(int(major, 16), int(minor, 16)), int(line.split()[4]))
                sizes.setdefault(inode, most + 1)  # its size cannot be looked up without rights of root
    return sum(sizes.values())


def _threads(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Threads:")).split()[1])
    return 0


def _takes_two(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    needed = any(default is None for default in arguments.kw_defaults)
    return not needed and required <= 2 and (positional >= 2 or arguments.vararg is not None)
