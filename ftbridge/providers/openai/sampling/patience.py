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
    """Failures in a row, over all requests of one work, and when they are too many. `waited` is in seconds."""

    def __init__(self, service: str, doing: str) -> None:
        self._service, self._doing = service, doing
        self._throttles = 0
        self.waited = 0.0

    def over(self) -> None:
        """A response came: failures count from 0 again."""
        self._throttles, self.waited = 0, 0.0

    def bear(self, fault: ServiceFault, failures: int, tried_again: Set[str]) -> int:
        """Wait out a fault of a request; returns how often the request has failed now.

        Raises the fault's error where it is not of a kind that is tried again, or came too often. Being asked to slow down is
        no failure of the request.
        """
        if fault.kind == "later":
            self._throttles += 1
            if self._throttles > THROTTLED_TRIES or self.waited >= THROTTLED_SECONDS:
                raise error_of(fault, self._doing, self._service)
            self.waited += wait_to_retry(self._doing, min(self._throttles, 6), fault)
            return failures
        failures += 1
        if fault.kind not in tried_again or failures >= ATTEMPTS:
            raise error_of(fault, self._doing, self._service)
        wait_to_retry(self._doing, failures, fault)
        return failures
