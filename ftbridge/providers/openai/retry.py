"""How often requests to a service are tried, and when a job is looked at: the numbers, on top of `ftbridge.http`.

Reads are tried `ATTEMPTS` times; a wait is what the service asked for in Retry-After, else the backoff. Following a job has no
limit on total time: `PollingPace` only says when to look next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ftbridge import http
from ftbridge.http import Policy, retrying, scaled
from ftbridge.providers.openai.errors import ServiceFault, error_of, fault_of

T = TypeVar("T")

ATTEMPTS = 8
"""Tries of one request: about two minutes in all."""
SOONEST, LATEST = 2.0, 30.0
"""Seconds between looks at a job: right after a change, and when nothing has changed for long."""
LOOKS = (0.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds before each look for something that may have been made: lists can lag behind."""

_AGAIN = frozenset({"lost", "foreign", "later", "not_ready"})


class _Failed(Exception):
    """One request that failed, as the retry policy sees it."""

    def __init__(self, fault: ServiceFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def backoff(attempt: int, fault: ServiceFault | None = None) -> float:
    """Seconds to wait after failed attempt `attempt` (from 1), unscaled: Retry-After, else the backoff of `ftbridge.http`."""
    return http.backoff(attempt) if fault is None or fault.retry_after is None else fault.retry_after


def wait_to_retry(doing: str, attempt: int, fault: ServiceFault) -> float:
    """Wait before another try after a fault, and return the seconds waited for, unscaled; hooks hear of it."""
    seconds = backoff(attempt, fault)
    http.wait_to_retry(doing, attempt, fault.message, seconds)
    return seconds


def read(call: Callable[[], T], doing: str, service: str, *, attempts: int = ATTEMPTS) -> T:
    """Make a request that changes nothing, or nothing twice, until it is answered. Raises as `error_of` says."""

    def once() -> T:
        try:
            return call()
        except Exception as error:
            raise _Failed(fault_of(error)) from None

    policy = Policy(
        doing=doing,
        again=lambda error: isinstance(error, _Failed) and error.fault.kind in _AGAIN,
        attempts=attempts,
        wait=lambda attempt, error: backoff(attempt, error.fault if isinstance(error, _Failed) else None),
    )
    try:
        return retrying(policy)(once)
    except _Failed as failed:
        raise error_of(failed.fault, doing, service) from None


class PollingPace:
    """When to look at a job next. Never waits itself."""

    def __init__(self, doing: str = "following the job") -> None:
        self._doing = doing
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

    def failed(self, fault: ServiceFault) -> None:
        """A look failed: back off, for as long as it takes."""
        self._failures += 1
        seconds = backoff(self._failures, fault)
        http.notify(http.Retry(self._doing, self._failures, fault.message, seconds))
        self._next(seconds)

    def _next(self, seconds: float) -> None:
        self._due = time.monotonic() + scaled(seconds)
