"""The life of a run, stage by stage, resumable at every one.

    prepare ─▶ lower ─▶ in doubt? ─▶ preflight ─▶ answer before ─▶ gates ─▶ submit ─▶ follow ─▶ answer after ─▶ judge
       │         │         │           plan.json    base, few_shot            │         │         tuned
       └─────────┴─ files  │                                                  │         └── pause, cancel, Ctrl-C, budget
                           └── a job that may have been made is looked        └── the token is journalled first: a crash
                               for before anything can refuse                     pays once

A service is paid for completions only when its job has succeeded, except where `evaluation.target` asks for the base model's
first: an account that is refused has paid for nothing.

Every stage begins by asking the journal whether it is done. So `drive` is the whole program: for a new run, for one that
was interrupted, and for one whose machine lost power.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ftbridge import providers
from ftbridge.errors import (
    DataError,
    FtbridgeError,
    GateNotMet,
    InDoubt,
    Interrupted,
    JobStuck,
    ModelUnavailable,
    ProviderRefused,
    UsageError,
    document,
    from_document,
)
from ftbridge.evaluation.score import Evaluation
from ftbridge.evaluation.spending import Budget, budget_of, changed_budget
from ftbridge.planning.plan import read_plan
from ftbridge.providers.base import JobEvent, JobHandle, JobStatus, Provider, Submission, TunedModel
from ftbridge.runner.evaluate import RunEvaluation
from ftbridge.runner.gates import EXACTLY_ONCE, enforce_budget, hold_once, save_plan, stop_if_baseline_meets_target
from ftbridge.runner.observer import NullObserver as NullObserver
from ftbridge.runner.observer import Observer as Observer
from ftbridge.runner.summary import lowering_of, read_evaluation
from ftbridge.runs.run import TERMINAL, Run, RunState

POLL_SECONDS = 0.5
BUDGET_PAUSE_SECONDS = 30.0
"""Seconds that a job gets to pause for a budget before it is cancelled: it costs more meanwhile."""
Request = Literal["cancel", "pause"]

Go = Callable[["Run", Observer], "Evaluation | None"]
"""What the command line calls to take a run further: `drive`, `resume` or `watch`."""


def drive(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Take a run from wherever it stands to its end; returns the evaluation, if it has a test split.

    Only one process drives a run (`RunBusy`). Raises the run's own error when it fails, `Interrupted` on Ctrl-C and on a
    pause asked elsewhere, `GateNotMet` when a budget is used up.
    """
    watcher = watcher or NullObserver()
    with run.drive():
        driver = _Driver(run, watcher)
        try:
            return driver.go()
        except KeyboardInterrupt:
            notice = driver.interrupted()
            raise Interrupted(f"interrupted; {notice}.", hint=f"Go on with: ftbridge resume {run.id}") from None
        except (Interrupted, GateNotMet):
            raise
        except FtbridgeError as error:
            driver.end_with(error)
            raise


