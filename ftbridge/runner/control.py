"""What other processes ask of a run: go on, retry, pause, cancel, watch, detach.

A request is an event of the run's journal (resume_requested, retry_requested, pause_requested, cancel_requested,
budget_changed, gate_waived). The driver of the run, if there is one, acts on it at its next look; otherwise it takes effect
here.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence

from ftbridge import providers
from ftbridge.errors import FtbridgeError, InDoubt, Interrupted, UsageError, from_document
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.spending import changed_budget
from ftbridge.providers.base import JobEvent, JobHandle, Provider
from ftbridge.runner.drive import POLL_SECONDS, drive
from ftbridge.runner.fallback import last_of
from ftbridge.runner.follow import FollowedJob, Request, looks
from ftbridge.runner.gates import EXACTLY_ONCE
from ftbridge.runner.job import RunJob, new_token
from ftbridge.runner.observer import NullObserver, Observer
from ftbridge.runner.summary import read_evaluation
from ftbridge.runs.run import TERMINAL, Run, RunState


def resume(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Go on with a run that was paused, interrupted, cancelled, or failed. A succeeded run is returned as it is.

    Never pays for another job: one that failed or was cancelled at a service stays so, and that is said (`retry` pays again).
    """
    run = last_of(run)
    state = run.state()
    if state.state == "succeeded":
        return read_evaluation(run)
    with run.drive():
        stopped = state.state in TERMINAL | {"paused", "pausing"} or state.error is not None
        if stopped or state.pause_requested or state.cancel_requested:
            run.append("resume_requested")
    return drive(run, watcher)


