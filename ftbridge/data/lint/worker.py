"""Child processes that check pieces of files side by side: plain pipes, so that no caller needs a main guard.

A child inherits the open files and is told a plan for each, then pieces one at a time, and answers each with a `Block`. It
ends when its input closes, so that no child outlives its parent.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any, NamedTuple, NoReturn

from ftbridge.data.lint.block import Checker, LintPlan
from ftbridge.data.lint.dataset import Block
from ftbridge.data.lint.source import read_fully
from ftbridge.errors import FtbridgeError


class FileJob(NamedTuple):
    """A file to check: how it is named, its open descriptor, and what to look for in it."""

    path: str
    descriptor: int
    plan: LintPlan


class Task(NamedTuple):
    """A piece of a file to check; `file` counts the subjects from 0."""

    file: int
    start: int
    length: int
    first: bool
    last: bool


class Checkers:
    """A checker for each subject, made when its first piece comes. The same in a child and in the parent itself."""

    def __init__(self, subjects: Sequence[FileJob]) -> None:
        self._subjects = subjects
        self._made: dict[int, Checker] = {}

    def check(self, task: Task, *, finish: bool = True) -> Block:
        """Check a piece; `finish` makes its columns too.

        Raises `FtbridgeError` when the file has become shorter, memory runs out or a rule fails.
        """
        subject = self._subjects[task.file]
        raw = read_fully(subject.descriptor, task.start, task.length)
        if len(raw) < task.length:
            raise FtbridgeError(
                f"{subject.path} became shorter while it was linted.",
                hint="Lint it again when no program writes to it any more.",
            )
        if task.file not in self._made:
            self._made[task.file] = Checker(subject.plan)
        try:
            return self._made[task.file].check(raw, first=task.first, last=task.last, finish=finish)
        except Exception as error:
            where = f"{subject.path}: bytes {task.start:,} to {task.start + task.length:,}"
            if isinstance(error, MemoryError):
                raise FtbridgeError(f"{where} need more memory than is available.") from None
            raise FtbridgeError(f"{where} could not be linted: {type(error).__name__}: {error}") from error


class Worker:
    """One child process. It is told several pieces ahead, so that it never waits for a parent that is busy itself."""

    def __init__(self, subjects: Sequence[FileJob], siblings: Sequence[Worker] = ()) -> None:
        """Start it; it gets ready while the caller goes on. `siblings` are the children started before it.

        A process with one thread is forked, which takes a hundredth of a second. One with several is started again: a
        fork could inherit a lock that nobody is left to open.
        """
        self._subjects = subjects
        start = _forked if _single_threaded() else _spawned
        self._process, self._source, self._target = start(subjects, siblings)

    def send(self, task: Task) -> None:
        """Tell it a piece to check; it answers in order. Raises `FtbridgeError` when the process has died."""
        try:
            _send(self._target, task)
        except (OSError, ValueError):
            raise self._died(task) from None

    def receive(self, task: Task) -> Block:
        """Wait for the answer to the oldest task, which is told for the error. Raises `FtbridgeError` as `send` does."""
        try:
            reply = pickle.load(self._source)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise self._died(task) from None
        if isinstance(reply, BaseException):
            raise reply
        block: Block = reply
        return block

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._target, self._source):
            with contextlib.suppress(OSError):
                stream.close()

    def _died(self, task: Task) -> FtbridgeError:
        return FtbridgeError(
            f"{self._subjects[task.file].path}: the process that checked bytes {task.start:,} to "
            f"{task.start + task.length:,} died.",
            hint="It may have run out of memory; --jobs 1 checks everything in one process.",
        )


class _Child(NamedTuple):
    """What `Popen` is to a process that was forked."""

    pid: int

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


_Started = tuple["_Child | subprocess.Popen[bytes]", IO[bytes], IO[bytes]]


def _single_threaded() -> bool:
    """Whether this process has one thread, those of libraries included; False where that cannot be known."""
    try:
        return len(os.listdir("/proc/self/task")) == 1 and threading.current_thread() is threading.main_thread()  # noqa: PTH208
    except OSError:
        return False


def _forked(subjects: Sequence[FileJob], siblings: Sequence[Worker]) -> _Started:
    task_out, task_in = os.pipe()
    block_out, block_in = os.pipe()
    _widen(block_in)
    pid = os.fork()
    if pid:
        os.close(task_out)
        os.close(block_in)
        return _Child(pid), os.fdopen(block_out, "rb"), os.fdopen(task_in, "wb")
    status = 1
    try:
        # A copy of a sibling's pipe would keep that sibling alive after the parent's death.
        for inherited in (
            task_in,
            block_out,
            *(stream.fileno() for s in siblings for stream in (s._source, s._target)),
        ):
            os.close(inherited)
        _live(os.fdopen(task_out, "rb"), os.fdopen(block_in, "wb"), subjects)
        status = 0
    except BaseException:
        status = 1
    finally:
        os._exit(status)


def _spawned(subjects: Sequence[FileJob], siblings: Sequence[Worker]) -> _Started:
    command = [sys.executable, "-c", "from ftbridge.data.lint.worker import serve; serve()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
        pass_fds=[subject.descriptor for subject in subjects],
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    _widen(process.stdout.fileno())
    with contextlib.suppress(OSError):  # the first task tells that it died
        _send(process.stdin, subjects)
    return process, process.stdout, process.stdin


def _widen(pipe: int) -> None:
    """Let a pipe hold a whole block, where the system can (Linux), so that a child need not wait to be heard."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def serve() -> NoReturn:
    """The life of a child that was started again."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    with contextlib.suppress(EOFError):
        _live(source, target, pickle.load(source))
    os._exit(0)


def _live(source: IO[bytes], target: IO[bytes], subjects: Sequence[FileJob]) -> None:
    """Answer tasks until there are no more."""
    if os.getsid(0) != os.getpid():
        os.setsid()  # Ctrl-C is for the parent, which ends its children
    gc.freeze()
    checkers = Checkers(subjects)
    while True:
        try:
            task: Task = pickle.load(source)
        except (EOFError, OSError):
            return
        reply: Any
        try:
            reply = checkers.check(task)
        except FtbridgeError as error:
            reply = error
        try:
            _send(target, reply)
        except (OSError, ValueError):
            return


def _send(target: IO[bytes], message: Any) -> None:
    pickle.dump(message, target, protocol=5)
    target.flush()
