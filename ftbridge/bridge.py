"""The life of a run, stage by stage, resumable at every one.

    prepare ─▶ lower ─▶ preflight ─▶ answer before ─▶ gates ─▶ submit ─▶ follow ─▶ answer after ─▶ judge ─▶ succeeded
       │         │        plan.json    base, few_shot            │         │         tuned
       └─────────┴── files of the run folder                     │         └── pause, cancel, Ctrl-C, budget
                                                                 └── the token is journalled first: a crash pays once

Every stage begins by asking the journal whether it is done. So `drive` is the whole program: for a new run, for one that
was interrupted, and for one whose machine lost power.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftbridge import providers
from ftbridge.errors import (
    CannotPause,
    DataError,
    FtbridgeError,
    GateNotMet,
    Interrupted,
    UsageError,
    document,
    from_document,
)
from ftbridge.evaluation.evaluate import Evaluation
from ftbridge.gates import hold_plan, keep_plan, pass_target
from ftbridge.providers.base import JobEvent, JobHandle, JobStatus, Provider, Submission, TunedModel
from ftbridge.run_evaluation import RunEvaluation
from ftbridge.runs.run import TERMINAL, Run, RunState
from ftbridge.spending import Budget, budget_of, changed_budget
from ftbridge.view import lowering_of, read_evaluation
from ftbridge.watching import Silent as Silent
from ftbridge.watching import Watcher as Watcher

POLL_SECONDS = 0.5


Go = Callable[["Run", Watcher], "Evaluation | None"]
"""What the command line calls to take a run further: `drive`, `resume` or `watch`."""


def drive(run: Run, watcher: Watcher | None = None) -> Evaluation | None:
    """Take a run from wherever it stands to its end; returns the evaluation, if it has a test split.

    Only one process drives a run (`RunBusy`). Raises the run's own error when it fails, `Interrupted` on Ctrl-C and on a
    pause asked elsewhere, `GateNotMet` when a budget is used up.
    """
    watcher = watcher or Silent()
    with run.drive():
        life = _Life(run, watcher)
        try:
            return life.live()
        except KeyboardInterrupt:
            told = life.interrupted()
            raise Interrupted(f"interrupted; {told}.", hint=f"Go on with: ftbridge resume {run.id}") from None
        except (Interrupted, GateNotMet):
            raise
        except FtbridgeError as error:
            if run.state().state not in TERMINAL:
                run.append("failed", error=document(error))
            raise


def resume(run: Run, watcher: Watcher | None = None) -> Evaluation | None:
    """Go on with a run that was paused, interrupted, cancelled, or failed. A succeeded run is returned as it is."""
    state = run.state()
    if state.state == "succeeded":
        return read_evaluation(run)
    with run.drive():
        if state.state in TERMINAL | {"paused", "pausing"} or state.pause_requested or state.cancel_requested:
            run.append("resume_requested")
    return drive(run, watcher)


def change_budget(run: Run, overrides: Sequence[str]) -> None:
    """Journal another budget for a run, whoever drives it. Raises `UsageError` for anything but `budget.…`."""
    run.append("budget_changed", budget=changed_budget(run, overrides).model_dump(mode="json"))


def waive_target(run: Run) -> None:
    """Journal that a run trains although a baseline meets `evaluation.target`."""
    run.append("gate_waived", gate="target")


def cancel(run: Run) -> None:
    """Ask for the run to end for good, from any process. A run that nobody drives ends here."""
    _ask(run, "cancel")


def pause(run: Run) -> None:
    """Ask for the run to save its state and stop, from any process."""
    _ask(run, "pause")


def detach(run: Run) -> int:
    """Drive the run in a process of its own that outlives this one; returns its process id."""
    log = run.path / "driver.log"
    with log.open("ab") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "ftbridge", "resume", str(run.path), "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    deadline = time.monotonic() + 30
    while not run.is_driven() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return child.pid


def watch(run: Run, watcher: Watcher | None = None) -> Evaluation | None:
    """Follow a run to its end from another process. One that nobody drives, but whose job lives, is driven from here.

    Raises the run's error if it ends badly. Ctrl-C stops watching; the run goes on.
    """
    watcher = watcher or Silent()
    seen = 0
    stage = ""
    while True:
        events = run.journal.read()
        for event in events:
            if event.seq > seen and event.type == "job_event":
                watcher.job_event(JobEvent.model_validate(event.data))
        seen = events[-1].seq
        state = run.state()
        if state.stage != stage:
            stage = state.stage
            watcher.stage(run, stage)
        if state.state == "succeeded":
            return read_evaluation(run)
        if state.state in TERMINAL | {"paused"}:
            _raise_end(run, state)
        if not run.is_driven() and run.state().state == state.state:
            if state.handle is None or not _goes_on(providers.load(state.provider), _handle(run, state.handle)):
                raise Interrupted(f"nobody is driving {run.id}.", hint=f"Go on with: ftbridge resume {run.id}")
            return drive(run, watcher)
        time.sleep(POLL_SECONDS)


def _goes_on(backend: Provider, handle: JobHandle) -> bool:
    """Whether there is something to follow: a job that lives, or one that a service finished while nobody looked."""
    state = backend.poll(handle).state
    return state not in TERMINAL or (state == "succeeded" and backend.on_interrupt == "detach")


def settled(run: Run, seconds: float = 20) -> str:
    """The run's state once it has stopped, or what it is after `seconds`."""
    deadline = time.monotonic() + seconds
    while run.state().state not in TERMINAL | {"paused"} and time.monotonic() < deadline:
        time.sleep(0.1)
    return run.state().state


