"""One job as a run of the local provider: prepare, wait for its turn, let a driver work, copy what the run's journal says.

    validating_files ── create_run ──▶ queued ── turn ──▶ running ── driver ──▶ succeeded · failed · cancelled
                                          ▲                   │ pause
                                          └───── resume ──── paused

The run is named by the job, and its driver is a process of its own: a server that is killed finds both again and goes on.
Events carry the numbers of the run's journal in their ids, so none is copied twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftbridge.errors import DataError, FtbridgeError
from ftbridge.providers.local.method_notes import GROUP
from ftbridge.providers.local.process.job import Job as LocalJob
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runner import control
from ftbridge.runner.follow import looks
from ftbridge.runner.start import create_run
from ftbridge.runner.summary import lowering_of
from ftbridge.runs import store as runs
from ftbridge.runs.journal import Event
from ftbridge.runs.metrics import metrics_of
from ftbridge.runs.run import Run
from ftbridge.server import jobs_store
from ftbridge.server.http.errors import without_paths
from ftbridge.server.jobs_store import Figures
from ftbridge.server.local.spec import spec_of
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject
from ftbridge.spec import SpecFile

POLL_SECONDS = 0.25
END_SECONDS = 60
"""How long the processes of a cancelled job may take to end by themselves."""
FRUITLESS = 3
"""Drivers that die one after the other without a word before the job counts as failed."""


log = logging.getLogger("ftbridge.server")


class Turns:
    """Whose turn it is: jobs are prepared one after the other, so that they train in the order in which they were created."""

    def __init__(self, at_once: int) -> None:
        self.preparing = asyncio.Lock()
        self.training = asyncio.Semaphore(at_once)


async def work(service: Service, name: str, model: str, settings: Mapping[str, Any], turns: Turns, home: Path) -> None:
    """Take a job from wherever it stands to its end, or to a pause. Never raises but when it is cancelled."""
    try:
        async with turns.preparing:
            run = await _prepared(service, name, model, settings, home)
        if run is None:
            return
        async with turns.training:
            await _follow(service, name, run)
    except FtbridgeError as error:
        jobs_store.fail(service, name, "server_error", shown_to_clients(service, name, str(error)))
    except asyncio.CancelledError:
        raise
    except Exception as error:
        jobs_store.fail(
            service, name, "server_error", f"The server made a mistake ({type(error).__name__}); its log says which."
        )
        raise


async def _prepared(service: Service, name: str, model: str, settings: Mapping[str, Any], home: Path) -> Run | None:
    """The job's run, made now or before; None when its data are bad and the job has failed."""
    job = _job(service, name)
    run = find_run(home, job)
    if run is None:
        try:
            spec = spec_of(job, model, service.files, settings)
            run = await asyncio.to_thread(create_run, SpecFile.of(spec), "local", home=home)
        except DataError as error:
            param = "validation_file" if error.split == "validation" else "training_file"
            code = "invalid_n_examples" if error.too_few else "invalid_file_format"
            jobs_store.fail(service, name, code, shown_to_clients(service, name, error.message), param)
            return None
        except FtbridgeError as error:
            jobs_store.fail(service, name, "invalid_job", shown_to_clients(service, name, str(error)))
            return None
    job = _job(service, name)
    if job.document["status"] in jobs_store.TERMINAL:  # cancelled while its data were looked at
        await asyncio.to_thread(end_run, run)
        return None
    if "run" not in job.extra:
        spec_now = run.resolved_spec().hyperparameters
        numbers = {
            key: getattr(spec_now, key)
            for key in ("n_epochs", "batch_size", "learning_rate_multiplier")
            if getattr(spec_now, key) != "auto"
        }
        lowering = lowering_of(run)
        if lowering is not None:
            numbers |= _settled_of_method(run, LocalRequest.of(lowering.request))
        with service.store.change():
            jobs_store.set_hyperparameters(service, name, **numbers)
            jobs_store.change(service, name, extra={"run": run.id}, status="queued")
            jobs_store.add_event(service, name, "Files validated, moving job to queued state")
    return run


