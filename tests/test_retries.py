"""Retries over HTTP: what is tried again, how long is waited, and who hears of it."""

import time

import pytest

from ftbridge import http
from ftbridge.http import Policy, Retry, backoff, on_retry, retry_after, retrying


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")


def _failing(times, error=TimeoutError):
    """A call that fails so many times before it returns its number of tries."""
    tries = []

    def call():
        tries.append(1)
        if len(tries) <= times:
            raise error(f"try {len(tries)}")
        return len(tries)

    return call


def _policy(**changes):
    return Policy(
        **{"doing": "listing", "again": lambda error: isinstance(error, TimeoutError), "attempts": 4} | changes
    )


def test_a_call_is_repeated_until_it_returns():
    assert retrying(_policy())(_failing(3)) == 4


def test_the_last_error_is_raised_as_it_came():
    with pytest.raises(TimeoutError, match="try 4"):
        retrying(_policy())(_failing(9))


def test_an_error_that_the_policy_does_not_name_is_not_tried_again():
    items = []
    with on_retry(items.append), pytest.raises(ValueError, match="try 1"):
        retrying(_policy())(_failing(1, ValueError))
    assert items == []


def test_a_policy_may_decide_by_the_error_when_to_give_up():
    with pytest.raises(TimeoutError, match="try 2"):
        retrying(_policy(attempts=lambda attempt, error: "try 2" in str(error)))(_failing(9))


def test_every_retry_reaches_the_hooks_before_the_wait():
    items = []
    with on_retry(items.append):
        retrying(_policy(wait=lambda attempt, error: 10.0 * attempt))(_failing(2))
    assert items == [Retry("listing", 1, "try 1", 10.0), Retry("listing", 2, "try 2", 20.0)]


def test_a_hook_hears_nothing_after_its_block():
    items = []
    with on_retry(items.append):
        pass
    retrying(_policy())(_failing(2))
    assert items == []


def test_a_retry_is_logged_without_keys(caplog):
    caplog.set_level("INFO", logger="ftbridge.http")
    http.notify(Retry("listing files", 1, "refused\nsk-proj-abcdefghijklmnopqrstuvwxyz0123456789", 2.0))
    assert "listing files: try 1 failed (refused" in caplog.text
    assert "abcdefghijklmnop" not in caplog.text


def test_the_backoff_doubles_up_to_its_ceiling():
    highest = [max(backoff(attempt, ceiling=8) for _ in range(400)) for attempt in range(1, 7)]
    assert [0.8 * most < high <= most for high, most in zip(highest, (1, 2, 4, 8, 8, 8), strict=True)] == [True] * 6


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, http.LONGEST_RETRY_AFTER),
        ({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}, http.LONGEST_RETRY_AFTER),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers, seconds):
    assert retry_after(headers) == seconds


def test_one_switch_scales_every_wait():
    http.wait_scale(0.01)
    began = time.monotonic()
    http.sleep(10)
    assert 0.1 <= time.monotonic() - began < 5
    assert http.scaled(50) == 0.5
