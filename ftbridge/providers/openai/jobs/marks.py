"""Which job comes from which submission: by every mark that a service may keep of a request.

    token in metadata ──yes──▶ ours (another run's token: not ours)
         │ dropped, in the list or altogether
         ▼
    the job alone, which may tell what its list leaves out
         │ no token there either
         ▼
    training file (id or name) · model (an alias and its dated name) · epochs, seed, suffix, validation file as asked
    · newer than the list's newest job before the first attempt · claimed by no other run of this account

No clocks are compared: the order of the list counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ftbridge.errors import FtbridgeError
from ftbridge.providers.openai.client import Connection, items_of
from ftbridge.providers.openai.errors import require_fields
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.retry import read
from ftbridge.runs.journal import Journal

_PAGE = 100
ENDED = frozenset({"succeeded", "failed", "cancelled", "canceled", "completed"})


@dataclass(frozen=True)
class Sought:
    """A submission as its job would show it. `mark` is the list's newest job before the first attempt."""

    token: str
    training_file: str
    file_name: str | None
    validation_file: str | None
    mark: str | None


@dataclass(frozen=True)
class Matches:
    """Jobs that may come from a submission, oldest last: those that carry its token, those that look like it.

    `nameless` are new jobs that tell neither token nor file: any of them may be it.
    """

    certain: list[Any]
    likely: list[Any]
    nameless: list[Any]

    @property
    def oldest(self) -> str | None:
        """The job to take: the first that was created, certain ones before likely ones."""
        jobs = self.certain or self.likely
        return str(min(reversed(jobs), key=_created).id) if jobs else None


def matches(at: Connection, sought: Sought) -> Matches:
    """The jobs of the account that may come from this submission. Raises as `read` does."""
    if at.target.keeps_metadata and (jobs := read(lambda: _by_token(at, sought.token), _LOOKING, at.service)):
        return Matches(jobs, [], [])
    jobs = read(lambda: list(_since(at, sought.mark)), _LOOKING, at.service)
    certain = [job for job in jobs if token_of(job) == sought.token]
    if certain or (at.target.keeps_metadata and at.is_usual_address):
        return Matches(certain, [], [])
    others = claimed(at, sought.token)
    unnamed = [job for job in jobs if token_of(job) is None and job.id not in others]
    likely: list[Any] = []
    for job in unnamed:
        if not is_alike(at, job, sought):
            continue
        name = _token_alone(at, job)
        if name == sought.token:
            certain.append(job)
        elif name is None:
            likely.append(job)
    nameless = [job for job in unnamed if getattr(job, "training_file", None) is None]
    return Matches(certain, [] if certain else likely, nameless)


def token_of(job: Any) -> str | None:
    """The token that a job carries, if it tells one."""
    metadata = getattr(job, "metadata", None)
    if metadata is not None and not isinstance(metadata, dict):
        metadata = getattr(metadata, "__dict__", None)
    token = metadata.get(TOKEN_KEY) if isinstance(metadata, dict) else None
    return str(token) if token is not None else None


def newest(at: Connection) -> str | None:
    """The newest job in the list: whatever comes before it later was created later."""

    def look() -> str | None:
        data = require_fields(at.client.fine_tuning.jobs.list(limit=1), "data").data
        return str(data[0].id) if data else None

    return read(look, "looking at the list of jobs", at.service)


def claimed(at: Connection, token: str) -> set[str]:
    """Ids of jobs that other submissions of this account are known to have made."""
    events = Journal(at.registry).read()
    return {str(event.data["id"]) for event in events if event.type == "job" and event.data.get("token") != token}


def is_alike(at: Connection, job: Any, sought: Sought) -> bool:
    """Whether a job without a token trains the same file with the settings that were asked for, as far as it tells them."""
    if getattr(job, "training_file", None) not in (sought.training_file, sought.file_name):
        return False
    if not _same_model(str(getattr(job, "model", "")), at.request.model):
        return False
    body = at.request.body
    pairs = [
        (getattr(job, "validation_file", None), sought.validation_file),
        (getattr(job, "user_provided_suffix", None) or getattr(job, "suffix", None), body.get("suffix")),
        (getattr(job, "seed", None), body.get("seed") or None),
    ]
    pairs += [(reported(job, name), value) for name, value in _numbers(at.request.hyperparameters).items()]
    return all(shown == wanted for shown, wanted in pairs if shown is not None and wanted is not None)


_LOOKING = "looking for the job"


def _by_token(at: Connection, token: str) -> list[Any]:
    jobs = at.client.fine_tuning.jobs
    page = items_of(lambda more: jobs.list(limit=_PAGE, metadata={TOKEN_KEY: token}, **more))
    return [job for job in page if token_of(job) == token]


def _since(at: Connection, mark: str | None) -> Iterator[Any]:
    """The whole list down to the mark, newest first."""
    jobs = at.client.fine_tuning.jobs
    for job in items_of(lambda more: jobs.list(limit=_PAGE, **more)):
        if job.id == mark:
            return
        yield job


def _token_alone(at: Connection, job: Any) -> str | None:
    """The token that the job itself tells, where lists leave metadata out."""
    try:
        return token_of(read(lambda: at.client.fine_tuning.jobs.retrieve(job.id), _LOOKING, at.service, attempts=2))
    except FtbridgeError:
        return None


def _same_model(shown: str, wanted: str) -> bool:
    """Equal, or an alias and its dated name, with or without a gateway's prefix ("openai/…")."""
    if wanted.startswith("ft:") or shown.startswith("ft:"):
        return shown == wanted
    shown, wanted = shown.lower().rsplit("/", 1)[-1], wanted.lower().rsplit("/", 1)[-1]
    longer, shorter = sorted((shown, wanted), key=len, reverse=True)
    rest = longer.removeprefix(shorter)
    return rest == "" or (longer.startswith(shorter) and (rest == "-latest" or rest[:2].lstrip("-@").isdigit()))


def _numbers(hyperparameters: dict[str, Any]) -> dict[str, float]:
    """Those that were asked for as numbers."""
    return {
        name: value for name, value in hyperparameters.items() if isinstance(value, (int, float)) and value is not True
    }


def reported(job: Any, name: str) -> float | None:
    """A hyperparameter as the job tells it, at the top or under its method; None while it is no number."""
    places = [getattr(job, "hyperparameters", None)]
    method = _get(job, "method")
    kind = _get(method, "type")
    if isinstance(kind, str):
        places.append(_get(_get(method, kind), "hyperparameters"))
    for index in places:
        value = _get(index, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _created(job: Any) -> float:
    value = getattr(job, "created_at", 0)
    return float(value) if isinstance(value, (int, float)) else 0.0