def _settled_of_method(run: Run, request: LocalRequest) -> dict[str, int | float]:
    """The numbers in the place of a method's own hyperparameters."""
    if request.dpo is not None:
        return {"beta": request.dpo.beta}
    if (rollouts := request.reinforcement) is None:
        return {}
    data = run.state().data
    assert data is not None
    steps = math.ceil(data.splits["train"].examples / request.batch_size) * request.n_epochs
    interval = rollouts.eval_interval
    return {
        "compute_multiplier": rollouts.group_size / GROUP,
        "eval_interval": max(1, steps // 10) if interval == "auto" else interval,
        "eval_samples": rollouts.eval_samples,
    }


def find_run(home: Path, job: StoredObject) -> Run | None:
    """The job's run: the one in the books, or one that was made just before a crash and is whole."""
    if "run" in job.extra:
        return Run.open(home / "runs" / job.extra["run"])
    for run in runs.runs(home):
        if run.state().name == job.id and run.state().data is not None and lowering_of(run) is not None:
            return run
    return None


async def _follow(service: Service, name: str, run: Run) -> None:
    """Keep a driver at the run, and the books up to date, until the job ends or is paused."""
    driver: subprocess.Popen[bytes] | None = None
    fruitless = 0
    job = _job(service, name)
    if run.state().state == "paused" and job.document["status"] not in ("pausing", *jobs_store.TERMINAL):
        await asyncio.to_thread(control.reopen, run)  # paused by an earlier stop of the server, or resumed by a client
    for look in looks(run, _seen(service, name)):
        _copy(service, job, look.events)
        state, at_work = look.state, look.is_driven or _running(driver)
        if jobs_store.is_over(service, name) or state.cancel_requested:
            await asyncio.to_thread(end_run, run, driver)
            jobs_store.cancelled(service, name)
            return
        if state.state == "succeeded":
            await asyncio.to_thread(_succeed, service, job, run)
            return
        if state.state == "failed" and not at_work:
            _fail(service, name, run)
            return
        if state.state == "paused" and (state.pause_requested or state.error is not None) and not at_work:
            with service.store.change():
                jobs_store.change(service, name, status="paused")
                if state.error is not None:  # by itself: a judge is away, or the budget is used up
                    why = shown_to_clients(service, name, str(state.error.get("message")), run)
                    jobs_store.add_event(service, name, why, level="error")
                jobs_store.add_event(service, name, "The job is paused")
            return
        if not at_work:
            fruitless = 0 if look.events else fruitless + 1
            if fruitless > FRUITLESS:
                log.error("the driver of %s ended unexpectedly several times: %s/driver.log", name, run.path)
                jobs_store.fail(
                    service,
                    name,
                    "server_error",
                    "The process that drives this job's run ended unexpectedly several times.",
                )
                return
            driver = await asyncio.to_thread(control.start_driver, run)
        await asyncio.sleep(POLL_SECONDS)


def end_run(run: Run, driver: subprocess.Popen[bytes] | None = None) -> None:
    """Cancel a run and see every process of it end: the driver, also one that is only starting, and the worker.

    They are asked through the journal first. What has not ended after `END_SECONDS` is killed.
    """
    with contextlib.suppress(FtbridgeError):
        if run.state().state not in jobs_store.TERMINAL:
            control.cancel(run)
    give_up = time.monotonic() + END_SECONDS
    while (_running(driver) or run.is_driven() or LocalJob(run.path).alive()) and time.monotonic() < give_up:
        time.sleep(0.1)
    if driver is not None and _running(driver):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    if LocalJob(run.path).alive():
        _kill_worker(run)
    with contextlib.suppress(FtbridgeError):  # a driver that was killed has not said that it ended
        if run.state().state not in jobs_store.TERMINAL:
            control.cancel(run)


def _running(driver: subprocess.Popen[bytes] | None) -> bool:
    return driver is not None and driver.poll() is None


def _kill_worker(run: Run) -> None:
    """Kill the processes whose command line is that of this run's worker."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"ftbridge.providers.local.process.worker" in words and str(run.path).encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)


def _fail(service: Service, name: str, run: Run) -> None:
    error = run.state().error or {}
    text = " ".join(part for part in (error.get("message"), error.get("hint")) if part)
    code = "server_error" if error.get("kind") != "data_error" else "invalid_training_file"
    jobs_store.fail(service, name, code, shown_to_clients(service, name, text or "The run failed.", run))


def shown_to_clients(service: Service, name: str, text: str, run: Run | None = None) -> str:
    """An error's text without this machine's paths: files by their ids, and nothing of where they lie."""
    job = jobs_store.find_job(service, name)
    for file in (job.document["training_file"], job.document["validation_file"]):
        if file:
            text = re.sub(re.escape(str(service.files / file)) + r":(\d+)[:,]? ?", rf"{file}, line \1: ", text)
            text = text.replace(str(service.files / file), file)
    for folder, word in ((run.path if run else None, job.id), (service.folder, "the server's folder")):
        if folder is not None:
            text = text.replace(str(folder), word)
    return without_paths(text)


def _seen(service: Service, name: str) -> int:
    return int(_job(service, name).extra.get("seen", 0))


def _copy(service: Service, job: StoredObject, fresh: Sequence[Event]) -> None:
    """Tell the job's followers what the run's journal has new, and note how far that is."""
    if not fresh:
        return
    short = job.id.removeprefix("ftjob-")
    with service.store.change():
        for event in fresh:
            event_id = f"ftevent-{short}-{event.seq:06d}"
            if event.type == "submitted":
                jobs_store.add_event(service, job.id, "Fine-tuning job started", id=event_id, at=event.time)
            if event.type in ("submitted", "status") and _status(service, job) in ("queued", "running"):
                running = event.type == "submitted" or event.data.get("state") == "running"
                jobs_store.change(service, job.id, status="running" if running else "queued")
            if event.type == "job_event" and event.data.get("type") != "checkpoint":  # told when the job is done
                _tell(service, job, event, event_id)
        jobs_store.change(service, job.id, extra={"seen": fresh[-1].seq})


def _status(service: Service, job: StoredObject) -> str:
    return str(_job(service, job.id).document["status"])


def _tell(service: Service, job: StoredObject, event: Event, event_id: str) -> None:
    data = event.data
    figures = figures_of(event)
    if figures is None:
        message = shown_to_clients(service, job.id, data["message"])
        jobs_store.add_event(service, job.id, message, level=data.get("level", "info"), id=event_id, at=event.time)
        return
    jobs_store.add_event(service, job.id, _in_words(figures), data=figures.event_data(), id=event_id, at=event.time)
    left = data["metrics"].get("seconds_left")
    if left is not None:
        jobs_store.change(service, job.id, estimated_finish=int(event.time + left))


def _in_words(figures: Figures) -> str:
    """A step as OpenAI's events say it."""
    begin = f"Step {figures.step}/{figures.total_steps}:"
    if (reward := figures.more.get("train_mean_reward")) is not None:
        text = f"{begin} train mean reward={reward:.2f}"
        if (held_out := figures.more.get("full_valid_mean_reward")) is not None:
            parse_error = figures.more.get("full_valid_mean_parse_error", 0.0)
            text += f", full validation mean reward={held_out:.2f}, full validation mean parse error={parse_error:.2f}"
        return text
    text = f"{begin} training loss={figures.train_loss or 0:.2f}"
    return text if figures.valid_loss is None else f"{text}, validation loss={figures.valid_loss:.2f}"


def figures_of(event: Event) -> Figures | None:
    """The figures of a job's event, if it carries any."""
    if (at := metrics_of(event)) is None:
        return None
    return Figures(
        step=at.step,
        total_steps=at.total_steps,
        train_loss=at.train_loss,
        train_accuracy=at.train_mean_token_accuracy,
        valid_loss=at.valid_loss,
        valid_accuracy=at.valid_mean_token_accuracy,
        more=at.more,
    )


def _succeed(service: Service, job: StoredObject, run: Run) -> None:
    """Offer what the run made: the model, and the checkpoints that are still there."""
    state = run.state()
    figures = {point.step: point for event in run.journal.read() if (point := figures_of(event)) is not None}
    lowering = lowering_of(run)
    assert lowering is not None
    assert state.tuned is not None
    assert state.data is not None
    request = LocalRequest.of(lowering.request)
    stored = request.model_dump(mode="json")
    kind = "adapter" if request.tuning == "lora" else "weights"
    best = _best_rewarded(figures)
    for path in sorted(run.checkpoints.glob("step-*")):
        step = int(path.name.removeprefix("step-"))
        offered = step in (figures if best is None else best)
        if (path / "COMPLETE.json").exists() and offered and kind == "adapter":
            jobs_store.checkpoint(service, job, figures[step], {"adapter": str(path), "request": stored})
    epochs = run.resolved_spec().hyperparameters.n_epochs
    assert isinstance(epochs, int)
    tokens = state.data.splits["train"].tokens * epochs
    extra = {kind: state.tuned.id, "request": stored}
    jobs_store.succeed(service, job, [figures[step] for step in sorted(figures)], trained_tokens=tokens, extra=extra)


def _best_rewarded(figures: Mapping[int, Figures]) -> list[int] | None:
    """The three steps with the highest validation reward, as OpenAI offers them; None where none was measured."""
    measured = {step: one.more[_HELD_OUT] for step, one in figures.items() if _HELD_OUT in one.more}
    return sorted(measured, key=lambda step: (-measured[step], step))[:3] if measured else None


_HELD_OUT = "full_valid_mean_reward"


def _job(service: Service, name: str) -> StoredObject:
    return jobs_store.find_job(service, name)
