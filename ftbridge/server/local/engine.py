"""The local engine: jobs become runs of the local provider, chats are answered by models in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from openai.types import Model

from ftbridge.errors import FtbridgeError
from ftbridge.providers.local.inference.requests import GenerationRequest, StreamEvent
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runner import control
from ftbridge.server import jobs_store
from ftbridge.server.api.models import full_name, no_model
from ftbridge.server.http.errors import invalid
from ftbridge.server.local.hosts import Hosts
from ftbridge.server.local.runs import ServedRun
from ftbridge.server.local.sampled import SampledRun
from ftbridge.server.local.spec import base_request
from ftbridge.server.local.training import Turns, find_run, work
from ftbridge.server.requests.job import CreateJob
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject

ACT_SECONDS = 20
"""How long a cancel waits to see its effect before it answers with the state as it is."""
STOP_SECONDS = 60
"""How long a stopping server waits for training to reach a checkpoint."""


class LocalEngine:
    """Trains one job at a time (`at_once`), in the order they came; answers with at most `held` base models in memory.

    `models` maps the names that clients use to local models: a folder, a GGUF file, a hub id, or a built-in alias. Only
    these can be asked for, so a client cannot make the server read a path of its own choice. A name may be a pattern: `gpt-*`,
    or `*` for whatever is asked for. `runs` maps names to what runs made; a name there goes before all others.
    """

    name = "local"

    def __init__(
        self,
        models: Mapping[str, str],
        *,
        home: Path,
        settings: Mapping[str, Any] | None = None,
        at_once: int = 1,
        held: int = 2,
        runs: Mapping[str, ServedRun | SampledRun] | None = None,
    ) -> None:
        self.runs = dict(runs or {})
        self.models, self.home, self.settings = dict(models), home, dict(settings or {})
        self._requests = {name: base_request(local, self.settings) for name, local in self.models.items()}
        self._turns = Turns(at_once)
        self._held = held
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._began = int(time.time())

    async def start(self, service: Service) -> None:
        """Go on with every job that had not ended and was not paused by a client, oldest first."""
        self._service = service
        self._hosts = Hosts(service.folder / "models.log", self._held)
        for job in service.store.every("job"):
            if job.document["status"] not in (*jobs_store.TERMINAL, "paused"):
                self._take(job)

    async def stop(self) -> None:
        """Let running jobs save a checkpoint and give back the machine; the next `start` goes on with them."""
        tasks = dict(self._tasks)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await asyncio.gather(*(self._suspend(name) for name in tasks))
        await self._hosts.close()
        for run in self.runs.values():
            if isinstance(run, SampledRun):
                await asyncio.to_thread(run.close)

    def base_models(self) -> list[dict[str, Any]]:
        """The names of the map, and those of runs."""
        runs = [run.shown(name) for name, run in self.runs.items()]
        return runs + [
            Model(id=name, created=self._began, object="model", owned_by="ftbridge").to_dict()
            for name in self.models
            if "*" not in name
        ]

    def told_file(self, shown: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return shown

    def accept(self, create_job: CreateJob) -> None:
        """Jobs on a base model of the map; what a run here could not do is refused now."""
        if self._begins_with(create_job.model) is None:
            tuned = create_job.model in self.runs or self._service.store.get("model", create_job.model) is not None
            why = "is a tuned model without an adapter to continue from" if tuned else "is not served here"
            model_names = ", ".join(self.models)
            raise invalid(
                f"{create_job.model!r} {why}. Base models: {model_names}. `ftbridge serve --map NAME=MODEL` adds one.",
                "model",
                "model_not_available",
            )
        if create_job.kind == "reinforcement" and create_job.validation_file is None:
            raise invalid(
                "A reinforcement job also needs a validation file: set validation_file.",
                "validation_file",
                "missing_required_parameter",
            )
        if create_job.integrations:
            raise invalid("Integrations are not supported here.", "integrations", "unsupported_parameter")

    def created(self, job: StoredObject) -> None:
        """Begin with it."""
        self._take(job)

    def looked_at(self, job: StoredObject) -> None:
        """Nothing: jobs are followed in the background."""

    def advance(self) -> None:
        """Jobs are followed in the background."""

    async def cancel(self, job: StoredObject) -> None:
        """End its run, if it has one. The run's journal hears of it first: after a crash the books catch up with it.

        The task that follows the job goes on until every process of it has ended, and only then gives up its turn.
        """
        run = await asyncio.to_thread(find_run, self.home, job)
        if run is None:  # its data are being looked at; the run that comes of it is ended there
            jobs_store.cancelled(self._service, job.id)
            return
        await asyncio.to_thread(_quietly, control.cancel, run)
        if job.id not in self._tasks or run.state().state == "cancelled":
            jobs_store.cancelled(self._service, job.id)
            return
        await self._wait(job.id, jobs_store.TERMINAL)

    async def pause(self, job: StoredObject) -> None:
        """Ask its run for a checkpoint and a stop."""
        run = await asyncio.to_thread(find_run, self.home, job)
        assert run is not None, "a running job has a run"
        jobs_store.change(self._service, job.id, status="pausing")
        await asyncio.to_thread(_quietly, control.pause, run)

    async def resume(self, job: StoredObject) -> None:
        """Queue it again."""
        jobs_store.change(self._service, job.id, status="queued")
        self._take(job)

    def answerable(self, model: str) -> None:
        """Base models of the map, runs of the map, and tuned models that are offered."""
        if (
            model not in self.runs
            and full_name(model, self.models) is None
            and self._service.store.get("model", model) is None
        ):
            raise no_model(model)

    def model_id(self, model: str) -> str:
        """The map's name of it; the client's own where it fits a pattern of the map."""
        base = None if model in self.runs else full_name(model, self.models)
        return model if base is None or "*" in base else base

    async def generate(self, model: str, ask: GenerationRequest) -> AsyncIterator[StreamEvent]:
        """From the base model, with the tuned model's adapter on the rows of this ask."""
        base = full_name(model, self.models)
        run = self.runs.get(model)
        if isinstance(run, SampledRun):
            async with aclosing(cast(Any, run.generate(ask))) as events:
                async for event in events:
                    yield event
            return
        if run is not None:
            request, weights = run.request, run.weights
            ask = ask.model_copy(update={"adapter": run.adapter})
        elif base is not None and self._service.store.get("model", model) is None:
            request, weights = self._requests[base], None
        else:
            stored = self._service.store.get("model", model)
            if stored is None:
                raise no_model(model)
            request, weights = LocalRequest.model_validate(stored.extra["request"]), stored.extra.get("weights")
            ask = ask.model_copy(update={"adapter": stored.extra.get("adapter")})
        if ask.thinking is None:  # models of one base share its process, however each was trained
            ask = ask.model_copy(update={"thinking": request.thinking})
        async with aclosing(cast(Any, self._hosts.generate(request, weights, ask))) as events:
            async for event in events:
                yield event

    def _take(self, job: StoredObject) -> None:
        begins_with = self._begins_with(job.document["model"])
        if begins_with is None:
            base = job.document["model"]
            jobs_store.fail(self._service, job.id, "model_not_available", f"{base} is no longer served here.", "model")
            return
        model, adapter = begins_with
        settings = self.settings
        if adapter is not None:
            settings = {**settings, "lora": {**settings.get("lora", {}), "continue_from": adapter}}
        working = work(self._service, job.id, model, settings, self._turns, self.home)
        self._tasks[job.id] = task = asyncio.create_task(working)
        task.add_done_callback(lambda done: self._tasks.pop(job.id) if self._tasks.get(job.id) is done else None)

    def _begins_with(self, name: str) -> tuple[str, str | None] | None:
        """The local model that a job on this name trains, and the adapter it goes on from; None where it cannot be trained."""
        if name in self.runs:
            return None
        base = full_name(name, self.models)
        if base is not None:
            return self.models[base], None
        tuned = self._service.store.get("model", name)
        if tuned is None or tuned.extra.get("adapter") is None:
            return None
        return str(tuned.extra["request"]["model"]), str(tuned.extra["adapter"])

    async def _wait(self, name: str, states: frozenset[str]) -> None:
        give_up = time.monotonic() + ACT_SECONDS
        while jobs_store.find_job(self._service, name).document["status"] not in states and time.monotonic() < give_up:
            await asyncio.sleep(0.05)

    async def _suspend(self, name: str) -> None:
        job = jobs_store.find_job(self._service, name)
        run = await asyncio.to_thread(find_run, self.home, job)
        if run is not None and run.is_driven():
            await asyncio.to_thread(_quietly, control.pause, run)
            await asyncio.to_thread(control.settled, run, STOP_SECONDS)


def _quietly(act: Any, run: Any) -> None:
    """Ask; a run that ended in the same moment needs no asking."""
    with contextlib.suppress(FtbridgeError):
        act(run)
