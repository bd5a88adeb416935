"""The job: created exactly once for a token, found again by it, its files removed when the service refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ftbridge.errors import FtbridgeError, ProviderRefused
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import ServiceUnavailable, whole
from ftbridge.providers.openai.ledger import Ledger
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.once import once
from ftbridge.providers.openai.retry import read
from ftbridge.providers.openai.upload import remove_uploaded
from ftbridge.runs.journal import Event, Journal

_PAGE = 100


def ensure_job(at: Connection, ledger: Ledger, token: str, training_file: str, validation_file: str | None) -> str:
    """The id of the job with this token, created if there is none.

    Raises `ProviderRefused` when the service will not have it, after removing the files that this run uploaded for it.
    """

    def act() -> str:
        body = dict(at.request.body)
        body["metadata"] = {**body.get("metadata", {}), TOKEN_KEY: token}
        if validation_file is not None:
            body["validation_file"] = validation_file
        jobs = at.client.fine_tuning.jobs
        told = jobs.create(training_file=training_file, extra_body=at.request.extra or None, **body)
        return str(whole(told, "id").id)

    try:
        made = once(
            ledger,
            "job",
            token,
            act=act,
            find=lambda first: _oldest(_matching(at, token, training_file, first)),
            mark=lambda: None if at.target.keeps_metadata else _newest(at),
            service=at.service,
        )
    except (ServiceUnavailable, KeyboardInterrupt):
        raise
    except FtbridgeError as error:
        if isinstance(error, ProviderRefused) and ledger.open_intent("job", token) is None:
            removed = remove_uploaded(at, ledger)
            error.message += (
                f" The uploaded {'files were' if len(removed) > 1 else 'file was'} removed." if removed else ""
            )
        raise
    Journal(at.registry).append("job", id=made, token=token)
    if ledger.last("lost", what="job", key=token) is not None:
        _cancel_twins(at, ledger, token, made)
    return made


def find_job(at: Connection, ledger: Ledger, token: str) -> str | None:
    """The job that a submission with this token made, if it made one. Creates nothing."""
    made = ledger.made("job", token)
    first = ledger.open_intent("job", token)
    if made is not None or first is None:
        return made
    files = [event.data["id"] for event in ledger.of("made") if event.data["what"] == "file"]
    for training_file in files:
        if (found := _oldest(_matching(at, token, training_file, first))) is not None:
            ledger.append("made", what="job", key=token, id=found, intent=first.seq, how="found")
            return found
    return None


def _matching(at: Connection, token: str, training_file: str, first: Event | None) -> list[Any]:
    """The jobs that may come from this submission, newest first.

    One that carries the token is ours, one that carries another run's is not. Where metadata may be dropped, a job without
    any is ours if it trains the same model on the same file, came after the list's newest job when the first attempt was
    made (no clocks are compared), and no other run of this account has claimed it.
    """
    mark = first.data.get("mark") if first is not None else None
    others = {
        str(event.data["id"])
        for event in Journal(at.registry).read()
        if event.type == "job" and event.data.get("token") != token
    }

    def look() -> list[Any]:
        if at.target.keeps_metadata:
            page = whole(at.client.fine_tuning.jobs.list(limit=_PAGE, metadata={TOKEN_KEY: token}), "data")
            return [job for job in page if _token(job) == token]
        found = []
        for job in _since(at, mark):
            if _token(job) == token or (
                _token(job) is None and job.id not in others and _alike(at, job, training_file)
            ):
                found.append(job)
        return found

    return read(look, "looking for the job", at.service)


def _since(at: Connection, mark: str | None) -> Iterator[Any]:
    for job in whole(at.client.fine_tuning.jobs.list(limit=_PAGE), "data"):
        if job.id == mark:
            return
        yield job


def _newest(at: Connection) -> str | None:
    """The newest job in the list: whatever comes before it later was created later."""

    def look() -> str | None:
        data = whole(at.client.fine_tuning.jobs.list(limit=1), "data").data
        return str(data[0].id) if data else None

    return read(look, "looking at the list of jobs", at.service)


def _alike(at: Connection, job: Any, training_file: str) -> bool:
    return getattr(job, "training_file", None) == training_file and getattr(job, "model", None) == at.request.model


def _token(job: Any) -> str | None:
    metadata = getattr(job, "metadata", None)
    return metadata.get(TOKEN_KEY) if isinstance(metadata, dict) else None


def _oldest(jobs: list[Any]) -> str | None:
    """The first that was created: by time, and among equals the last of a list that is newest first."""
    if not jobs:
        return None
    return str(min(reversed(jobs), key=lambda job: getattr(job, "created_at", 0) or 0).id)


def _cancel_twins(at: Connection, ledger: Ledger, token: str, kept: str) -> None:
    """After an unanswered attempt: end any further job of this token that a slow service made of it after all."""
    if not at.target.keeps_metadata:
        return
    for job in _matching(at, token, "", None):
        if job.id != kept and getattr(job, "status", "") not in ("succeeded", "failed", "cancelled"):
            with suppress(FtbridgeError):
                read(lambda job=job: at.client.fine_tuning.jobs.cancel(job.id), "cancelling a twin", at.service)  # type: ignore[misc]
            ledger.append("note", level="warn", message=f"{job.id}, a second job from one request, was cancelled")
