"""Child processes that check pieces of a file side by side: plain pipes, so that no caller needs a main guard.

A child is told a plan, then pieces one at a time; it reads the bytes itself and answers each with a `Block`. It ends when
its input closes, so that no child outlives its parent.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from typing import Any, NamedTuple

from ftbridge.data.lint.block import Block, Checker, Plan
from ftbridge.data.lint.source import read_fully
from ftbridge.errors import FtbridgeError


class Task(NamedTuple):
    """A piece of a file to check."""

    path: str
    start: int
    length: int
    first: bool
    last: bool


class Worker:
    """One child process. `check` blocks until the answer is there; other threads go on meanwhile."""

    def __init__(self, plan: Plan) -> None:
        """Start it; it gets ready while the caller goes on."""
        command = [sys.executable, "-c", "from ftbridge.data.lint.worker import serve; serve()"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._send(plan)

    def check(self, task: Task) -> Block:
        """Check a piece. Raises `FtbridgeError` when the process has died."""
        try:
            self._send(task)
            answer = pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, pickle.UnpicklingError):
            code = self._process.poll()
            raise FtbridgeError(
                f"{task.path}: the process that checked bytes {task.start:,} to {task.start + task.length:,} died"
                f"{f' (exit code {code})' if code is not None else ''}.",
                hint="It may have run out of memory; lint with --jobs 1, which checks in this process.",
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        block: Block = answer
        return block

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._process.kill()
        self._process.wait()

    def _send(self, message: Any) -> None:
        assert self._process.stdin
        pickle.dump(message, self._process.stdin, protocol=5)
        self._process.stdin.flush()


def serve() -> None:
    """The child's life."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    checker = Checker(pickle.load(source))
    opened: tuple[str, int] | None = None
    while True:
        try:
            task: Task = pickle.load(source)
        except EOFError:
            return
        if opened is None or opened[0] != task.path:
            if opened:
                os.close(opened[1])
            opened = (task.path, os.open(task.path, os.O_RDONLY))
        answer: Any
        try:
            answer = checker.check(read_fully(opened[1], task.start, task.length), first=task.first, last=task.last)
        except Exception as error:
            answer = FtbridgeError(
                f"{task.path}: {type(error).__name__} while checking bytes {task.start:,} on: {error}"
            )
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(answer, target, protocol=5)
            target.flush()
