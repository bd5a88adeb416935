"""What an account holds, as the inventory found it: tuned models with their files, use and limits, and what it did not see."""

from __future__ import annotations

import datetime
import difflib
from typing import Literal

from pydantic import Field

from ftbridge.errors import UsageError
from ftbridge.migrate.objects import AccountObject, Checkpoint, FileObject, Job, Method, MigrationKey
from ftbridge.migrate.stored import Features


class Use(AccountObject):
    """How much a model was used in the days that the usage report covers."""

    requests: int = 0
    batch_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    first: datetime.date | None = None
    last: datetime.date | None = None
    projects: dict[str, int] = Field(default={})
    days: int = 0


class RateLimit(AccountObject):
    """What the service lets a project do with a model; None for what it does not state."""

    model: str
    project: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    batch_queue_tokens: int | None = None


class FileNeed(AccountObject):
    """A file that a model came from, and where it is: at the service, in the folder, gone, refused or not known."""

    id: str
    role: Literal["training", "validation", "result"]
    job: str
    state: Literal["there", "downloaded", "gone", "refused", "unknown"] = "unknown"
    bytes: int | None = None
    note: str | None = None


class TunedModel(AccountObject):
    """A tuned model. `base` is the first base model of its chain, `chain` the jobs that made it, oldest first.

    `shutdown` is the day it stops, as the service states it or, where it does not, OpenAI's calendar; `listed` is whether
    `GET /models` shows it.
    """

    id: str
    base: str = ""
    continues: str | None = None
    method: Method = "supervised"
    job: str | None = None
    chain: tuple[str, ...] = ()
    organization: str | None = None
    project: str | None = None
    suffix: str | None = None
    sources: tuple[str, ...] = ()
    created: float | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    shutdown: datetime.date | None = None
    listed: bool = False
    use: Use | None = None
    shared_with: tuple[str, ...] = ()
    features: Features = Features()
    files: tuple[FileNeed, ...] = ()

    def days_left(self, today: datetime.date) -> int | None:
        """Days until it stops: 0 on the day itself, negative afterwards; None where no date is known."""
        return None if self.shutdown is None else (self.shutdown - today).days

    def is_available(self, today: datetime.date) -> bool:
        """Whether it can still be sampled: it is listed, and its last day has not come."""
        days = self.days_left(today)
        return self.listed and (days is None or days > 0)


class Unseen(AccountObject):
    """Something that the inventory could not see, why, and the scope or key that would show it."""

    what: str
    why: str
    scope: str | None = None
    source: str | None = None
    place: str | None = None


class Inventory(AccountObject):
    """Everything that was found, merged over the keys of one organization or several; models come in the order of their use."""

    migration: str
    service: str
    taken: float
    clock_skew: float = 0.0
    today: datetime.date
    sources: tuple[MigrationKey, ...] = ()
    models: tuple[TunedModel, ...] = ()
    jobs: tuple[Job, ...] = ()
    files: dict[str, FileObject] = Field(default={})
    limits: tuple[RateLimit, ...] = ()
    projects: dict[str, str] = Field(default={})
    unseen: tuple[Unseen, ...] = ()
    complete: bool = True

    def model(self, name: str) -> TunedModel:
        """The model of this name, checkpoint name or suffix, or the only one whose name holds it. Raises `UsageError`."""
        exact = [one for one in self.models if name == one.id or any(name == point.model for point in one.checkpoints)]
        matches = (
            exact
            or [one for one in self.models if one.suffix == name]
            or [one for one in self.models if name and name in one.id]
        )
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = "\n".join(f"  {one.id}" for one in matches[:10])
            raise UsageError(f"{name!r} may be any of {len(matches)} models:\n{listed}", hint="Give the whole name.")
        close = difflib.get_close_matches(name, [one.id for one in self.models], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(close)}?" if close else "List them with: ftbridge migrate inventory"
        raise UsageError(f"no tuned model {name!r} in the inventory of {self.migration!r}.", hint=hint)

    def job(self, id: str) -> Job | None:
        """The job with this id."""
        return next((job for job in self.jobs if job.id == id), None)

    def limit(self, model: str, project: str | None = None) -> RateLimit | None:
        """The limits of a model in a project; those of its base where the service states none for the tuned name."""
        base = model.removeprefix("ft:").split(":")[0]
        for name in (model, base, _undated(base)):
            for limit in self.limits:
                if limit.model == name and project in (None, limit.project):
                    return limit
        return None


def _undated(base: str) -> str:
    head, _, tail = base.partition("-20")
    return head if tail[:2].isdigit() else base
