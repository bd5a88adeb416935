"""Twins: more than one job from one submission, by a proxy that repeated the request or an attempt that took effect late.

A run keeps one job, cancels the others, and says what that may have cost. Lists can lag, so they are looked for when the job
is made, again and again while it is followed, and once more at its end.
"""

from __future__ import annotations

from typing import Any

from ftbridge.errors import FtbridgeError
from ftbridge.http import aged
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import clean, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.marks import ENDED, Sought, claimed, matches, token_of
from ftbridge.providers.openai.jobs.upload import uploaded_name
from ftbridge.providers.openai.retry import read

LOOKS_AFTER = (0.0, 15.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""Seconds after the creation when twins are looked for while the job is followed."""


class TwinWatch:
    """When to look for twins of one job as one process follows it."""

    def __init__(self, at: Connection, ledger: Ledger, job: str) -> None:
        self._at, self._ledger, self._job = at, ledger, job
        self._looks = 0

    def look(self, *, ended: bool) -> None:
        """Look if it is time to, or the job has ended. Never raises: the job goes on without it."""
        record = next((e for e in reversed(self._ledger.of("made")) if e.data.get("id") == self._job), None)
        if record is None:
            return
        due = sum(aged(record.time, seconds) for seconds in LOOKS_AFTER)
        if due <= self._looks and not ended:
            return
        self._looks = len(LOOKS_AFTER) if ended else due
        end_twins(self._at, self._ledger, str(record.data["key"]), self._job, attempts=1)


def end_twins(at: Connection, ledger: Ledger, token: str, job: str, *, attempts: int = 3) -> None:
    """Cancel every other job of this submission; what cannot be looked at or cancelled is noted, and tried again later."""
    try:
        twins = _twins(at, ledger, token, job, attempts)
    except FtbridgeError:
        return  # looked for again while the job is followed
    for twin in twins:
        _end_twin(at, ledger, str(twin.id), str(getattr(twin, "status", "")), attempts)


def open_twins(ledger: Ledger) -> list[str]:
    """Twins that may still be running: their cancellation failed."""
    states = {str(event.data["id"]): bool(event.data.get("ended")) for event in ledger.of("twin")}
    return [twin for twin, ended in states.items() if not ended]


def _twins(at: Connection, ledger: Ledger, token: str, job: str, attempts: int) -> list[Any]:
    """Other jobs that carry the token; where the service drops it, those that look like this one and came of a lost attempt."""
    submitted = ledger.last("submitting", token=token)
    if submitted is None:
        return []
    training_file = str(submitted.data["training_file"])
    first = next((e for e in ledger.of("intended") if e.data["what"] == "job" and e.data["key"] == token), None)
    sought = Sought(
        token=token,
        training_file=training_file,
        file_name=uploaded_name(ledger, training_file),
        validation_file=submitted.data.get("validation_file"),
        mark=first.data.get("mark") if first is not None else None,
    )
    matching = matches(at, sought)
    twins = [other for other in matching.certain if other.id != job]
    likely = [other for other in matching.likely if other.id not in (job, *claimed(at, ""))]
    if not likely:
        return twins
    job_object = read(
        lambda: require_fields(at.client.fine_tuning.jobs.retrieve(job), "status"),
        "looking at the job",
        at.service,
        attempts=attempts,
    )
    if token_of(job_object) is not None:
        return twins  # tokens are kept here, and these carry none: they are somebody else's
    if ledger.last("lost", what="job", key=token) is not None:
        return twins + likely
    for other in likely:
        message = (
            f"{other.id} trains on the same file with the same settings; if nobody else created it: ftbridge jobs "
            f"cancel {other.id}"
        )
        if ledger.last("note", message=message) is None:
            ledger.append("note", level="warn", message=message)
    return twins


def _end_twin(at: Connection, ledger: Ledger, twin: str, status: str, attempts: int) -> None:
    recorded = ledger.last("twin", id=twin)
    if recorded is not None and recorded.data.get("ended"):
        return
    if status in ENDED:
        _note(ledger, twin, status, ended=True, what="had ended before it could be cancelled")
        return
    jobs = at.client.fine_tuning.jobs
    try:
        job = read(
            lambda: require_fields(jobs.cancel(twin), "status"),
            "cancelling a second job",
            at.service,
            attempts=attempts,
        )
    except FtbridgeError as error:
        if recorded is None:
            _note(ledger, twin, status, ended=False, what=f"could not be cancelled ({error.message})")
        return
    ended = str(job.status) in ENDED
    if ended or recorded is None:
        _note(ledger, twin, str(job.status), ended=ended, what="was cancelled")


def _note(ledger: Ledger, twin: str, status: str, *, ended: bool, what: str) -> None:
    costs = {"succeeded": "it is billed like the first job", "failed": "a failed job is not billed by OpenAI"}
    cost = costs.get(status, "what it trained until then may be billed")
    ledger.append("twin", id=twin, state=status, ended=ended)
    message = clean(f"{twin}, a second job from one request, {what}: {cost}")
    ledger.append("note", level="warn", message=message)
