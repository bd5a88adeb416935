"""One job as a run of the local provider: prepare, wait for its turn, let a driver work, copy what the run's journal says.

    validating_files ── draft.start ──▶ queued ── turn ──▶ running ── driver ──▶ succeeded · failed · cancelled
                                          ▲                   │ pause
                                          └───── resume ──── paused

The run is named by the job, and its driver is a process of its own: a server that is killed finds both again and goes on.
Events carry the numbers of the run's journal in their ids, so none is copied twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftbridge import bridge, draft
from ftbridge.errors import DataError, FtbridgeError
from ftbridge.runs import store as runs
from ftbridge.runs.journal import Event
from ftbridge.runs.run import Run
from ftbridge.server import book
from ftbridge.server.book import Figures
from ftbridge.server.local.spec import spec_of
from ftbridge.server.service import Service
from ftbridge.server.store import Kept
from ftbridge.view import lowering_of

POLL_SECONDS = 0.25
FRUITLESS = 3
"""Drivers that die one after the other without a word before the job counts as failed."""


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
            if _job(service, name).document["status"] in book.TERMINAL:
                return
            await _follow(service, name, run)
    except FtbridgeError as error:
        book.fail(service, name, "server_error", str(error))
    except asyncio.CancelledError:
        raise
    except Exception as error:
        book.fail(service, name, "server_error", f"{type(error).__name__}: {error}")
        raise


async def _prepared(service: Service, name: str, model: str, settings: Mapping[str, Any], home: Path) -> Run | None:
    """The job's run, made now or before; None when its data are bad and the job has failed."""
    job = _job(service, name)
    run = find_run(home, job)
    if run is None:
        try:
            spec = spec_of(job, model, service.files, settings)
            run = await asyncio.to_thread(draft.start, draft.Draft.of(spec), "local", home=home)
        except DataError as error:
            param = "validation_file" if "validation data" in error.message else "training_file"
            few = "needs at least" in error.message
            book.fail(service, name, "invalid_n_examples" if few else "invalid_file_format", str(error), param)
            return None
        except FtbridgeError as error:
            book.fail(service, name, "invalid_job", str(error))
            return None
    job = _job(service, name)
    if job.document["status"] in book.TERMINAL:
        return None
    if "run" not in job.own:
        spec_now = run.resolved_spec().hyperparameters
        numbers = {
            key: getattr(spec_now, key)
            for key in ("n_epochs", "batch_size", "learning_rate_multiplier")
            if getattr(spec_now, key) != "auto"
        }
        with service.store.change():
            book.settle(service, name, **numbers)
            book.change(service, name, own={"run": run.id}, status="queued")
            book.say(service, name, "Files validated, moving job to queued state")
    return run


def find_run(home: Path, job: Kept) -> Run | None:
    """The job's run: the one in the books, or one that was made just before a crash and is whole."""
    if "run" in job.own:
        return Run.open(home / "runs" / job.own["run"])
    for run in runs.runs(home):
        if run.state().name == job.id and run.state().data is not None and lowering_of(run) is not None:
            return run
    return None


async def _follow(service: Service, name: str, run: Run) -> None:
    """Keep a driver at the run, and the books up to date, until the job ends or is paused."""
    fruitless = 0
    seen = _seen(service, name)
    job = _job(service, name)
    if run.state().state == "paused" and job.document["status"] != "pausing" and not run.is_driven():
        await asyncio.to_thread(bridge.detach, run)  # paused by an earlier stop of the server, or resumed by a client
    while True:
        events = run.journal.read()
        progress = bool(events) and events[-1].seq > seen
        seen = _copy(service, job, events, seen)
        state = run.state()
        if state.state == "succeeded":
            await asyncio.to_thread(_succeed, service, job, run)
            return
        if state.state == "failed" and run.journal.read()[-1].seq == seen and not run.is_driven():
            error = state.error or {}
            text = " ".join(part for part in (error.get("message"), error.get("hint")) if part)
            code = "server_error" if error.get("kind") != "data_error" else "invalid_training_file"
            book.fail(service, name, code, text or "The run failed.")
            return
        if state.state == "cancelled":
            book.cancelled(service, name)
            return
        if state.state == "paused" and state.pause_requested and not run.is_driven():
            with service.store.change():
                book.change(service, name, status="paused")
                book.say(service, name, "The job is paused")
            return
        if not run.is_driven() and run.state().state == state.state:
            fruitless = 0 if progress else fruitless + 1
            if fruitless > FRUITLESS:
                book.fail(
                    service, name, "server_error", f"The run's driver died again and again: {run.path}/driver.log"
                )
                return
            await asyncio.to_thread(bridge.detach, run)
        await asyncio.sleep(POLL_SECONDS)


