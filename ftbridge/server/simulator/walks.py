"""How scripted jobs walk through their states. Nothing runs in the background but the check of their data.

    created ──▶ state ─ as long as it lasts ─▶ state ─▶ … ─▶ end        own: {walk, clock, looks, place, since, steps, told, …}

A job has a clock of its own: seconds, by which `advance` takes it over all the states whose time is up before any request is
answered, or looks, of which each `GET` of the job is one. So a restarted simulator goes on where the clock is by then, a
clock that is moved by hand moves jobs at once, and with looks a test sees the same states however slow the machine is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ftbridge.server import jobs_store
from ftbridge.server.jobs_store import Figures
from ftbridge.server.service import Service
from ftbridge.server.simulator.scenario import Scenario
from ftbridge.server.simulator.training import Verdict, curve, settled, verdict
from ftbridge.server.store import StoredObject

_CHECKED = ("validating_files", "running")
"""States that a job does not leave before its data were checked; a walk may have no validation."""
_CHECKPOINTS = 3
"""Checkpoints that are kept: those of the last epochs, as OpenAI keeps them."""
_PAUSING = 0.2
"""Seconds, or part of a look, that a job is `pausing`."""


class Walks:
    """The jobs of a simulator that have not ended."""

    def __init__(self, service: Service, scenario: Callable[[], Scenario]) -> None:
        """`scenario` returns the scenario that is played at the moment."""
        self._service, self._current = service, scenario
        self._verdicts: dict[str, Verdict] = {}
        self._checks = ThreadPoolExecutor(max_workers=1, thread_name_prefix="check")
        self._lock = threading.Lock()
        self._live: dict[str, float] = {}
        """Jobs under way, with the Unix seconds at which there is something to do."""

    @property
    def _scenario(self) -> Scenario:
        return self._current()

    def begin(self, job: StoredObject) -> StoredObject:
        """Write down a new job's walk, and take it up."""
        jobs = self._scenario.jobs
        since = 1 if jobs.clock == "looks" else self._service.clock()  # the first look sees the first state
        extra = {"walk": jobs.states, "clock": jobs.clock, "looks": 0, "place": 0, "since": since, "told": 0}
        job = jobs_store.change(self._service, job.id, extra=extra, status=jobs.states[0][0])
        self.take(job)
        return job

    def take(self, job: StoredObject) -> None:
        """Go on with a job, and check its data if that was not done. By looks, the check is done when this returns."""
        self._live[job.id] = 0.0
        if "examples" in job.extra:
            return
        shown, files = job.document, self._service.files
        validation = files / shown["validation_file"] if shown["validation_file"] else None
        task = self._checks.submit(self._check, job.id, files / shown["training_file"], validation, shown)
        if job.extra.get("clock") == "looks":
            task.result()

    def stop(self) -> None:
        """Nothing is lost: the clock goes on."""
        self._checks.shutdown(wait=True, cancel_futures=True)

    def forget(self) -> None:
        """Let go of every job."""
        with self._lock:
            self._live.clear()
            self._verdicts.clear()

    def advance(self) -> None:
        """Take every job to where its clock says it is. Those for which nothing is due are left alone."""
        now = self._service.clock()
        with self._lock:
            for name in [name for name, due in self._live.items() if due <= now]:
                self._walk(name)

    def looked_at(self, job: StoredObject) -> None:
        """One look further, where looks are the job's clock."""
        if job.extra.get("clock") != "looks" or self._over(job):
            return
        with self._lock:
            jobs_store.change(self._service, job.id, extra={"looks": job.extra["looks"] + 1})
            self._walk(job.id)

    def cancel(self, job: StoredObject) -> None:
        """At once."""
        with self._lock:
            jobs_store.cancelled(self._service, job.id)
            self._live.pop(job.id, None)

    def pause(self, job: StoredObject) -> None:
        """`pausing`, and `paused` a moment later; the time to the next state stands still."""
        with self._lock:
            now = self._time(job)
            spent = now - job.extra["since"]
            jobs_store.change(self._service, job.id, extra={"pausing": now, "spent": spent}, status="pausing")
            self._live[job.id] = 0.0
            jobs_store.add_event(self._service, job.id, "Pausing the job")

    def resume(self, job: StoredObject) -> None:
        """Queued, and then on with what is left of the state it was in."""
        with self._lock:
            since = self._time(job) - job.extra.get("spent", 0)
            jobs_store.change(self._service, job.id, extra={"since": since, "pausing": None}, status="queued")
            jobs_store.add_event(self._service, job.id, "Resuming the job")
            self._live[job.id] = 0.0

    def _check(self, name: str, train: Any, validation: Any, shown: dict[str, Any]) -> None:
        try:
            data_verdict = verdict(
                train, validation, shown["method"]["type"], shown["model"], self._scenario.jobs.check_data
            )
        except Exception as error:  # whatever it was, the job must not wait for ever
            data_verdict = Verdict(code="server_error", message=f"The data could not be checked: {error}")
        self._verdicts[name] = data_verdict

    def _over(self, job: StoredObject) -> bool:
        return job.document["status"] in jobs_store.TERMINAL

    def _time(self, job: StoredObject) -> float:
        """The job's own clock: Unix seconds, or looks so far."""
        return float(job.extra["looks"]) if job.extra.get("clock") == "looks" else self._service.clock()

    def _speed(self, job: StoredObject) -> float:
        return 1.0 if job.extra.get("clock") == "looks" else self._scenario.speed

    def _walk(self, name: str) -> None:
        service = self._service
        job = service.store.get("job", name)
        if job is None or self._over(job) or job.document["status"] == "paused":
            self._live.pop(name, None)
            return
        now, speed = self._time(job), self._speed(job)
        if (pausing := job.extra.get("pausing")) is not None:
            if (now - pausing) * speed >= _PAUSING:
                jobs_store.change(service, name, status="paused")
                jobs_store.add_event(service, name, "The job is paused")
            return
        while not self._over(job):
            state, seconds = job.extra["walk"][job.extra["place"]]
            if job.document["status"] != state and job.document["status"] == "queued":
                job = jobs_store.change(service, name, status=state)  # resumed
            elapsed = (now - job.extra["since"]) * speed
            if state in _CHECKED and (job := self._validated(job)) is not None and self._over(job):
                return
            if job is None:
                return
            if state == "running":
                job = self._train(job, 1.0 if elapsed >= seconds else elapsed / seconds)
            if elapsed < seconds:
                self._live[name] = self._due(job, state, seconds)
                return
            due = job.extra["since"] + seconds / speed
            late = job.extra.get("checked", due) if state == "validating_files" else due  # the check may take longer
            job = self._enter(job, max(due, late))

    def _due(self, job: StoredObject, state: str, seconds: float) -> float:
        """When there is something to do: the next step to tell, or the state's end; with looks, at the next one."""
        if job.extra.get("clock") == "looks":
            return math.inf
        share = 1.0
        if state == "running":
            share = min(1.0, (job.extra["told"] + 0.5) / job.extra["steps"])  # `_train` tells a step from its middle on
        return float(job.extra["since"] + share * seconds / self._scenario.speed)

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
            extra = {"examples": data_verdict.examples, "tokens": data_verdict.tokens, "checked": self._time(job)}
            jobs_store.change(self._service, job.id, extra=extra)
        return self._service.store.get("job", job.id)

    def _enter(self, job: StoredObject, since: float) -> StoredObject:
        """The next state of the walk."""
        service, index = self._service, job.extra["place"] + 1
        state = job.extra["walk"][index][0]
        if state == "succeeded":
            job = self._train(job, 1.0)
            extra = {"base64_results": self._scenario.jobs.base64_results}
            epochs = job.extra["numbers"]["n_epochs"]
            jobs_store.succeed(
                service, job, self._figures(job), trained_tokens=job.extra["tokens"] * epochs, extra=extra
            )
        elif state == "failed":
            error = self._scenario.jobs.error or {}
            jobs_store.fail(service, job.id, str(error.get("code")), str(error.get("message")), error.get("param"))
            jobs_store.change(service, job.id, error=self._scenario.jobs.error)
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
            chooses = self._scenario.jobs.chooses.items()
            numbers = settled(shown["method"][method]["hyperparameters"], examples, method, chooses)
            per_epoch = max(1, -(-examples // int(numbers["batch_size"])))
            steps = self._scenario.jobs.steps or min(10_000, per_epoch * int(numbers["n_epochs"]))
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
                if self._scenario.jobs.metrics:
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

    def _finish(self, job: StoredObject) -> int | None:
        """When the job is expected to end; nobody knows how often it will be looked at."""
        if job.extra.get("clock") == "looks":
            return None
        left = sum(seconds for _, seconds in job.extra["walk"][job.extra["place"] :]) / self._scenario.speed
        return int(job.extra["since"] + left)


def _said(at: Figures) -> str:
    if at.train_loss is None:
        text = f"train mean reward={at.more['train_mean_reward']:.2f}"
        valid = at.more.get("full_valid_mean_reward")
        return text if valid is None else f"{text}, full validation mean reward={valid:.2f}"
    return f"training loss={at.train_loss:.2f}"
