"""The job: created exactly once for a token, found again by its marks, its files removed when the service refuses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from filelock import FileLock, Timeout

from ftbridge.errors import DataError, FtbridgeError, InDoubt, ModelUnavailable, ProviderRefused, UsageError
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import ServiceUnavailable, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.marks import Sought, claimed, matches, newest, token_of
from ftbridge.providers.openai.jobs.once import DOUBT_HINT, once, settled
from ftbridge.providers.openai.jobs.twins import end_twins
from ftbridge.providers.openai.jobs.upload import remove_uploaded, uploaded_name
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.probe import note_marks
from ftbridge.providers.openai.retry import read
from ftbridge.runs.journal import Event, Journal

_LOCK_SECONDS = 900.0
"""How long a creation waits for that of another run on the same file, where jobs may be told apart by their file only."""


def ensure_job(
    at: Connection,
    ledger: Ledger,
    token: str,
    training_file: str,
    validation_file: str | None,
    check_requests: Callable[[], None] = lambda: None,
) -> str:
    """The id of the job with this token, created if there is none.

    `check_requests` is called before each attempt and may raise to stop. Raises `ProviderRefused`, `ModelUnavailable`
    or `DataError` when the service will not have it, after removing the files that this run uploaded for it;
    `InDoubt` when it is not known whether there is a job.
    """

    def act() -> str:
        body = dict(at.request.body)
        body["metadata"] = {**body.get("metadata", {}), TOKEN_KEY: token}
        if validation_file is not None:
            body["validation_file"] = validation_file
        jobs = at.client.fine_tuning.jobs
        job = jobs.create(training_file=training_file, extra_body=at.request.extra or None, **body)
        job_id = str(require_fields(job, "id").id)
        note_marks(at, job)
        return job_id

    with _alone(at, training_file):
        try:
            job_id = once(
                ledger,
                "job",
                token,
                act=act,
                find=lambda first: _find(at, ledger, token, training_file, validation_file, first),
                mark=lambda: _mark(at, ledger),
                service=at.service,
                check_requests=check_requests,
            )
        except (ServiceUnavailable, InDoubt, KeyboardInterrupt):
            raise
        except (ProviderRefused, ModelUnavailable, DataError) as error:
            if not ledger.open_intents("job"):
                removed = remove_uploaded(at, ledger)
                error.message += (
                    f" The uploaded {'files were' if len(removed) > 1 else 'file was'} removed." if removed else ""
                )
            raise
        _claim(at, job_id, token)
    end_twins(at, ledger, token, job_id)
    return job_id


def find_job(at: Connection, ledger: Ledger, token: str) -> str | None:
    """The job that a submission with this token made, if it made one; lists that lag are looked at again. Creates nothing.

    Raises `InDoubt` when the service does not let it be found out.
    """
    if (recorded := ledger.recorded("job", token)) is not None:
        _claim(at, recorded, token)
        return recorded
    if ledger.open_intent("job", token) is None:
        return None
    training_file, validation_file = _files(ledger)
    with _alone(at, training_file):
        existing = settled(
            ledger, "job", token, lambda first: _find(at, ledger, token, training_file, validation_file, first)
        )
        if existing is not None:
            _claim(at, existing, token)
    return existing


def adopt_job(at: Connection, ledger: Ledger, token: str, job: str) -> str:
    """Take a job of the account as this submission's, on the user's word; returns its id.

    Raises `UsageError` for a job that another run of the account has, `ModelUnavailable` for one that is not there.
    """
    shown = read(
        lambda: require_fields(at.client.fine_tuning.jobs.retrieve(job), "status"), "looking at the job", at.service
    )
    name = token_of(shown)
    if job in claimed(at, token) or (name is not None and name != token):
        raise UsageError(f"{job} belongs to another run.", hint="`ftbridge jobs` shows which.")
    first = ledger.open_intent("job", token)
    ledger.append("made", what="job", key=token, id=job, intent=first.seq if first else None, how="adopted")
    _claim(at, job, token)
    return job


def _find(
    at: Connection,
    ledger: Ledger,
    token: str,
    training_file: str,
    validation_file: str | None,
    first: Event | None,
) -> str | None:
    sought = sought_of(ledger, token, training_file, validation_file, first)
    matching = matches(at, sought)
    if matching.oldest is None and matching.nameless:
        names = ", ".join(str(job.id) for job in matching.nameless[:5])
        raise InDoubt(
            (
                f"an attempt to create the job got no response, and {at.service} does not show which files its jobs train "
                f"on ({names})."
            ),
            hint=DOUBT_HINT,
        )
    return matching.oldest


def sought_of(
    ledger: Ledger, token: str, training_file: str, validation_file: str | None, first: Event | None
) -> Sought:
    """A submission as its job would show it."""
    return Sought(
        token=token,
        training_file=training_file,
        file_name=uploaded_name(ledger, training_file),
        validation_file=validation_file,
        mark=first.data.get("mark") if first is not None else None,
    )


def _files(ledger: Ledger) -> tuple[str, str | None]:
    """Training and validation file of the submission, as the ledger has them: the training file goes up first."""
    submitted = ledger.last("submitting")
    if submitted is not None:
        return str(submitted.data["training_file"]), submitted.data.get("validation_file")
    files = [str(event.data["id"]) for event in ledger.of("made") if event.data["what"] == "file"]
    return files[0] if files else "", files[1] if len(files) > 1 else None


def _mark(at: Connection, ledger: Ledger) -> str | None:
    """The list's newest job. A service that does not show its list is noted: a lost job could not be found there."""
    try:
        return newest(at)
    except ServiceUnavailable:
        raise
    except FtbridgeError as error:
        ledger.append("marks", lists=False, why=error.message)
        return None


def _claim(at: Connection, job: str, token: str) -> None:
    """Tell the account's other runs whose job this is, once."""
    registry = Journal(at.registry)
    if not any(event.type == "job" and event.data.get("id") == job for event in registry.read()):
        registry.append("job", id=job, token=token)


def _alone(at: Connection, training_file: str) -> Any:
    """Where a job may be told by its file alone, one run at a time creates jobs from it, so that none takes another's."""
    return nullcontext() if at.target.keeps_metadata and at.is_usual_address else _locked(at, training_file)


@contextmanager
def _locked(at: Connection, training_file: str) -> Iterator[None]:
    at.registry.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(at.registry.with_name(f".{at.account}-job-{training_file[-24:]}.lock"))
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise ServiceUnavailable(
            f"another run of this account has been creating a job from {training_file} for {_LOCK_SECONDS / 60:g} minutes.",
            hint="Resume this run when the other one has its job.",
        ) from None
    try:
        yield
    finally:
        lock.release()
