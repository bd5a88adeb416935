"""An account at a service, apart from any run: its jobs, and what the service can do."""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import BaseModel, ConfigDict

from ftbridge import files
from ftbridge.errors import UsageError
from ftbridge.providers.openai.client import Connection, address_of, items_of
from ftbridge.providers.openai.errors import require_fields
from ftbridge.providers.openai.jobs.follow import status_of
from ftbridge.providers.openai.jobs.marks import token_of
from ftbridge.providers.openai.probe import probe
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.retry import read
from ftbridge.providers.openai.targets import TARGETS
from ftbridge.runs.journal import Journal


class HostedJob(BaseModel):
    """One job of an account. Times are Unix seconds; `run` is the run of this home that it belongs to, if it is known."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: str
    model: str | None
    created: float | None
    training_file: str | None
    tuned: str | None
    run: str | None
    error: str | None


class HostedAccount:
    """A connection without a run."""

    def __init__(self, connection: Connection) -> None:
        self._at = connection

    @classmethod
    def at(cls, target: str, base_url: str | None) -> HostedAccount:
        """The account that the environment's key opens at a service. Raises `UsageError` for a target without an address."""
        if target not in TARGETS:
            raise UsageError(f"{target!r} is not a service; choose one of {', '.join(TARGETS)}.")
        request = OpenAIRequest.model_validate(
            {
                "target": target,
                "base_url": base_url,
                "organization": None,
                "project": None,
                "api_version": None,
                "deployment": None,
                "batch": False,
                "max_usd": None,
                "n_epochs": 1,
                "body": {"model": ""},
                "extra": {},
            }
        )
        return cls(Connection(request, address_of(request)))

    @property
    def service(self) -> str:
        """The service in messages."""
        return self._at.service

    def jobs(self, limit: int) -> list[HostedJob]:
        """The account's newest jobs, newest first. Raises as `read` does."""
        jobs = self._at.client.fine_tuning.jobs
        size = min(limit, 100)

        def listed() -> list[Any]:
            return list(itertools.islice(items_of(lambda more: jobs.list(limit=size, **more)), limit))

        runs = self._runs()
        return [_job(job, runs) for job in read(listed, "listing the jobs", self.service)]

    def cancel(self, job: str) -> str:
        """Ask the service to cancel a job; returns its state then."""
        jobs = self._at.client.fine_tuning.jobs
        shown = read(lambda: require_fields(jobs.cancel(job), "status"), f"cancelling {job}", self.service)
        return status_of(shown).state

    def probe(self) -> dict[str, str]:
        """What each part of the interface answers. Nothing is made, nothing is paid."""
        return {"service": self.service, **probe(self._at)}

    def _runs(self) -> dict[str, str]:
        """Runs by job and by token, as the registry of the account and the runs of this home know them."""
        runs = {}
        for event in Journal(self._at.registry).read():
            if event.type == "job":
                runs[str(event.data["id"])] = str(event.data["token"]).rsplit("-", 1)[0]
        for path in (files.home() / "runs").glob("*/openai/journal.jsonl"):
            for event in Journal(path).read():
                if event.type == "made" and event.data.get("what") == "job":
                    runs[str(event.data["id"])] = path.parent.parent.name
        return runs


def _job(job: Any, runs: dict[str, str]) -> HostedJob:
    status = status_of(job)
    token = token_of(job)
    created = getattr(job, "created_at", None)
    tuned, file = getattr(job, "fine_tuned_model", None), getattr(job, "training_file", None)
    return HostedJob(
        id=str(job.id),
        state=status.state,
        model=str(job.model) if getattr(job, "model", None) else None,
        created=float(created) if isinstance(created, (int, float)) else None,
        training_file=str(file) if file else None,
        tuned=str(tuned) if tuned else None,
        run=runs.get(str(job.id)) or (token.rsplit("-", 1)[0] if token else None),
        error=status.error.message if status.error is not None else None,
    )
