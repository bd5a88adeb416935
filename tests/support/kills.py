"""Kill a piece of work with SIGKILL at each of its journal steps, and let it go on each time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from ftbridge.runs.journal import Journal


def outcome(work: Callable[[], Any], *, kill_at: int | None = None, when: str = "after") -> int:
    """Do `work` in a process of its own that is killed around its `kill_at`-th journal step: how it ended.

    0: it finished; 9: it was killed; anything else: it failed, and its traceback is on standard error. The process is forked, so
    that the libraries are not imported anew.
    """
    child = os.fork()
    if child == 0:
        try:
            if kill_at is not None:
                _kill_around(kill_at, when)
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_at_each_step(
    prepared: Callable[[int], Callable[[], Any]], check: Callable[[int], None], *, most: int = 200
) -> int:
    """Kill a fresh piece of work at each of its journal steps, and let each finish afterwards: how many steps there were.

    `prepared` makes the work anew for a step, `check` looks at what came of it. Odd steps are killed before the line is written,
    even ones after.
    """
    for step in range(1, most):
        work = prepared(step)
        ended = outcome(work, kill_at=step, when="before" if step % 2 else "after")
        if ended == 0:
            return step - 1
        assert ended == signal.SIGKILL, f"it failed at step {step} instead of being killed"
        assert outcome(work) == 0, f"it did not go on after the kill at step {step}"
        check(step)
    raise AssertionError(f"it was not done after {most} steps")


def kill_again_and_again(work: Callable[[], Any], *, most: int = 200) -> int:
    """Kill one piece of work at its first journal step, begin it again and kill it one step further, until it finishes: how often."""
    for step in range(1, most):
        ended = outcome(work, kill_at=step, when="before" if step % 2 else "after")
        if ended == 0:
            return step - 1
        assert ended == signal.SIGKILL, f"it failed at step {step} instead of being killed"
    raise AssertionError(f"it was not done after {most} kills")


def _kill_around(step: int, when: str) -> None:
    """Let this process die at the `step`-th line that it appends to any journal."""
    append, done = Journal.append, 0

    def counted(self: Journal, *args: Any, **data: Any) -> Any:
        nonlocal done
        done += 1
        if done == step and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        event = append(self, *args, **data)
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return event

    Journal.append = counted  # type: ignore[method-assign]