def resume(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Go on with a run that was paused, interrupted, cancelled, or failed. A succeeded run is returned as it is.

    Never pays for another job: one that failed or was cancelled at a service stays so, and that is said (`retry` pays again).
    """
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
    with run.drive():
        state = run.state()
        backend = providers.load(state.provider)
        if state.state != "succeeded" and state.handle is not None:
            if backend.poll(state.handle).state in ("failed", "cancelled"):
                run.append("retry_requested", job=state.handle.id)
        elif state.token is not None:
            backend.forget(_Driver(run, watcher or NullObserver()).submission(state.token))
    return resume(run, watcher)


def adopt(run: Run, job: str) -> JobHandle:
    """Take a job of the account as the run's own, where it is in doubt what became of its creation.

    Raises `UsageError` for a run that has a job, for a job that another run has, and for a provider without an account.
    """
    with run.drive():
        state = run.state()
        if state.handle is not None:
            raise UsageError(f"{run.id} has its job already: {state.handle.id}.")
        driver = _Driver(run, NullObserver())
        token = state.token or _new_token(run)
        if state.token is None:
            run.append("submit_intended", token=token)
        handle = driver.backend.adopt(driver.submission(token), job)
        run.append("submitted", handle=handle.model_dump(mode="json"))
    return handle


def drive_on(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Drive a run as its journal says it stands, for a process that another one started.

    A run that was cancelled or paused since then stays so: only `resume` takes such a word back. Raises what `drive` does.
    """
    state = run.state()
    if state.state == "succeeded":
        return read_evaluation(run)
    if state.state in TERMINAL | {"paused"}:
        raise Interrupted(f"{run.id} is {state.state}.", hint=f"Go on with: ftbridge resume {run.id}")
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
    """Ask for the run to end for good, from any process. A run that nobody drives ends here.

    Raises `InDoubt` while it is not known whether there is a job, and the service's error where it refuses: then the job goes
    on, and so does the run.
    """
    _ask(run, "cancel")


def pause(run: Run) -> None:
    """Ask for the run to save its state and stop, from any process. Raises as `cancel` does."""
    _ask(run, "pause")


def retry_usd(run: Run) -> float | None:
    """About what training again costs, in US dollars, as the run's plan reckoned it; None where no price is known."""
    plan = read_plan(run)
    return plan.openai.money.training if plan is not None and plan.openai is not None else None


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

    Raises the run's error if it ends badly. Ctrl-C stops watching; the run goes on.
    """
    watcher = watcher or NullObserver()
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
            if state.handle is None or not _goes_on(providers.load(state.provider), state.handle):
                raise Interrupted(f"nobody is driving {run.id}.", hint=f"Go on with: ftbridge resume {run.id}")
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
    raise Interrupted(f"{run.id} is {state.state}.", hint=f"Go on with: ftbridge resume {run.id}")


def _ask(run: Run, request: Request) -> None:
    state = run.state()
    backend = providers.load(state.provider)
    if state.state in TERMINAL and not _has_live_job(run, state, backend):
        raise UsageError(f"{run.id} is {state.state} already.")
    run.append(f"{request}_requested")
    state = run.state()  # again: a driver that submitted meanwhile looked at the requests before this one was there
    if run.is_driven():
        if state.handle is not None:
            _ask_service(run, backend, state.handle, request)
        return
    with run.drive():
        if state.token is not None:
            driver = _Driver(run, NullObserver())
            if (handle := driver.submitted_handle()) is not None:
                _ask_service(run, backend, handle, request)
                driver.settle(handle, request)
            elif (doubt := backend.doubt(driver.submission(state.token))) is not None:
                raise InDoubt(
                    f"{run.id} cannot be said to be {request}{'d' if request == 'pause' else 'led'}: {doubt}, and the "
                    "service does not show what it made yet.",
                    hint=f"It is kept in mind. Ask again in some minutes: ftbridge {request} {run.id}",
                )
        if request == "cancel" and (state.token is None or run.state().handle is None):
            _discard(run)
        run.append("cancelled" if request == "cancel" else "paused")


def _has_live_job(run: Run, state: RunState, backend: Provider) -> bool:
    """Whether a run that was given up has a job at a service that goes on; one that cannot be looked at counts."""
    if state.state == "succeeded" or state.handle is None or backend.on_interrupt != "detach":
        return False
    try:
        return backend.poll(state.handle).state not in TERMINAL
    except FtbridgeError:
        return True


def _ask_service(run: Run, backend: Provider, handle: JobHandle, request: Request) -> None:
    """Ask the job to pause or end. A refusal is journalled, so that nobody takes the request for done, and raised."""
    try:
        if request == "cancel":
            backend.cancel(handle)
        else:
            backend.pause(handle)
    except (ProviderRefused, ModelUnavailable, UsageError) as error:
        run.append("request_refused", request=request, reason=error.message)
        raise


def _discard(run: Run) -> None:
    """Remove what was uploaded for a job that was never made; that it cannot be removed now is no reason to go on."""
    state = run.state()
    with contextlib.suppress(FtbridgeError):
        driver = _Driver(run, NullObserver())
        driver.backend.discard(driver.submission(state.token or "discard"))


def submission_of(run: Run) -> Submission:
    """What was, or would be, submitted for a run."""
    return _Driver(run, NullObserver()).submission(run.state().token or "none")


def _new_token(run: Run) -> str:
    return f"{run.id}-{secrets.token_hex(8)}"


class _Quiet:
    """How long a job may neither change its state nor say anything (`openai.max_quiet_hours`)."""

    def __init__(self, hours: float | None) -> None:
        self._hours, self._since = hours, time.monotonic()

    def hold(self, handle: JobHandle, run: Run, *, has_events: bool) -> None:
        """Raise `JobStuck` when the limit is reached; the job itself is left as it is."""
        if has_events:
            self._since = time.monotonic()
        if self._hours is not None and time.monotonic() - self._since >= self._hours * 3600:
            raise JobStuck(
                f"{handle.id} has neither changed its state nor said anything for {self._hours:g} hours "
                "(openai.max_quiet_hours); it goes on at the service.",
                hint=f"Wait on with: ftbridge resume {run.id}; or end it with: ftbridge cancel {run.id}",
            )


class Stage(NamedTuple):
    """A part of a run: its name, whether the journal shows it as done, and what does it."""

    name: str
    is_done: Callable[[RunState], bool]
    do: Callable[[], None]


def has_model(state: RunState) -> bool:
    """Whether training has made its model."""
    return state.tuned is not None


def has_job(state: RunState) -> bool:
    """Whether there is a job, or there was one."""
    return state.handle is not None or has_model(state)


class _Driver:
    """One process's hold on a run: the stages, and what they share."""

    def __init__(self, run: Run, watcher: Observer) -> None:
        self.run, self.watcher = run, watcher
        self.budget = Budget(run)
        self.job_state: str | None = None
        self.passed_on: set[Request] = set()
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

    def stages(self) -> list[Stage]:
        """The picture at the top of this module, as a table. `is_done` is asked when a stage's turn comes."""
        after_the_job = not self.answers_first()
        return [
            Stage("look for a job in doubt", lambda now: has_job(now) or now.token is None, self.look_for_job),
            Stage("stop if asked to", has_job, self.heed_before_job),
            Stage("check model and data", has_job, self.preflight),
            Stage(
                "complete with the base model",
                lambda now: after_the_job or has_job(now),
                lambda: self.answer_with(None),
            ),
            Stage("pass the gates", lambda now: has_job(now) or now.token is not None, self.pass_gates),
            Stage("stop if asked to", has_job, self.heed_before_job),
            Stage("submit", has_model, self.submit),
            Stage("follow", has_model, self.follow_to_result),
            Stage("complete with the base model", lambda now: False, lambda: self.answer_with(None)),
            Stage("complete with the tuned model", lambda now: False, lambda: self.answer_with(self.state.tuned)),
            Stage("hold the budget", lambda now: False, lambda: self.hold_budget(now=True)),
            Stage("score and compare", lambda now: False, self.score),
        ]

    def go(self) -> Evaluation | None:
        """Take the run through every stage that the journal does not show as done; returns the evaluation, if there is one."""
        for stage in self.stages() if self.state.state != "succeeded" else ():
            if not stage.is_done(self.state):
                stage.do()
        return read_evaluation(self.run)

    def look_for_job(self) -> None:
        """Find out, before anything can refuse, whether a submission that was cut short made a job."""
        self.submitted_handle()

    def follow_to_result(self) -> None:
        """Follow the job to its end, and journal the model that it made."""
        assert self.state.handle is not None
        handle = self.state.handle
        self.follow(handle)
        tuned = self.backend.result(handle)
        self.run.append("result", model=tuned.model_dump(mode="json"), trained_tokens=self.trained_tokens)

    def score(self) -> None:
        """Grade all completions and compare the candidates; then the run has succeeded."""
        self.evaluation.judge()
        self.run.append("succeeded")

    def preflight(self) -> None:
        """Everything that can be found wrong before time or money is spent."""
        self.watcher.stage(self.run, "checking model and data")
        self.backend.preflight(self.submission(self.state.token or "preflight"), self.watcher.note)
        save_plan(self.run, self.watcher.note)
        enforce_budget(self.run)

    def answers_first(self) -> bool:
        """Whether the base model answers before a job is made: where that costs nothing, or decides whether to train."""
        return self.backend.on_interrupt == "pause" or self.spec.evaluation.target is not None

    def end_with(self, error: FtbridgeError) -> None:
        """Journal an error: the run has failed, or, while a paid job goes on or may, only its driver has stopped."""
        state = self.state
        if state.state in TERMINAL or state.state == "paused":
            return
        if self.may_go_on():
            self.run.append("stopped", error=document(error))
            return
        self.run.append("failed", error=document(error))
        if state.handle is None and isinstance(error, (DataError, ProviderRefused, ModelUnavailable)):
            _discard(self.run)

    def may_go_on(self) -> bool:
        """Whether a job may be at work at a service, and be paid, after its driver stops."""
        state = self.state
        if self.backend.on_interrupt != "detach" or state.tuned is not None:
            return False
        if state.handle is not None:
            return self.job_state not in TERMINAL
        return state.token is not None and self.backend.doubt(self.submission(state.token)) is not None

    def pass_gates(self) -> None:
        """Stop, before anything is trained, when it is not needed, costs more than it may, or might be paid twice."""
        hold_once(self.run, self.backend.unpromised(self.submission("none")), self.watcher.note)
        if not self.answers_first():
            enforce_budget(self.run)
            return
        stop_if_baseline_meets_target(self.run, self.spec, self.evaluation.before(), self.watcher.note)
        enforce_budget(self.run)

    def submission(self, token: str) -> Submission:
        validation = self.run.data / "validation.jsonl"
        # A budget that was changed holds for the provider's own check too.
        request = self.backend.with_budget(self.lowering.request, budget_of(self.run).max_usd)
        return Submission(
            token=token,
            folder=self.run.path,
            request=request,
            train=self.run.data / "train.jsonl",
            validation=validation if validation.exists() else None,
            heed=self.heed_before_job,
        )

    def submit(self) -> None:
        """Write the intent and its token first; then submit, which for a known token never makes a second job."""
        if self.state.handle is not None:
            self.take_up(self.state.handle)
            return
        token = self.state.token or _new_token(self.run)
        if self.state.token is None:
            self.run.append("submit_intended", token=token)
        self.watcher.stage(self.run, "training")
        handle = self.backend.submit(self.submission(token))
        self.run.append("submitted", handle=handle.model_dump(mode="json"))
        if self.state.pause_requested and self.backend.on_interrupt == "pause":  # asked for while there was no job yet
            self.backend.pause(handle)

    def take_up(self, handle: JobHandle) -> None:
        """Let a job that is paused go on; one that ended is made again only where that was asked for."""
        status = self.backend.poll(handle)
        if status.state in ("failed", "cancelled") and self.state.retried == handle.id:
            self.watcher.note(f"the job is {status.state}; training again")
            again = self.backend.retry(handle)
        elif status.state == "paused" or (status.state in TERMINAL and self.backend.on_interrupt == "pause"):
            self.watcher.note(f"the job is {status.state}; resuming it")
            again = self.backend.resume(handle)
        else:
            return
        if again != handle:
            self.watcher.note(f"submitted again as {again.id}")
            self.run.append("submitted", handle=again.model_dump(mode="json"))

    def submitted_handle(self) -> JobHandle | None:
        """The job, if there is one: also one whose submission was cut short before its handle was journalled."""
        state = self.state
        if state.handle is not None:
            return state.handle
        if state.token is None:
            return None
        existing = self.backend.find(self.submission(state.token))
        if existing is not None:
            self.run.append("submitted", handle=existing.model_dump(mode="json"))
        return existing

    def follow(self, handle: JobHandle) -> None:
        """Copy the job's events into the journal until it ends. Raises unless it succeeded."""
        shown, expected = "", None
        quiet = _Quiet(self.spec.openai.max_quiet_hours if self.backend.on_interrupt == "detach" else None)
        while True:
            self.pass_on(handle)
            status = self.backend.poll(handle)
            self.job_state = status.state
            has_events = self.copy_events(handle)
            if status.state != shown:
                shown = status.state
                if status.state not in TERMINAL:
                    self.run.append("status", state=status.state)
                has_events = True
            if status.estimated_finish is not None and expected is None:
                expected = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.estimated_finish))
                self.watcher.note(f"the service expects to be done at {expected}")
            if status.state == "succeeded":
                self.trained_tokens = status.trained_tokens
                return
            self.stop_on(status)
            if not self.passed_on:
                self.hold_budget(handle)
            quiet.hold(handle, self.run, has_events=has_events)
            time.sleep(POLL_SECONDS)

    def pass_on(self, handle: JobHandle) -> None:
        """Pass a cancel or pause on to the job, once; a refusal is journalled and the job is followed on."""
        state = self.state
        wanted: dict[Request, bool] = {"cancel": state.cancel_requested, "pause": state.pause_requested}
        for request, is_asked in wanted.items():
            if not is_asked:
                self.passed_on.discard(request)
            elif request not in self.passed_on:
                self.passed_on.add(request)
                try:
                    _ask_service(self.run, self.backend, handle, request)
                except FtbridgeError as error:
                    self.watcher.note(f"the job could not be asked to {request}, and goes on: {error.message}")
                    if self.state.refused is None:  # the service is away: asked again
                        self.passed_on.discard(request)

    def hold_budget(self, handle: JobHandle | None = None, *, now: bool = False) -> None:
        """Raise `GateNotMet` when the budget is used up; a job at work is paused first, or cancelled where none can pause.

        The budget is looked at once in a while, or `now`.
        """
        if (used := self.budget.used_up(training=handle is not None, now=now)) is None:
            return
        became, event = "paused", "paused"
        if handle is not None:
            if (outcome := self.stop_spending(handle)) is None:
                return
            event, became = outcome
        self.run.append(event)
        raise GateNotMet(
            f"{used}; {self.run.id} is {became}.",
            hint=f"What was done is kept. With a larger budget: ftbridge resume {self.run.id} --set budget.KEY=VALUE",
        )

    def stop_spending(self, handle: JobHandle) -> tuple[str, str] | None:
        """Pause a job, or cancel it where a pause is refused or has no effect; the run's event, and what became of the job.

        None while neither could be done: the service is away, or refuses both, or the job has ended meanwhile. It is followed
        on, and asked again at the next look.
        """
        try:
            self.backend.pause(handle)
            self.settle(handle, "pause", BUDGET_PAUSE_SECONDS)
            if self.job_state == "paused":
                return "paused", "paused at a checkpoint"
            return None
        except UsageError:  # it cannot pause, or does not
            pass
        except FtbridgeError as error:
            self.watcher.note(f"the budget is used up, and the job could not be asked to pause: {error.message}")
            return None
        try:
            self.backend.cancel(handle)
            self.settle(handle, "cancel")
        except FtbridgeError as error:
            self.watcher.note(f"the budget is used up, and the job goes on and costs more: {error.message}")
            return None
        if self.job_state != "cancelled":
            return None
        return "cancelled", "cancelled, since this service cannot pause a job"

    def stop_on(self, status: JobStatus) -> None:
        """Turn a job that stopped into the run's event and error."""
        if status.state == "failed":
            error_document = (
                status.error.model_dump()
                if status.error
                else {"kind": "training_failed", "message": None, "hint": None}
            )
            error = from_document(error_document)
            if not isinstance(error, DataError):  # the run keeps its data: mended data are a new run
                error.hint = " ".join(part for part in (error.hint, f"Then: {self.go_on()}") if part)
            raise error
        if status.state == "cancelled":
            self.run.append("cancelled")
            if self.state.handle is None:
                _discard(self.run)
            raise Interrupted(f"{self.run.id} was cancelled.", hint=f"To go on after all: {self.go_on()}")
        if status.state == "paused":
            if status.error is not None:  # the job paused by itself: a budget, or a judge that is away
                error = from_document(status.error.model_dump())
                hint = error.hint or "What was done is kept."
                error.hint = f"{hint} Then: ftbridge resume {self.run.id}"
                self.run.append("paused", error=document(error))
                raise error
            self.run.append("paused")
            raise Interrupted(f"{self.run.id} is paused.", hint=f"Go on with: ftbridge resume {self.run.id}")

    def go_on(self) -> str:
        """The command that goes on after a job ended: at a service it pays again, and says what."""
        if self.backend.on_interrupt == "pause" or self.state.handle is None:
            return f"ftbridge resume {self.run.id}"
        usd = retry_usd(self.run)
        price = f"about ${usd:.2f}" if usd is not None else "the price is not known here"
        return f"ftbridge retry {self.run.id} (pays for the training again: {price})"

    def copy_events(self, handle: JobHandle) -> bool:
        """Journal what the job said since it was last heard; returns whether it said anything."""
        has_events = False
        for event in self.backend.events(handle, self.state.cursor):
            event_document = event.model_dump(mode="json", exclude_none=True)
            self.run.append("job_event", sync=event.type != "metrics", **event_document)
            self.watcher.job_event(event)
            has_events = True
        return has_events

    def settle(self, handle: JobHandle, request: str, seconds: float = 120) -> None:
        """Wait until a pause or cancel took effect, copying what the job still says."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.backend.poll(handle)
            self.job_state = status.state
            self.copy_events(handle)
            if status.state in TERMINAL | {"paused"}:
                return
            time.sleep(0.1)
        raise UsageError(
            f"{self.run.id}: the job did not {request} within {seconds:.0f} s; at the service it is {status.state}.",
            hint=f"It goes on until it does: ftbridge watch {self.run.id}",
        )

    def interrupted(self) -> str:
        """Ctrl-C: a local job saves a checkpoint and stops; a paid one goes on without us. Returns what became of it."""
        self.run.append("interrupted")
        notice = f"{self.run.id} is kept as it stands"
        if self.state.handle is None or self.state.tuned is not None:
            return notice
        handle = self.state.handle
        if self.backend.on_interrupt == "detach":
            return f"the job {handle.id} goes on at the service, and {notice}"
        if self.backend.poll(handle).state in TERMINAL:
            return notice
        self.watcher.note("stopping at a checkpoint (Ctrl-C again leaves at once)")
        try:
            self.backend.pause(handle)
            self.settle(handle, "pause")
            self.run.append("paused")
        except KeyboardInterrupt:
            pass
        return notice

    def answer_with(self, model: TunedModel | None) -> None:
        """Let everybody on the base model, or on the tuned one, answer what they have not answered yet."""
        self.evaluation.answer(
            lambda: self.backend.sampler(self.lowering, model, self.run.path), tuned=model is not None
        )

    def heed_before_job(self) -> None:
        """Before anything that costs: stop when somebody asked to. With a creation in doubt nothing more is made."""
        state = self.state
        if not (state.cancel_requested or state.pause_requested):
            return
        if state.token is not None and (doubt := self.backend.doubt(self.submission(state.token))) is not None:
            raise InDoubt(
                f"{self.run.id} was asked to stop, and {doubt}: it may be running.",
                hint=f"Ask again in some minutes: ftbridge {'cancel' if state.cancel_requested else 'pause'} {self.run.id}",
            )
        self.stop_on(JobStatus(state="cancelled" if state.cancel_requested else "paused"))

    def heed_requests(self) -> None:
        """Between two answers: stop when somebody asked to, or when the budget is used up."""
        self.hold_budget()
        if self.state.cancel_requested:
            self.stop_on(JobStatus(state="cancelled"))
        if self.state.pause_requested:
            self.stop_on(JobStatus(state="paused"))
