"""How much a service is asked at once, and how long its failures are borne: for completions of test items and for recordings.

The number in flight follows additive increase, multiplicative decrease (Chiu and Jain 1989): it starts at the most allowed,
is halved when the service says 429 (once for all requests that were under way then), and grows by one for each round of
answers.
"""

from __future__ import annotations

from collections.abc import Set

from ftbridge.providers.openai.errors import ServiceFault, error_of
from ftbridge.providers.openai.retry import ATTEMPTS, wait_to_retry

THROTTLED_TRIES, THROTTLED_SECONDS = 60, 3600.0
"""Rounds of 429 without a single answer in between, and seconds of waiting in them, before giving up."""
BACKOFF_SECONDS = 120.0
"""Seconds of waiting after failures, where the service names none, without a single answer in between, before giving up."""


class Limit:
    """How many requests may be in flight. Pure: no clock, no threads."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.value = float(self.most)
        self._round = 0

    @property
    def now(self) -> int:
        """Requests that may be in flight."""
        return max(1, int(self.value))

    @property
    def round(self) -> int:
        """What a request notes when it is sent, for `throttled`."""
        return self._round

    def succeeded(self) -> None:
        """One more for each round of answers."""
        self.value = min(float(self.most), self.value + 1 / self.value)

    def throttled(self, sent_in: int) -> bool:
        """Halve, unless the request was sent before the last halving; returns whether it did."""
        if sent_in != self._round:
            return False
        self._round += 1
        self.value = max(1.0, self.value / 2)
        return True


class Patience:
    """Failures in a row, over all requests of one work, and when they are too many. `waited` is in seconds.

    Requests fly together, so that one outage fails many: those that were sent before the last wait ended are waited out by it,
    and count once. Any response begins the count again.

        sent   a b c d │ wait │ e f g h │ wait │ …    2 rounds of failures, of which `ATTEMPTS` are borne
        fail   ✗ ✗ ✗ ✗           ✗ ✗ ✗ ✗
    """

    def __init__(self, service: str, doing: str) -> None:
        self._service, self._doing = service, doing
        self._throttles = 0
        self._rounds = 0
        self._backed_off = 0.0
        self._waits = 0
        self.waited = 0.0

    @property
    def round(self) -> int:
        """What a request notes when it is sent, for `bear`."""
        return self._waits

    def over(self) -> None:
        """A response came: failures count from 0 again."""
        self._throttles, self._rounds, self._backed_off, self.waited = 0, 0, 0.0, 0.0

    def bear(
        self,
        fault: ServiceFault,
        failures: int,
        tried_again: Set[str],
        sent_in: int | None = None,
        *,
        counts: bool = True,
    ) -> int:
        """Wait out a fault of a request; returns how often the request has failed now.

        `sent_in` is the round in which the request was sent; without it, every failure is waited out, for `BACKOFF_SECONDS` in
        all. With `counts` false the fault is the request's own, and says nothing of the service. Raises the fault's error
        where it is not of a kind that is tried again, or came too often. Being asked to slow down is no failure of the request.
        """
        if fault.kind == "later":
            self._throttles += 1
            if self._throttles > THROTTLED_TRIES or self.waited >= THROTTLED_SECONDS:
                raise error_of(fault, self._doing, self._service)
            self.waited += self._wait(min(self._throttles, 6), fault)
            return failures
        failures += 1
        if fault.kind not in tried_again or failures >= ATTEMPTS:
            raise error_of(fault, self._doing, self._service)
        if sent_in is not None and sent_in != self._waits:
            return failures
        if counts:
            self._rounds = self._rounds + 1 if sent_in is not None else max(self._rounds, failures)
        if self._rounds >= ATTEMPTS or self._backed_off >= BACKOFF_SECONDS:
            raise error_of(fault, self._doing, self._service)
        seconds = self._wait(self._rounds if counts and sent_in is not None else failures, fault)
        if counts and fault.retry_after is None:
            self._backed_off += seconds
        return failures

    def _wait(self, attempt: int, fault: ServiceFault) -> float:
        seconds = wait_to_retry(self._doing, attempt, fault)
        self._waits += 1
        return seconds
