"""The scripted engine: a job is where the clock says it is. Nothing runs in the background but the check of its data.

    started ──▶ state ─ seconds ─▶ state ─ seconds ─▶ … ─▶ end        own: {walk, place, since, steps, told, …}

`advance`, called before every request, takes each job over all the states whose time is up. So a restarted simulator goes
on where the clock is by then, and a clock that is moved by hand moves jobs at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openai.types import Model

from ftbridge.providers.local.inference.requests import GenerationRequest, StreamEvent
from ftbridge.server import jobs_store
from ftbridge.server.api.models import full_name, no_model
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.server.jobs_store import Figures
from ftbridge.server.requests.job import CreateJob
from ftbridge.server.service import Service
from ftbridge.server.simulator.answers import Texts, dataset_texts, scripted_events
from ftbridge.server.simulator.scenario import Scenario
from ftbridge.server.simulator.training import Verdict, curve, settled, verdict
from ftbridge.server.store import StoredObject

_HEALTHY: dict[str, Any] = {
    "null": None,
    "empty": {},
    "object_of_nulls": {"code": None, "message": None, "param": None},
}
_CHECKED = ("validating_files", "running")
"""States that a job does not leave before its data were checked; a walk may have no validation."""
_CHECKPOINTS = 3
"""Checkpoints that are kept: those of the last epochs, as OpenAI keeps them."""


class ScriptedEngine:
    """Plays a scenario."""

    name = "scripted"

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._verdicts: dict[str, Verdict] = {}
        self._checks = ThreadPoolExecutor(max_workers=1, thread_name_prefix="check")
        self._lock = threading.Lock()
        self._live: dict[str, float] = {}
        self._answering = 0
        self.most_answering = 0

    async def start(self, service: Service) -> None:
        """Check again what was being checked; the clock does the rest."""
        self._service = service
        for job in service.store.every("job"):
            if not self._over(job):
                self._take(job)

    async def stop(self) -> None:
        """Nothing is lost: the clock goes on."""
        self._checks.shutdown(wait=True, cancel_futures=True)

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

    def accept(self, asked: CreateJob) -> None:
        """Any method, on a base model of the scenario or a tuned one."""
        if self._base(asked.model) is None and self._service.store.get("model", asked.model) is None:
            raise invalid(f"There is no model {asked.model!r} that can be fine-tuned.", "model", "model_not_available")

    def created(self, job: StoredObject) -> None:
        """Write down its walk, and check its data meanwhile."""
        jobs = self.scenario.jobs
        metadata = job.document["metadata"] if jobs.keeps_metadata else None
        extra = {"walk": jobs.states, "place": 0, "since": self._service.clock(), "told": 0}
        job = jobs_store.change(
            self._service, job.id, extra=extra, metadata=metadata, error=_HEALTHY[jobs.healthy_error]
        )
        job.document["status"] = jobs.states[0][0]
        jobs_store.change(self._service, job.id, status=jobs.states[0][0])
        self._take(job)

    def advance(self) -> None:
        """Take every job to where the clock says it is. Those for which nothing is due are not looked at."""
        now = self._service.clock()
        with self._lock:
            for name in [name for name, due in self._live.items() if due <= now]:
                self._walk(name, now)

    async def cancel(self, job: StoredObject) -> None:
        """At once."""
        with self._lock:
            jobs_store.cancelled(self._service, job.id)
            self._live.pop(job.id, None)

    async def pause(self, job: StoredObject) -> None:
        """`pausing`, and `paused` a moment later; the time to the next state stands still."""
        with self._lock:
            now = self._service.clock()
            spent = now - job.extra["since"]
            jobs_store.change(self._service, job.id, extra={"pausing": now, "spent": spent}, status="pausing")
            self._live[job.id] = 0.0
            jobs_store.add_event(self._service, job.id, "Pausing the job")

    async def resume(self, job: StoredObject) -> None:
        """Queued, and then on with what is left of the state it was in."""
        with self._lock:
            since = self._service.clock() - job.extra.get("spent", 0)
            jobs_store.change(self._service, job.id, extra={"since": since, "pausing": None}, status="queued")
            jobs_store.add_event(self._service, job.id, "Resuming the job")
            self._live[job.id] = 0.0

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

    async def answer(self, model: str, ask: GenerationRequest) -> AsyncIterator[StreamEvent]:
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

    def _take(self, job: StoredObject) -> None:
        self._live[job.id] = 0.0
        if "examples" in job.extra:
            return
        shown, files = job.document, self._service.files
        validation = files / shown["validation_file"] if shown["validation_file"] else None
        self._checks.submit(self._check, job.id, files / shown["training_file"], validation, shown)

    def _check(self, name: str, train: Any, validation: Any, shown: dict[str, Any]) -> None:
        try:
            data_verdict = verdict(
                train, validation, shown["method"]["type"], shown["model"], self.scenario.jobs.check_data
            )
        except Exception as error:  # whatever it was, the job must not wait for ever
            data_verdict = Verdict(code="server_error", message=f"The data could not be checked: {error}")
        self._verdicts[name] = data_verdict

    def _over(self, job: StoredObject) -> bool:
        return job.document["status"] in jobs_store.TERMINAL

    def _walk(self, name: str, now: float) -> None:
        service = self._service
        job = service.store.get("job", name)
        if job is None or self._over(job) or job.document["status"] == "paused":
            self._live.pop(name, None)
            return
        if (pausing := job.extra.get("pausing")) is not None:
            if (now - pausing) * self.scenario.speed >= 0.2:
                jobs_store.change(service, name, status="paused")
                jobs_store.add_event(service, name, "The job is paused")
            return
        while not self._over(job):
            state, seconds = job.extra["walk"][job.extra["place"]]
            if job.document["status"] != state and job.document["status"] == "queued":
                job = jobs_store.change(service, name, status=state)  # resumed
            elapsed = (now - job.extra["since"]) * self.scenario.speed
            if state in _CHECKED and (job := self._validated(job)) is not None and self._over(job):
                return
            if job is None:
                return
            if state == "running":
                job = self._train(job, 1.0 if elapsed >= seconds else elapsed / seconds)
            if elapsed < seconds:
                self._live[name] = self._due(job, state, seconds)
                return
            due = job.extra["since"] + seconds / self.scenario.speed
            late = job.extra.get("checked", due) if state == "validating_files" else due  # the check may take longer
            job = self._enter(job, max(due, late))

    def _due(self, job: StoredObject, state: str, seconds: float) -> float:
        """When there is something to do: the next step to tell, or the state's end."""
        share = 1.0
        if state == "running":
            share = min(1.0, (job.extra["told"] + 0.5) / job.extra["steps"])  # `_train` tells a step from its middle on
        return float(job.extra["since"] + share * seconds / self.scenario.speed)

    def _validated(self, job: StoredObject) -> StoredObject | None:
        """The job with its sizes; failed if its data are bad; None while nobody knows."""
        if "examples" in job.extra:
            return job
        data_verdict = self._verdicts.get(job.id)
        if data_verdict is None:
            return None
        if data_verdict.code is not None:
            jobs_store.fail(self._service, job.id, data_verdict.code, data_verdict.message or "", data_verdict.param)
            self._live.pop(job.id, None)
        else:
            extra = {"examples": data_verdict.examples, "tokens": data_verdict.tokens, "checked": self._service.clock()}
            jobs_store.change(self._service, job.id, extra=extra)
        return self._service.store.get("job", job.id)

    def _enter(self, job: StoredObject, since: float) -> StoredObject:
        """The next state of the walk."""
        service, index = self._service, job.extra["place"] + 1
        state = job.extra["walk"][index][0]
        if state == "succeeded":
            job = self._train(job, 1.0)
            extra = {"base64_results": self.scenario.jobs.base64_results}
            epochs = job.extra["numbers"]["n_epochs"]
            jobs_store.succeed(
                service, job, self._figures(job), trained_tokens=job.extra["tokens"] * epochs, extra=extra
            )
        elif state == "failed":
            error = self.scenario.jobs.error or {}
            jobs_store.fail(service, job.id, str(error.get("code")), str(error.get("message")), error.get("param"))
            jobs_store.change(service, job.id, error=self.scenario.jobs.error)
        elif state == "cancelled":
            jobs_store.cancelled(service, job.id)
        else:
            if state == "queued":
                jobs_store.add_event(service, job.id, "Files validated, moving job to queued state")
            if state == "running":
                jobs_store.add_event(service, job.id, "Fine-tuning job started")
            jobs_store.change(service, job.id, extra={"place": index, "since": since}, status=state)
        stored = service.store.get("job", job.id)
        assert stored is not None
        return stored

    def _train(self, job: StoredObject, share: float) -> StoredObject:
        """Tell the steps of a share of the training, each once, and the checkpoints between."""
        service, shown = self._service, job.document
        if "numbers" not in job.extra:
            examples = job.extra.get("examples", 0)
            method = shown["method"]["type"]
            chooses = self.scenario.jobs.chooses.items()
            numbers = settled(shown["method"][method]["hyperparameters"], examples, method, chooses)
            per_epoch = max(1, -(-examples // int(numbers["batch_size"])))
            steps = self.scenario.jobs.steps or min(10_000, per_epoch * int(numbers["n_epochs"]))
            extra = {
                "numbers": numbers,
                "steps": steps,
                "per_epoch": min(per_epoch, steps),
                "tokens": job.extra.get("tokens", 0),
            }
            jobs_store.set_hyperparameters(service, job.id, **numbers)
            jobs_store.change(service, job.id, extra=extra, estimated_finish=self._finish(job))
            job = jobs_store.find_job(service, job.id)
        done = round(share * job.extra["steps"])
        if done <= job.extra["told"]:
            return job
        with service.store.change():
            for at in self._figures(job)[job.extra["told"] : done]:
                if self.scenario.jobs.metrics:
                    text = f"Step {at.step}/{at.total_steps}: {_said(at)}"
                    jobs_store.add_event(service, job.id, text, data=at.event_data())
                epoch_ends = at.step % job.extra["per_epoch"] == 0
                if epoch_ends and at.step > job.extra["steps"] - _CHECKPOINTS * job.extra["per_epoch"]:
                    jobs_store.checkpoint(service, job, at, {})
            return jobs_store.change(service, job.id, extra={"told": done})

    def _figures(self, job: StoredObject) -> list[Figures]:
        validates = job.document["validation_file"] is not None
        return list(
            curve(
                job.document["seed"],
                job.extra["steps"],
                job.extra["per_epoch"],
                validates,
                job.document["method"]["type"],
            )
        )

    def _finish(self, job: StoredObject) -> int:
        left = sum(seconds for _, seconds in job.extra["walk"][job.extra["place"] :]) / self.scenario.speed
        return int(job.extra["since"] + left)


def _said(at: Figures) -> str:
    if at.train_loss is None:
        text = f"train mean reward={at.more['train_mean_reward']:.2f}"
        valid = at.more.get("full_valid_mean_reward")
        return text if valid is None else f"{text}, full validation mean reward={valid:.2f}"
    return f"training loss={at.train_loss:.2f}"
