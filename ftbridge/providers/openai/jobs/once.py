"""Made exactly once: the heart of the provider. For jobs, files and batches, everything that costs money or leaves copies.

    made before? ──yes──▶ its id
         │no
    an attempt without an answer? ──yes──▶ look for what it made ──found──▶ its id
         │no                                       │ not there, even in lists that lag
         ▼                                         ▼
    journal the intent ──▶ request ──answered──▶ journal the id
              ▲               ├──declined──▶ journal that; wait and go again, or raise: the refusal, if no earlier attempt
              │               │              is in doubt; else `InDoubt`
              └───────────────┴──no answer──▶ look for it, wait, look again; then go again

A process may be killed at any arrow. The services know no idempotency keys, so what an attempt made is recognised by what it
carries: a job by its token, a file by the hash in its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ftbridge.errors import FtbridgeError, InDoubt
from ftbridge.http import aged, sleep
from ftbridge.providers.openai.errors import ServiceFault, ServiceUnavailable, error_of, fault_of
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.retry import ATTEMPTS, LOOKS, wait_to_retry
from ftbridge.runs.journal import Event

FOREIGN_ATTEMPTS = 3
"""Tries of a creation that a firewall's or a proxy's page answers."""
CERTAIN_AFTER = 900.0
"""Seconds after the last attempt when a list that was read whole and does not show the thing is believed."""
_LEAST_AGE = 1.0
"""The same in seconds that no scale of waits shortens."""
_NOTHING_DONE = frozenset({"later", "not_ready"})


def once(
    ledger: Ledger,
    what: str,
    key: str,
    *,
    act: Callable[[], str],
    find: Callable[[Event | None], str | None],
    service: str,
    mark: Callable[[], str | None] = lambda: None,
    check_requests: Callable[[], None] = lambda: None,
) -> str:
    """The id of the thing `what` named `key`, made by `act` if it is not there yet.

    `act` makes one request, without retries, and returns the id. `find` looks for what an attempt may have made; it
    is given the first attempt's event, whose `mark` (read once, before the first attempt) tells a list's state then.
    `check_requests` is called before each attempt and may raise to stop. Raises as `error_of` says, and `InDoubt` for
    a refusal that says nothing about an earlier attempt; after `ServiceUnavailable` and `InDoubt` calling again is
    safe.
    """
    if (recorded := ledger.recorded(what, key)) is not None:
        return recorded
    doing = f"creating the {what}" if what != "file" else "uploading the file"
    first = ledger.open_intent(what, key)
    marked = first.data.get("mark") if first is not None else None
    if first is not None and (existing := settled(ledger, what, key, find)) is not None:
        return existing
    if first is None:
        marked = mark()
    attempt = 0
    while True:
        attempt += 1
        check_requests()
        first = ledger.open_intent(what, key)
        intent = ledger.append("intended", what=what, key=key, attempt=attempt, mark=marked)
        try:
            created = act()
        except Exception as error:
            fault = fault_of(error)
        else:
            return _made(ledger, what, key, created, intent, "answered")
        if fault.kind in ("lost", "foreign"):
            first = first or intent
            ledger.append("lost", what=what, key=key, intent=intent.seq, why=fault.message)
            if (existing := _look(find, first, what)) is not None:
                return _made(ledger, what, key, existing, intent, "found")
        else:
            ledger.append("declined", what=what, key=key, intent=intent.seq, why=fault.message, sure=_is_sure(fault))
        if not _again(fault) or attempt >= (FOREIGN_ATTEMPTS if fault.kind == "foreign" else ATTEMPTS):
            raise _end(ledger, what, key, fault, doing, service)
        wait_to_retry(doing, attempt, fault)


def settled(ledger: Ledger, what: str, key: str, find: Callable[[Event | None], str | None]) -> str | None:
    """What an attempt without an answer made, looked for through lists that may lag; None where nothing shows.

    When the last attempt is `CERTAIN_AFTER` old, nothing in the list means that nothing was made, and that is journalled.
    Raises `InDoubt` when the service will not show its list, `ServiceUnavailable` when it is away.
    """
    attempts = ledger.open_intents(what, key)
    if not attempts:
        return None
    old = aged(attempts[-1].time, CERTAIN_AFTER) and time.time() - attempts[-1].time > _LEAST_AGE
    if (existing := _look(find, attempts[0], what)) is not None:
        return _made(ledger, what, key, existing, attempts[0], "found")
    if old:
        for attempt in attempts:
            ledger.append("settled", what=what, key=key, intent=attempt.seq, why="the list shows nothing of it")
    return None


def _end(
    ledger: Ledger,
    what: str,
    key: str,
    fault: ServiceFault,
    doing: str,
    service: str,
) -> FtbridgeError:
    """The error that ends the attempts: a refusal counts only when no earlier attempt may have made the thing."""
    error = error_of(fault, doing, service)
    if isinstance(error, ServiceUnavailable) or ledger.open_intent(what, key) is None:
        return error
    return InDoubt(
        f"{error.message} An earlier attempt got no response and may have created the {what} anyway.", hint=DOUBT_HINT
    )


def _made(ledger: Ledger, what: str, key: str, created: str, intent: Event, how: str) -> str:
    ledger.append("made", what=what, key=key, id=created, intent=intent.seq, how=how)
    return created


def _look(find: Callable[[Event | None], str | None], first: Event, what: str) -> str | None:
    """Look at once, and again after ever longer waits: a list may not show yet what was made a moment ago."""
    for seconds in LOOKS:
        sleep(seconds)
        try:
            matching = find(first)
        except (ServiceUnavailable, InDoubt):
            raise
        except FtbridgeError as error:
            if what == "file":
                return None  # a second copy costs nothing
            raise InDoubt(
                f"an attempt to create the {what} got no response, and ftbridge cannot look for it: {error.message}",
                hint=DOUBT_HINT,
            ) from None
        if matching is not None:
            return matching
    return None


DOUBT_HINT = (
    "A job may be running and cost money. List jobs with `ftbridge jobs`; assign one to the run with `ftbridge jobs "
    "adopt JOB RUN`; or resume the run later, which looks again first. `ftbridge retry RUN` creates another job in "
    "any case."
)


def _is_sure(fault: ServiceFault) -> bool:
    """Whether a "no" is the service's own word, or nothing that could have done anything was reached."""
    return fault.sure or fault.kind not in ("refused", "missing", "data")


def _again(fault: ServiceFault) -> bool:
    return fault.kind in ("lost", "foreign") or fault.kind in _NOTHING_DONE
