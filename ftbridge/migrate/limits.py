"""Rate limits as the service states them in its response headers: how long to wait before the next request.

    x-ratelimit-limit-requests: 500        x-ratelimit-remaining-requests: 0        x-ratelimit-reset-requests: 1m0s

The reset is how long until the budget is full again (OpenAI, rate limits guide). A response without these headers
states no limit. 429 responses are another matter: `providers/openai/retry.py` waits for them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from ftbridge.http import sleep

LONGEST = 600.0
"""Longest single wait in seconds, whatever a header states."""
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_KINDS = ("requests", "tokens")


class RateLimits:
    """The limits of one key and model, as the last response stated them."""

    def __init__(self) -> None:
        self._limit: dict[str, int] = {}
        self._remaining: dict[str, float] = {}
        self._reset_at: dict[str, float] = {}

    @property
    def requests_per_minute(self) -> int | None:
        """Requests that the service allows, None where it states no limit."""
        return self._limit.get("requests")

    @property
    def tokens_per_minute(self) -> int | None:
        """Tokens that the service allows, None where it states no limit."""
        return self._limit.get("tokens")

    def seen(self, headers: Mapping[str, str]) -> None:
        """Take in the headers of a response (lower-case names)."""
        for kind in _KINDS:
            limit, remaining = (_number(headers.get(f"x-ratelimit-{part}-{kind}")) for part in ("limit", "remaining"))
            reset = seconds_of(headers.get(f"x-ratelimit-reset-{kind}", ""))
            if limit is not None:
                self._limit[kind] = int(limit)
            if remaining is not None:
                self._remaining[kind] = remaining
                self._reset_at[kind] = time.monotonic() + min(reset or 0.0, LONGEST)

    def wait_seconds(self, tokens: int = 0, requests: int = 1) -> float:
        """Seconds until so many tokens and requests fit, by the last response; 0 where nothing is known."""
        waits = [0.0]
        for kind, needed in zip(_KINDS, (requests, tokens), strict=True):
            remaining = self._remaining.get(kind)
            left = self._reset_at.get(kind, 0.0) - time.monotonic()
            if remaining is not None and needed > remaining and left > 0:
                waits.append(left)
        return max(waits)

    def wait(self, tokens: int = 0, requests: int = 1) -> float:
        """Wait until so much fits, and return the seconds that were waited for."""
        seconds = self.wait_seconds(tokens, requests)
        if seconds > 0:
            sleep(seconds)
            for kind in _KINDS:
                self._remaining.pop(kind, None)
        for kind, spent in zip(_KINDS, (requests, tokens), strict=True):
            if kind in self._remaining:
                self._remaining[kind] -= spent
        return seconds


def seconds_of(text: str) -> float | None:
    """A duration such as `1s`, `6m0s` or `120ms` in seconds; a bare number is seconds; None for anything else."""
    text = text.strip()
    parts = _PART.findall(text)
    if parts and "".join(f"{number}{unit}" for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return _number(text)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