def _raise_end(run: Run, state: RunState) -> None:
    if state.state == "failed":
        raise from_document(state.error or {})
    raise Interrupted(f"{run.id} is {state.state}.", hint=f"Go on with: ftbridge resume {run.id}")


def _ask(run: Run, request: str) -> None:
    state = run.state()
    if state.state in TERMINAL:
        raise UsageError(f"{run.id} is {state.state} already.")
    run.append(f"{request}_requested")
    backend = providers.load(state.provider)
    if run.is_driven():
        if state.handle is not None:
            getattr(backend, request)(_handle(run, state.handle))
        return
    with run.drive():
        if state.token is not None:
            life = _Life(run, Silent())
            if (handle := life.submitted_handle()) is not None:
                getattr(backend, request)(handle)
                life.settle(handle, request)
        run.append("cancelled" if request == "cancel" else "paused")


def _handle(run: Run, told: Mapping[str, Any]) -> JobHandle:
    """A journalled handle, with the run's folder where it is now."""
    return JobHandle(**{**told, "folder": run.path})


class _Life:
    """One driver's hold on a run: the stages, and what they share."""

    def __init__(self, run: Run, watcher: Watcher) -> None:
        self.run, self.watcher = run, watcher
        self.budget = Budget(run)
        self.trained_tokens: int | None = None
        self.backend: Provider = providers.load(run.state().provider)
        lowering = lowering_of(run)
        if lowering is None or run.state().data is None:
            raise UsageError(f"{run.id} was stopped before its data was prepared; start it again with `ftbridge run`.")
        self.lowering = lowering
        self.spec = run.resolved_spec()
        self.evaluation = RunEvaluation(run, self.spec, watcher, self.heed_requests)

    @property
    def state(self) -> RunState:
        return self.run.state()

    def live(self) -> Evaluation | None:
        """The stages in order. Each is skipped when the journal says it is done."""
        if self.state.state == "succeeded":
            return read_evaluation(self.run)
        if self.state.tuned is None:
            if self.state.handle is None:
                self.preflight()
                self.answer_with(None)
                if self.state.token is None:
                    self.pass_gates()
            handle = self.submit()
            self.follow(handle)
            tuned = self.backend.result(handle)
            self.run.append("result", model=tuned.model_dump(mode="json"), trained_tokens=self.trained_tokens)
        tuned = TunedModel(**(self.state.tuned or {}))
        self.answer_with(None)
        self.answer_with(tuned)
        self.hold_budget(now=True)
        evaluation = self.evaluation.judge()
        self.run.append("succeeded")
        return evaluation

    def preflight(self) -> None:
        """Everything that can be found wrong before time or money is spent."""
        self.watcher.stage(self.run, "checking model and data")
        self.backend.preflight(self.submission(self.state.token or "preflight"), self.watcher.note)
        keep_plan(self.run, self.watcher.note)
        hold_plan(self.run)

    def pass_gates(self) -> None:
        """Stop, before anything is trained, when it is not needed, or costs more than it may."""
        pass_target(self.run, self.spec, self.evaluation.before(), self.watcher.note)
        hold_plan(self.run)

    def submission(self, token: str) -> Submission:
        validation = self.run.data / "validation.jsonl"
        request = self.lowering.request
        if "max_usd" in request:  # a budget that was changed holds for the provider's own check too
            request = {**request, "max_usd": budget_of(self.run).max_usd}
        return Submission(
            token=token,
            folder=self.run.path,
            request=request,
            train=self.run.data / "train.jsonl",
            validation=validation if validation.exists() else None,
        )

    def submit(self) -> JobHandle:
        """Write the intent and its token first; then submit, which for a known token never makes a second job."""
        if self.state.handle is not None:
            handle = _handle(self.run, self.state.handle)
            status = self.backend.poll(handle)
            if status.state in ("paused", "failed", "cancelled"):
                self.watcher.note(f"the job is {status.state}; resuming it")
                resumed = self.backend.resume(handle)
                if resumed != handle:
                    self.watcher.note(f"submitted again as {resumed.id}")
                    self.run.append("submitted", handle=resumed.model_dump(mode="json"))
                handle = resumed
            return handle
        token = self.state.token or f"{self.run.id}-{secrets.token_hex(8)}"
        if self.state.token is None:
            self.run.append("submit_intended", token=token)
        self.watcher.stage(self.run, "training")
        handle = self.backend.submit(self.submission(token))
        self.run.append("submitted", handle=handle.model_dump(mode="json"))
        return handle

    def submitted_handle(self) -> JobHandle | None:
        """The job, if there is one: also one whose submission was cut short before its handle was journalled."""
        state = self.state
        if state.handle is not None:
            return _handle(self.run, state.handle)
        find = getattr(self.backend, "find", None)
        if state.token is None or find is None:
            return None
        found: JobHandle | None = find(self.submission(state.token))
        if found is not None:
            self.run.append("submitted", handle=found.model_dump(mode="json"))
        return found

    def follow(self, handle: JobHandle) -> None:
        """Copy the job's events into the journal until it ends. Raises unless it succeeded."""
        told, expected = "", None
        asked = False
        while True:
            if self.state.cancel_requested and not asked:
                self.backend.cancel(handle)
                asked = True
            status = self.backend.poll(handle)
            self.copy_events(handle)
            if status.state != told:
                told = status.state
                if status.state not in TERMINAL:
                    self.run.append("status", state=status.state)
            if status.estimated_finish is not None and expected is None:
                expected = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.estimated_finish))
                self.watcher.note(f"the service expects to be done at {expected}")
            if status.state == "succeeded":
                self.trained_tokens = status.trained_tokens
                return
            self.stop_on(status)
            if not asked:
                self.hold_budget(handle)
            time.sleep(POLL_SECONDS)

    def hold_budget(self, handle: JobHandle | None = None, *, now: bool = False) -> None:
        """Raise `GateNotMet` when the budget is used up; a job at work is paused first, or cancelled where none can pause.

        The budget is looked at once in a while, or `now`.
        """
        if (used := self.budget.used_up(training=handle is not None, now=now)) is None:
            return
        became, event = "paused", "paused"
        if handle is not None:
            try:
                self.backend.pause(handle)
                self.settle(handle, "pause")
                became = "paused at a checkpoint"
            except CannotPause:
                self.backend.cancel(handle)
                self.settle(handle, "cancel")
                became, event = "cancelled, since this service cannot pause a job", "cancelled"
        self.run.append(event)
        raise GateNotMet(
            f"{used}; {self.run.id} is {became}.",
            hint=f"What was done is kept. With a larger budget: ftbridge resume {self.run.id} --set budget.KEY=VALUE",
        )

    def stop_on(self, status: JobStatus) -> None:
        """Turn a job that stopped into the run's event and error."""
        if status.state == "failed":
            told = (
                status.error.model_dump()
                if status.error
                else {"kind": "training_failed", "message": None, "hint": None}
            )
            error = from_document(told)
            if not isinstance(error, DataError):  # the run keeps its data: mended data are a new run
                error.hint = " ".join(part for part in (error.hint, f"Then: ftbridge resume {self.run.id}") if part)
            raise error
        if status.state == "cancelled":
            self.run.append("cancelled")
            raise Interrupted(
                f"{self.run.id} was cancelled.", hint=f"To go on after all: ftbridge resume {self.run.id}"
            )
        if status.state == "paused":
            self.run.append("paused")
            raise Interrupted(f"{self.run.id} is paused.", hint=f"Go on with: ftbridge resume {self.run.id}")

    def copy_events(self, handle: JobHandle) -> None:
        for event in self.backend.events(handle, self.state.cursor):
            told = event.model_dump(mode="json", exclude_none=True)
            self.run.append("job_event", sync=event.type != "metrics", **told)
            self.watcher.job_event(event)

    def settle(self, handle: JobHandle, request: str, seconds: float = 120) -> None:
        """Wait until a pause or cancel took effect, copying what the job still says."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.backend.poll(handle)
            self.copy_events(handle)
            if status.state in TERMINAL | {"paused"}:
                return
            time.sleep(0.1)
        raise UsageError(f"{self.run.id}: the job did not {request} within {seconds:.0f} s; try again.")

    def interrupted(self) -> str:
        """Ctrl-C: a local job saves a checkpoint and stops; a paid one goes on without us. Returns what became of it."""
        self.run.append("interrupted")
        kept = f"{self.run.id} is kept as it stands"
        if self.state.handle is None or self.state.tuned is not None:
            return kept
        handle = _handle(self.run, self.state.handle)
        if self.backend.on_interrupt == "detach":
            return f"the job {handle.id} goes on at the service, and {kept}"
        if self.backend.poll(handle).state in TERMINAL:
            return kept
        self.watcher.note("stopping at a checkpoint (Ctrl-C again leaves at once)")
        try:
            self.backend.pause(handle)
            self.settle(handle, "pause")
            self.run.append("paused")
        except KeyboardInterrupt:
            pass
        return kept

    def answer_with(self, model: TunedModel | None) -> None:
        """Let everybody on the base model, or on the tuned one, answer what they have not answered yet."""
        self.evaluation.answer(
            lambda: self.backend.sampler(self.lowering, model, self.run.path), tuned=model is not None
        )

    def heed_requests(self) -> None:
        """Between two answers: stop when somebody asked to, or when the budget is used up."""
        self.hold_budget()
        if self.state.cancel_requested:
            self.stop_on(JobStatus(state="cancelled"))
        if self.state.pause_requested:
            self.stop_on(JobStatus(state="paused"))