def _seen(service: Service, name: str) -> int:
    return int(_job(service, name).own.get("seen", 0))


def _copy(service: Service, job: Kept, events: list[Event], seen: int) -> int:
    """Tell the job's followers what the run's journal has new; returns how far it was told."""
    fresh = [event for event in events if event.seq > seen]
    if not fresh:
        return seen
    short = job.id.removeprefix("ftjob-")
    with service.store.change():
        for event in fresh:
            made = f"ftevent-{short}-{event.seq:06d}"
            if event.type == "submitted":
                book.say(service, job.id, "Fine-tuning job started", id=made, at=event.time)
            if event.type in ("submitted", "status") and _status(service, job) in ("queued", "running"):
                running = event.type == "submitted" or event.data.get("state") == "running"
                book.change(service, job.id, status="running" if running else "queued")
            if event.type == "job_event" and event.data.get("type") != "checkpoint":  # told when the job is done
                _tell(service, job, event, made)
        book.change(service, job.id, own={"seen": fresh[-1].seq})
    return fresh[-1].seq


def _status(service: Service, job: Kept) -> str:
    return str(_job(service, job.id).document["status"])


def _tell(service: Service, job: Kept, event: Event, made: str) -> None:
    told = event.data
    figures = figures_of(event)
    if figures is None:
        book.say(service, job.id, told["message"], level=told.get("level", "info"), id=made, at=event.time)
        return
    text = f"Step {figures.step}/{figures.total_steps}: training loss={figures.train_loss or 0:.2f}"
    if figures.valid_loss is not None:
        text += f", validation loss={figures.valid_loss:.2f}"
    book.say(service, job.id, text, data=figures.event_data(), id=made, at=event.time)
    left = told["metrics"].get("seconds_left")
    if left is not None:
        book.change(service, job.id, estimated_finish=int(event.time + left))


def figures_of(event: Event) -> Figures | None:
    """The figures of a job's event, if it carries any."""
    told = event.data.get("metrics") if event.type == "job_event" else None
    if not told:
        return None
    return Figures(
        step=told["step"],
        total_steps=told.get("total_steps"),
        train_loss=told.get("train_loss"),
        train_accuracy=told.get("train_mean_token_accuracy"),
        valid_loss=told.get("valid_loss"),
        valid_accuracy=told.get("valid_mean_token_accuracy"),
    )


def _succeed(service: Service, job: Kept, run: Run) -> None:
    """Offer what the run made: the model, and the checkpoints that are still there."""
    state = run.state()
    figures = {told.step: told for event in run.journal.read() if (told := figures_of(event)) is not None}
    lowering = lowering_of(run)
    assert lowering is not None
    assert state.tuned is not None
    request = lowering.request
    kind = "adapter" if request["tuning"] == "lora" else "weights"
    for path in sorted(run.checkpoints.glob("step-*")):
        step = int(path.name.removeprefix("step-"))
        if (path / "COMPLETE.json").exists() and step in figures and kind == "adapter":
            book.checkpoint(service, job, figures[step], {"adapter": str(path), "request": request})
    tokens = (state.data or {})["splits"]["train"]["tokens"] * run.resolved_spec().hyperparameters.n_epochs
    own = {kind: state.tuned["id"], "request": request}
    book.succeed(service, job, [figures[step] for step in sorted(figures)], trained_tokens=tokens, own=own)


def _job(service: Service, name: str) -> Kept:
    return book.find_job(service, name)
