"""How long to wait, and how often to ask again: the one place that decides it.

A wait is what the service asked for in Retry-After, else exponential with full jitter (Brooker 2015, "Exponential Backoff And
Jitter"), at most `CEILING` seconds. Reads are tried `ATTEMPTS` times. Following a job has no limit on total time: `Pace` only
says when to look next. `wait_scale(0)` makes every wait nothing, here and in child processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from ftbridge.providers.openai.errors import LONGEST_ASKED, Fault, error_of, fault_of

T = TypeVar("T")

ATTEMPTS = 8
"""Tries of one request: about two minutes in all."""
CEILING = 60.0
"""Longest wait between tries, in seconds, unless the service asks for more."""
SOONEST, LATEST = 2.0, 30.0
"""Seconds between looks at a job: right after a change, and when nothing has changed for long."""
LOOKS = (0.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds before each look for something that may have been made: lists can lag behind."""

_VARIABLE = "FTBRIDGE_WAIT_SCALE"
_AGAIN = frozenset({"lost", "foreign", "later", "not_ready"})
_BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=CEILING)


class Failed(Exception):
    """One request that failed, for `tenacity` to look at."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def wait_scale(factor: float) -> None:
    """Multiply every wait by `factor` (0 or more) from now on, in this process and those it starts."""
    os.environ[_VARIABLE] = str(factor)


def sleep(seconds: float) -> None:
    """Wait, scaled. `time.sleep` counts monotonic time, so a clock that jumps changes nothing."""
    if (scaled := seconds * _scale()) > 0:
        time.sleep(scaled)


def backoff(attempt: int, fault: Fault | None = None) -> float:
    """Seconds to wait after failed attempt `attempt` (from 1), unscaled."""
    if fault is not None and fault.retry_after is not None:
        return min(fault.retry_after, LONGEST_ASKED)
    state = tenacity.RetryCallState(_NO_RETRYING, None, (), {})
    state.attempt_number = attempt
    return float(_BACKOFF(state))


def read(call: Callable[[], T], doing: str, service: str, *, attempts: int = ATTEMPTS) -> T:
    """Make a request that changes nothing, or nothing twice, until it is answered. Raises as `error_of` says."""

    def once() -> T:
        try:
            return call()
        except Exception as error:
            raise Failed(fault_of(error)) from None

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=lambda state: backoff(state.attempt_number, _fault(state)),
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failed) and error.fault.kind in _AGAIN),
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(once)
    except Failed as failed:
        raise error_of(failed.fault, doing, service) from None


class Pace:
    """When to look at a job next. Never waits itself."""

    def __init__(self) -> None:
        self._due = 0.0
        self._calm = SOONEST
        self._failures = 0

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._due

    def now(self) -> None:
        """Look at once: something was asked of the job."""
        self._due, self._calm = 0.0, SOONEST

    def looked(self, *, changed: bool) -> None:
        """A look was answered: the next comes sooner after a change, later in calm."""
        self._failures = 0
        self._calm = SOONEST if changed else min(self._calm * 1.3, LATEST)
        self._next(self._calm)

    def failed(self, fault: Fault) -> None:
        """A look failed: back off, for as long as it takes."""
        self._failures += 1
        self._next(backoff(self._failures, fault))

    def _next(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds * _scale()


_NO_RETRYING = tenacity.Retrying()


def _fault(state: tenacity.RetryCallState) -> Fault | None:
    error = state.outcome.exception() if state.outcome is not None else None
    return error.fault if isinstance(error, Failed) else None


def aged(since: float, seconds: float) -> bool:
    """Whether something that happened at `since` (Unix seconds) is `seconds` (scaled) old; a clock set back makes it young."""
    return time.time() - since >= seconds * _scale()


def _scale() -> float:
    try:
        return max(0.0, float(os.environ.get(_VARIABLE, "1")))
    except ValueError:
        return 1.0
