"""Retries over HTTP: the one place that decides when to try again, how long to wait, and who hears of it.

    call ──▶ result
      │ raises: does the policy name it, and are tries left? ──no──▶ raise
      └──▶ hooks(Retry) ──▶ wait (Retry-After, else backoff) × scale ──▶ call

The manners are those of stamina, on tenacity: only named errors are tried again, every wait has jitter and a ceiling, every
retry reaches the hooks. The environment variable `FTBRIDGE_WAIT_SCALE` scales all waits of this process and of those it
starts; `wait_scale(0)` sets it, for tests.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import tenacity

log = logging.getLogger("ftbridge.http")

CEILING = 60.0
"""Longest wait between tries, in seconds, unless the service asks for more."""
LONGEST_RETRY_AFTER = 600.0
"""Longest wait that a Retry-After gets, in seconds, wherever it is heeded."""
_VARIABLE = "FTBRIDGE_WAIT_SCALE"

T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """One failure that is tried again: what was tried, the number of the failed try (from 1), its error, seconds to wait.

    `seconds` is unscaled. `cause` may hold what a service sent; take secrets out before it is shown.
    """

    doing: str
    attempt: int
    cause: str
    seconds: float


Hook = Callable[[Retry], None]


@dataclass(frozen=True)
class Policy:
    """When a call is tried again.

    `doing`: what the call does, for hooks ("listing files"). `again`: whether an error may pass. `attempts`: tries in all, or
    a function from the number of tries so far and the last error to whether to give up. `wait`: seconds after a failed try,
    from its number (from 1) and its error.
    """

    doing: str
    again: Callable[[BaseException], bool]
    attempts: int | Callable[[int, BaseException], bool]
    wait: Callable[[int, BaseException], float] = lambda attempt, error: backoff(attempt)

    def gives_up(self, attempt: int, error: BaseException) -> bool:
        """Whether failed try number `attempt` was the last."""
        return attempt >= self.attempts if isinstance(self.attempts, int) else self.attempts(attempt, error)


def retrying(policy: Policy) -> tenacity.Retrying:
    """A caller that follows the policy: `retrying(policy)(call, *args)`. The last error is raised as it came."""
    import tenacity  # takes 50 ms, which only requests should wait for

    def error_of(state: tenacity.RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome is not None else None
        assert error is not None  # results are never tried again
        return error

    def announce(state: tenacity.RetryCallState) -> None:
        notify(Retry(policy.doing, state.attempt_number, cause_of(error_of(state)), state.upcoming_sleep))

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(policy.again),
        stop=lambda state: policy.gives_up(state.attempt_number, error_of(state)),
        wait=lambda state: policy.wait(state.attempt_number, error_of(state)),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )


def wait_to_retry(
    doing: str, attempt: int, cause: str, seconds: float, wait: Callable[[float], object] | None = None
) -> None:
    """Wait before another try, for loops that decide by themselves what comes next; hooks hear of it.

    `wait` is what waits so many seconds, already scaled, in the place of `sleep`: one that hears what else happens meanwhile.
    """
    notify(Retry(doing, attempt, cause, seconds))
    if wait is None:
        sleep(seconds)
    else:
        wait(scaled(seconds))


def cause_of(error: BaseException) -> str:
    """The error in words: its text, else its type."""
    return str(error) or type(error).__name__


# Hooks


def _log(retry: Retry) -> None:
    from ftbridge.redaction import without_secrets

    cause = " ".join(without_secrets(retry.cause).split())
    log.info("%s: try %d failed (%s); again in %.1f s", retry.doing, retry.attempt, cause[:300], retry.seconds)


_hooks: list[Hook] = [_log]


def notify(retry: Retry) -> None:
    """Call every hook with a retry that is about to be waited for."""
    for hook in tuple(_hooks):
        hook(retry)


@contextlib.contextmanager
def on_retry(hook: Hook) -> Iterator[None]:
    """Let `hook` hear every retry of this process inside the block. Hooks may be called from any thread."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


# Waits


def backoff(attempt: int, ceiling: float = CEILING) -> float:
    """Seconds to wait after failed try `attempt` (from 1): at random up to 1, 2, 4 … seconds, `ceiling` at most.

    Exponential with full jitter (Brooker 2015, "Exponential Backoff And Jitter").
    """
    return random.uniform(0, min(ceiling, 2.0 ** min(attempt - 1, 30)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a service asks to wait: `retry-after-ms`, or Retry-After in seconds or as a date (RFC 9110, 10.2.3).

    At most `LONGEST_RETRY_AFTER`; None without the header, or where it makes no sense. Names are lower-case or the mapping
    ignores case.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _seconds_until(value)
        if math.isfinite(seconds):
            return min(max(0.0, seconds), LONGEST_RETRY_AFTER)
    return None


def is_transient(status: int) -> bool:
    """Whether a response of this status may pass: 408, 409, 425, 429 and 5xx, as OpenAI's own library has it."""
    return status in (408, 409, 425, 429) or status >= 500


def wait_scale(factor: float) -> None:
    """Multiply every wait by `factor` (0 or more) from now on, in this process and those it starts."""
    os.environ[_VARIABLE] = str(factor)


def sleep(seconds: float) -> None:
    """Wait, scaled. `time.sleep` counts monotonic time, so a clock that jumps changes nothing."""
    if (scaled_seconds := scaled(seconds)) > 0:
        time.sleep(scaled_seconds)


def scaled(seconds: float) -> float:
    """Seconds times the scale of this process's waits."""
    try:
        return seconds * max(0.0, float(os.environ.get(_VARIABLE, "1")))
    except ValueError:
        return seconds


def aged(since: float, seconds: float) -> bool:
    """Whether something that happened at `since` (Unix seconds) is `seconds` (scaled) old; a clock set back makes it young."""
    return time.time() - since >= scaled(seconds)


def _seconds_until(date: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return math.nan