def retry(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Pay for another job where a run's job failed or was cancelled, or where it is in doubt whether one was made; then go on.

    A job that goes on, or succeeded, is gone on with: nothing is paid twice. Raises what `resume` raises.
    """
    run = last_of(run)
    with run.drive():
        state = run.state()
        backend = providers.load(state.provider)
        if state.state != "succeeded" and state.handle is not None:
            if backend.poll(state.handle).state in ("failed", "cancelled"):
                run.append("retry_requested", job=state.handle.id)
        elif state.token is not None:
            backend.forget(RunJob(run, watcher or NullObserver()).submission(state.token))
    return resume(run, watcher)


def adopt(run: Run, job: str) -> JobHandle:
    """Take a job of the account as the run's own, where it is in doubt whether its creation succeeded.

    Raises `UsageError` for a run that has a job, for a job that another run has, and for a provider without an account.
    """
    with run.drive():
        state = run.state()
        if state.handle is not None:
            raise UsageError(f"{run.id} has its job already: {state.handle.id}.")
        run_job = RunJob(run, NullObserver())
        token = state.token or new_token(run)
        if state.token is None:
            run.append("submit_intended", token=token)
        handle = run_job.backend.adopt(run_job.submission(token), job)
        run.append("submitted", handle=handle.model_dump(mode="json"))
    return handle


def drive_on(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Drive a run as its journal says it stands, for a process that another one started.

    A run that was cancelled or paused since then stays so: only `resume` takes such a word back. Raises what `drive` does.
    """
    run = last_of(run)
    state = run.state()
    if state.state == "succeeded":
        return read_evaluation(run)
    if state.state in TERMINAL | {"paused"}:
        raise _stopped(run, state)
    return drive(run, watcher)


def change_budget(run: Run, overrides: Sequence[str]) -> None:
    """Journal another budget for a run, whoever drives it. Raises `UsageError` for anything but `budget.…`."""
    run.append("budget_changed", budget=changed_budget(run, overrides).model_dump(mode="json"))


def waive_target(run: Run) -> None:
    """Journal that a run trains although a baseline meets `evaluation.target`."""
    run.append("gate_waived", gate="target")


def accept_doubt(run: Run) -> None:
    """Journal that a run creates its job at a service where "exactly once" cannot be promised."""
    run.append("gate_waived", gate=EXACTLY_ONCE)


def cancel(run: Run) -> None:
    """Ask for the run and its job to end, from any process. A run that nobody drives ends here.

    A cancelled run goes on only when somebody resumes it; a job that was cancelled at a service stays so (`retry` pays again).
    Raises `InDoubt` while it is not known whether there is a job, and the service's error where it refuses: then the job goes
    on, and so does the run.
    """
    _ask(run, "cancel")


def pause(run: Run) -> None:
    """Ask for the run to save its state and stop, from any process. Raises as `cancel` does."""
    _ask(run, "pause")


def detach(run: Run) -> int:
    """Drive the run in a process of its own that outlives this one; returns its process id."""
    reopen(run)
    child = start_driver(run)
    deadline = time.monotonic() + 30
    while not run.is_driven() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return child.pid


def reopen(run: Run) -> bool:
    """Let a run that failed or is paused go on; whether it may be driven now. A cancelled one stays cancelled."""
    state = run.state()
    if state.state in ("failed", "paused", "pausing") or state.pause_requested:
        with run.drive():
            if not run.state().cancel_requested:
                run.append("resume_requested")
    state = run.state()
    return state.state not in TERMINAL and not state.cancel_requested


def start_driver(run: Run) -> subprocess.Popen[bytes]:
    """Start a process, in a session of its own, that drives the run as its journal stands when the process gets to it.

    The intent to go on is journalled here (`reopen`), never by that process: it takes seconds to start, and a cancel
    that comes meanwhile has the last word.
    """
    with (run.path / "driver.log").open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "ftbridge", "resume", str(run.path), "--quiet", "--as-it-stands"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def watch(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Follow a run to its end from another process. One that nobody drives, but whose job lives, is driven from here.

    A run that falls back is followed into the run that continues it. Raises the run's error if it ends badly. Ctrl-C stops
    watching; the run goes on.
    """
    watcher = watcher or NullObserver()
    run = last_of(run)
    stage = ""
    following = looks(run)
    while True:
        look = next(following)
        state = look.state
        for event in look.events:
            if event.type == "job_event":
                watcher.job_event(JobEvent.model_validate(event.data))
        if state.stage != stage:
            stage = state.stage
            watcher.stage(run, stage)
        if state.state == "succeeded":
            return read_evaluation(run)
        if state.continued_by is not None:
            return watch(last_of(run), watcher)
        if not look.is_driven:
            if state.state in TERMINAL | {"paused"}:
                _raise_end(run, state)
            if state.handle is None or not _goes_on(providers.load(state.provider), state.handle):
                raise Interrupted(f"no process is driving {run.id}.", hint=f"Continue with: ftbridge resume {run.id}")
            return drive(run, watcher)
        time.sleep(POLL_SECONDS)


def _goes_on(backend: Provider, handle: JobHandle) -> bool:
    """Whether there is something to follow: a job that lives, or one that a service finished while nobody looked."""
    state = backend.poll(handle).state
    return state not in TERMINAL or (state == "succeeded" and backend.on_interrupt == "detach")


def settled(run: Run, seconds: float = 20) -> str:
    """The run's state once it has stopped or its driver could not do what was asked, or what it is after `seconds`."""
    deadline = time.monotonic() + seconds
    while (state := run.state()).state not in TERMINAL | {"paused"} and time.monotonic() < deadline:
        if state.refused is not None:
            break
        time.sleep(0.1)
    return run.state().state


def _raise_end(run: Run, state: RunState) -> None:
    if state.state == "failed":
        raise from_document(state.error or {})
    raise _stopped(run, state)


def _stopped(run: Run, state: RunState) -> Interrupted:
    """The error of a run that somebody stopped. A job that was cancelled at a service cannot go on: it is made again."""
    hosted_job = state.handle is not None and providers.is_hosted(state.provider, run.spec())
    if state.state == "cancelled" and hosted_job:
        hint = f"Its job is cancelled too. Train again, which is billed again, with: ftbridge retry {run.id}"
    else:
        hint = f"Continue with: ftbridge resume {run.id}"
    return Interrupted(f"{run.id} is {state.state}.", hint=hint)


def _ask(run: Run, request: Request) -> None:
    state = run.state()
    backend = providers.load(state.provider)
    if state.state in TERMINAL and not _has_live_job(run, state, backend):
        raise UsageError(f"{run.id} {'is' if state.state == 'cancelled' else 'has'} {state.state} already.")
    run.append(f"{request}_requested")
    state = run.state()  # again: a driver that submitted meanwhile looked at the requests before this one was there
    if run.is_driven():
        if state.handle is not None:
            FollowedJob(run, backend, state.handle, NullObserver()).ask(request)
        return
    with run.drive():
        if state.token is not None:
            job = RunJob(run, NullObserver())
            if (handle := job.find()) is not None:
                job.followed(handle).ask(request)
                job.followed(handle).settle(request)
            elif (doubt := backend.doubt(job.submission(state.token))) is not None:
                raise InDoubt(
                    f"whether {run.id} is {request}{'d' if request == 'pause' else 'led'} is not known: {doubt}, and "
                    "the service does not show yet whether it created a job.",
                    hint=f"The request is saved. Try again in a few minutes: ftbridge {request} {run.id}",
                )
        if request == "cancel" and (state.token is None or run.state().handle is None):
            with contextlib.suppress(FtbridgeError):  # a run without its data has nothing to discard
                RunJob(run, NullObserver()).discard()
        run.append("cancelled" if request == "cancel" else "paused")


def _has_live_job(run: Run, state: RunState, backend: Provider) -> bool:
    """Whether a run that was given up has a job at a service that goes on; one that cannot be looked at counts."""
    if state.state == "succeeded" or state.handle is None or backend.on_interrupt != "detach":
        return False
    try:
        return backend.poll(state.handle).state not in TERMINAL
    except FtbridgeError:
        return True
