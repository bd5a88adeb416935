"""Made exactly once: the heart of the provider. For jobs, files and batches, everything that costs money or leaves copies.

    made before? ──yes──▶ its id
         │no
    an attempt without an answer? ──yes──▶ look for what it made ──found──▶ its id
         │no                                       │ not there, even in lists that lag
         ▼                                         ▼
    journal the intent ──▶ request ──answered──▶ journal the id
              ▲               ├──declined──▶ journal that; raise, or wait and go again
              └───────────────┴──no answer──▶ look for it, wait, look again; then go again

A process may be killed at any arrow. The services know no idempotency keys, so what an attempt made is recognised by what it
carries: a job by its token, a file by the hash in its name.
"""

from __future__ import annotations

from collections.abc import Callable

from ftbridge.providers.openai.errors import Fault, error_of, fault_of
from ftbridge.providers.openai.ledger import Ledger
from ftbridge.providers.openai.retry import ATTEMPTS, LOOKS, backoff, sleep
from ftbridge.runs.journal import Event

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
) -> str:
    """The id of the thing `what` named `key`, made by `act` if it is not there yet.

    `act` makes one request, without retries, and returns the id. `find` looks for what an attempt may have made; it is
    given the first attempt's event, whose `mark` (asked once, before the first attempt) tells a list's state then.
    Raises as `error_of` says; after `ServiceUnavailable` calling again is safe.
    """
    if (known := ledger.made(what, key)) is not None:
        return known
    doing = f"creating the {what}" if what != "file" else "uploading the file"
    first = ledger.open_intent(what, key)
    if first is not None and (found := _look(find, first)) is not None:
        return _made(ledger, what, key, found, first, "found")
    marked = first.data.get("mark") if first is not None else mark()
    attempt = 0
    while True:
        attempt += 1
        intent = ledger.append("intended", what=what, key=key, attempt=attempt, mark=marked)
        try:
            made = act()
        except Exception as error:
            fault = fault_of(error)
        else:
            return _made(ledger, what, key, made, intent, "answered")
        if fault.kind == "lost":
            first = first or intent
            ledger.append("lost", what=what, key=key, intent=intent.seq, why=fault.message)
            if (found := _look(find, first)) is not None:
                return _made(ledger, what, key, found, intent, "found")
        else:
            ledger.append("declined", what=what, key=key, intent=intent.seq, why=fault.message)
        if not _again(fault) or attempt >= ATTEMPTS:
            raise error_of(fault, doing, service)
        sleep(backoff(attempt, fault))


def _made(ledger: Ledger, what: str, key: str, made: str, intent: Event, how: str) -> str:
    ledger.append("made", what=what, key=key, id=made, intent=intent.seq, how=how)
    return made


def _look(find: Callable[[Event | None], str | None], first: Event) -> str | None:
    """Look at once, and again after ever longer waits: a list may not show yet what was made a moment ago."""
    for seconds in LOOKS:
        sleep(seconds)
        if (found := find(first)) is not None:
            return found
    return None


def _again(fault: Fault) -> bool:
    return fault.kind == "lost" or fault.kind in _NOTHING_DONE
