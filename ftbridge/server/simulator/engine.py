"""The scripted engine: plays a scenario. Jobs walk (`walks.py`), chats are answered (`answers.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from openai.types import Model

from ftbridge.providers.local.inference.requests import GenerationRequest, StreamEvent
from ftbridge.server import jobs_store
from ftbridge.server.api.models import full_name, no_model
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.server.requests.job import CreateJob
from ftbridge.server.service import Service
from ftbridge.server.simulator.answers import Texts, dataset_texts, scripted_events
from ftbridge.server.simulator.scenario import Scenario
from ftbridge.server.simulator.walks import Walks
from ftbridge.server.store import StoredObject

_HEALTHY: dict[str, Any] = {
    "null": None,
    "empty": {},
    "object_of_nulls": {"code": None, "message": None, "param": None},
}


class ScriptedEngine:
    """Plays a scenario."""

    name = "scripted"

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._answering = 0
        self.most_answering = 0

    async def start(self, service: Service) -> None:
        """Check again what was being checked; the clock does the rest."""
        self._service = service
        self._walks = Walks(service, lambda: self.scenario)
        for job in service.store.every("job"):
            if job.document["status"] not in jobs_store.TERMINAL:
                self._walks.take(job)

    async def stop(self) -> None:
        """Nothing is lost: the clock goes on."""
        self._walks.stop()

    def forget(self) -> None:
        """Let go of every job, and count again."""
        self._walks.forget()
        self.most_answering = 0

    def base_models(self) -> list[dict[str, Any]]:
        """The scenario's."""
        shown = []
        for name in self.scenario.models:
            model = Model(id=name, created=1_744_316_542, object="model", owned_by="system").to_dict()
            if name in self.scenario.shutdown:
                model["shutdown_date"] = self.scenario.shutdown[name]
            shown.append(model)
        return shown

    def told_file(self, shown: dict[str, Any]) -> dict[str, Any]:
        """With the scenario's status."""
        if shown["purpose"] != "fine-tune":
            return shown
        status = self.scenario.file_status
        details = {"status_details": "Line 1 cannot be read."} if status == "error" else {}
        return {**shown, "status": status, **details}

    def accept(self, create_job: CreateJob) -> None:
        """Any method, on a base model of the scenario or a tuned one."""
        if self._base(create_job.model) is None and self._service.store.get("model", create_job.model) is None:
            raise invalid(
                f"There is no model {create_job.model!r} that can be fine-tuned.", "model", "model_not_available"
            )

    def created(self, job: StoredObject) -> None:
        """Write down its walk, and check its data meanwhile."""
        jobs = self.scenario.jobs
        metadata = job.document["metadata"] if jobs.keeps_metadata else None
        job = jobs_store.change(self._service, job.id, metadata=metadata, error=_HEALTHY[jobs.healthy_error])
        self._walks.begin(job)

    def looked_at(self, job: StoredObject) -> None:
        """One look further, where looks are what moves jobs."""
        self._walks.looked_at(job)

    def advance(self) -> None:
        """Take every job to where the clock says it is."""
        self._walks.advance()

    async def cancel(self, job: StoredObject) -> None:
        """At once."""
        self._walks.cancel(job)

    async def pause(self, job: StoredObject) -> None:
        """`pausing`, and `paused` a moment later."""
        self._walks.pause(job)

    async def resume(self, job: StoredObject) -> None:
        """Queued, and then on."""
        self._walks.resume(job)

    def answerable(self, model: str) -> None:
        """404 for unknown models, and for new ones that are still being loaded."""
        if self._base(model) is not None:
            return
        stored = self._service.store.get("model", model)
        if stored is None:
            raise no_model(model)
        state = self._service.account
        if state is not None and state.stopped(model, self._service.clock()):
            raise no_model(model)
        request_count = stored.extra.get("asked", 0)
        if request_count < self.scenario.chat.not_loaded:
            store = self._service.store
            store.update(
                "model",
                model,
                lambda was: StoredObject("model", was.id, was.document, {**was.extra, "asked": request_count + 1}),
            )
            raise no_model(model)

    def model_id(self, model: str) -> str:
        """The scenario's name of it, with its date."""
        base = self._base(model)
        return model if base is None or "*" in base else base

    def _base(self, model: str) -> str | None:
        return full_name(model, self.scenario.models)

    async def generate(self, model: str, ask: GenerationRequest) -> AsyncIterator[StreamEvent]:
        """From the script; 429 when more are asked for at the same time than the scenario allows."""
        most = self.scenario.chat.at_once
        if most is not None and self._answering >= most:
            raise ApiError(429, "Too many requests at the same time.", code="rate_limit_exceeded")
        self._answering += 1
        self.most_answering = max(self.most_answering, self._answering)
        try:
            async for event in scripted_events(self.scenario, model, ask, *self._texts(model, ask)):
                yield event
                await asyncio.sleep(0)
        finally:
            self._answering -= 1

    def _texts(self, model: str, ask: GenerationRequest) -> list[Texts]:
        """What an account's model says to a paid request, if it has texts of its own; the request goes into the ledger."""
        state = self._service.account
        if state is None:
            return []
        state.paid(model, ask, self._service.clock())
        behaves = state.account.behaviour(model)
        return [dataset_texts(behaves, self.scenario.seed)] if behaves.completions is not None else []
