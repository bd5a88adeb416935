"""The life of a run, stage by stage, resumable at every one.

    prepare ─▶ lower ─▶ in doubt? ─▶ preflight ─▶ complete before ─▶ gates ─▶ submit ─▶ follow ─▶ complete after ─▶ score
       │         │         │           plan.json    base, few_shot    replay     │         │         tuned
       └─────────┴─ files  │                                                     │         ├── pause, cancel, Ctrl-C, budget
                           └── a job that may have been made is looked           │         └── refused, failed ─▶ fall back
                               for before anything can refuse                    └── the token is journalled first: a crash
                                                                                     pays once

A service is paid for completions only when its job has succeeded, except where `evaluation.target` asks for the base model's
first, and for those that `data.replay` trains: an account that is refused has paid for nothing else.

Every stage begins by asking the journal whether it is done. So `drive` is the whole program: for a new run, for one that
was interrupted, and for one whose machine lost power. Requests from other processes are in `control`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from ftbridge import providers
from ftbridge.data.replay import EXAMPLES, WITH_TRAIN
from ftbridge.errors import (
    DataError,
    FtbridgeError,
    GateNotMet,
    InDoubt,
    Interrupted,
    ModelUnavailable,
    ProviderRefused,
    UsageError,
    document,
    from_document,
)
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.spending import Budget, budget_of
from ftbridge.planning.plan import read_plan
from ftbridge.providers.base import JobHandle, JobStatus, Provider, Submission, TunedModel
from ftbridge.runner import replay
from ftbridge.runner.evaluate import RunEvaluation
from ftbridge.runner.fallback import fall_back, last_of
from ftbridge.runner.follow import FollowedJob, Quiet
from ftbridge.runner.gates import enforce_budget, hold_once, save_plan, stop_if_baseline_meets_target
from ftbridge.runner.observer import NullObserver, Observer
from ftbridge.runner.summary import lowering_of, read_evaluation
from ftbridge.runs.run import TERMINAL, Run, RunState

Go = Callable[[Run, Observer], "Evaluation | None"]
"""What takes a run further: `drive`, or `resume`, `retry`, `drive_on` or `watch` of `control`."""

POLL_SECONDS = 0.5
BUDGET_PAUSE_SECONDS = 30.0
"""Seconds that a job gets to pause for a budget before it is cancelled: it costs more meanwhile."""


def drive(run: Run, watcher: Observer | None = None) -> Evaluation | None:
    """Take a run from wherever it stands to its end; returns the evaluation, if it has a test split.

    Where the run ends by its provider's fault and its spec names a fallback, the run that continues it is driven, and the
    evaluation is that run's (`fallback.last_of`). Only one process drives a run.

    Raises:
        RunBusy: another process drives the run.
        Interrupted: on Ctrl-C, and on a pause requested elsewhere.
        GateNotMet: when a budget is used up, or a gate is not met.
        FtbridgeError: the run's own error, when it fails and nothing may fall back.
    """
    watcher = watcher or NullObserver()
    run = last_of(run)
    with run.drive():
        driver = Driver(run, watcher)
        try:
            return driver.go()
        except KeyboardInterrupt:
            outcome = driver.interrupted()
            raise Interrupted(f"interrupted; {outcome}.", hint=f"Go on with: ftbridge resume {run.id}") from None
        except (Interrupted, GateNotMet):
            raise
        except FtbridgeError as error:
            driver.end_with(error)
            follower = driver.fall_back(error)
            if follower is None:
                raise
        return drive(follower, watcher)  # under both locks: whoever watches never sees that nobody drives


def retry_usd(run: Run) -> float | None:
    """About what training again costs, in US dollars, as the run's plan reckoned it; None where no price is known."""
    plan = read_plan(run)
    return plan.openai.money.training if plan is not None and plan.openai is not None else None


def new_token(run: Run) -> str:
    """A name for a job that no other submission has."""
    return f"{run.id}-{secrets.token_hex(8)}"


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


class Driver:
    """One process's hold on a run: the stages, and what they share."""

    def __init__(self, run: Run, watcher: Observer) -> None:
        self.run, self.watcher = run, watcher
        self.budget = Budget(run)
        self.job: FollowedJob | None = None
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
            Stage("complete the replay prompts", has_job, self.complete_replay),
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
        self.follow(self.followed(handle))
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
            self.discard()

    def fall_back(self, error: FtbridgeError) -> Run | None:
        """The last stage of a run that failed: a prepared run with another provider, where the spec and the error allow it."""
        return fall_back(self.run, error, self.backend, self.submission(self.state.token or "none"), self.watcher)

    def may_go_on(self) -> bool:
        """Whether a job may be at work at a service, and be paid, after its driver stops."""
        state = self.state
        if self.backend.on_interrupt != "detach" or state.tuned is not None:
            return False
        if state.handle is not None:
            return self.job is None or self.job.state not in TERMINAL
        return state.token is not None and self.backend.doubt(self.submission(state.token)) is not None

    def pass_gates(self) -> None:
        """Stop, before anything is trained, when it is not needed, costs more than it may, or might be paid twice."""
        hold_once(self.run, self.backend.unpromised(self.submission("none")), self.watcher.note)
        if not self.answers_first():
            enforce_budget(self.run)
            return
        stop_if_baseline_meets_target(self.run, self.spec, self.evaluation.before(), self.watcher.note)
        enforce_budget(self.run)

    def complete_replay(self) -> None:
        """Let the base model complete the prompts of `data.replay`, and write what is trained of them."""
        if self.spec.data.replay is None or (self.state.replay is not None and replay.is_written(self.run)):
            return
        replay.complete(
            self.run,
            self.spec,
            mixed=self.backend.capabilities(self.spec).mixes_replay,
            sampler_of=lambda: self.backend.sampler(self.lowering, None, self.run.path),
            watcher=self.watcher,
            between=self.heed_requests,
        )

    def submission(self, token: str) -> Submission:
        data, validation = self.run.data, self.run.data / "validation.jsonl"
        mixed = self.backend.capabilities(self.spec).mixes_replay
        train, examples = data / WITH_TRAIN, data / EXAMPLES
        # A budget that was changed holds for the provider's own check too.
        request = self.backend.with_budget(self.lowering.request, budget_of(self.run).max_usd)
        return Submission(
            token=token,
            folder=self.run.path,
            request=request,
            train=train if train.exists() and not mixed else data / "train.jsonl",
            validation=validation if validation.exists() else None,
            replay=examples if examples.exists() and mixed else None,
            heed=self.heed_before_job,
        )

    def submit(self) -> None:
        """Write the intent and its token first; then submit, which for a known token never makes a second job."""
        if self.state.handle is not None:
            self.take_up(self.state.handle)
            return
        token = self.state.token or new_token(self.run)
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
        elif status.state == "paused" or (status.state in TERMINAL and self.can_restart()):
            self.watcher.note(f"the job is {status.state}; resuming it")
            again = self.backend.resume(handle)
        else:
            return
        if again != handle:
            self.watcher.note(f"submitted again as {again.id}")
            self.run.append("submitted", handle=again.model_dump(mode="json"))

    def can_restart(self) -> bool:
        """Whether a job that failed or was cancelled goes on from its last checkpoint, without another price."""
        return self.backend.on_interrupt == "pause" or self.backend.capabilities(self.spec).restart

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

    def discard(self) -> None:
        """Remove what was uploaded for a job that was never made; that it cannot be removed now is no reason to go on."""
        with contextlib.suppress(FtbridgeError):
            self.backend.discard(self.submission(self.state.token or "discard"))

    def followed(self, handle: JobHandle) -> FollowedJob:
        """The job as this process follows it."""
        if self.job is None or self.job.handle != handle:
            self.job = FollowedJob(self.run, self.backend, handle, self.watcher)
        return self.job

    def follow(self, job: FollowedJob) -> None:
        """Copy the job's events into the journal until it ends. Raises unless it succeeded."""
        expected = None
        quiet = Quiet(self.spec.openai.max_quiet_hours if self.backend.capabilities(self.spec).hosted else None)
        while True:
            job.pass_requests_on()
            status, is_new = job.look()
            if status.estimated_finish is not None and expected is None:
                expected = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.estimated_finish))
                self.watcher.note(f"the service expects to be done at {expected}")
            if status.state == "succeeded":
                self.trained_tokens = status.trained_tokens
                return
            self.stop_on(status)
            if not job.passed_on:
                self.hold_budget(job)
            quiet.hold(job, is_new=is_new)
            time.sleep(POLL_SECONDS)

    def hold_budget(self, job: FollowedJob | None = None, *, now: bool = False) -> None:
        """Raise `GateNotMet` when the budget is used up; a job at work is paused first, or cancelled where none can pause.

        The budget is looked at once in a while, or `now`.
        """
        if (used := self.budget.used_up(training=job is not None, now=now)) is None:
            return
        became, event = "paused", "paused"
        if job is not None:
            if (outcome := self.stop_spending(job)) is None:
                return
            event, became = outcome
        self.run.append(event)
        raise GateNotMet(
            f"{used}; {self.run.id} is {became}.",
            hint=f"What was done is kept. With a larger budget: ftbridge resume {self.run.id} --set budget.KEY=VALUE",
        )

    def stop_spending(self, job: FollowedJob) -> tuple[str, str] | None:
        """Pause a job, or cancel it where a pause is refused or has no effect; the run's event, and the job's outcome.

        None while neither could be done: the service is away, or refuses both, or the job has ended meanwhile. It is followed
        on, and asked again at the next look.
        """
        try:
            self.backend.pause(job.handle)
            job.settle("pause", BUDGET_PAUSE_SECONDS)
            if job.state == "paused":
                return "paused", "paused at a checkpoint"
            return None
        except UsageError:  # it cannot pause, or does not
            pass
        except FtbridgeError as error:
            self.watcher.note(f"the budget is used up, and the job could not be asked to pause: {error.message}")
            return None
        try:
            self.backend.cancel(job.handle)
            job.settle("cancel")
        except FtbridgeError as error:
            self.watcher.note(f"the budget is used up, and the job goes on and costs more: {error.message}")
            return None
        if job.state != "cancelled":
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
                self.discard()
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
        if self.can_restart() or self.state.handle is None:
            return f"ftbridge resume {self.run.id}"
        usd = retry_usd(self.run)
        price = f"about ${usd:.2f}" if usd is not None else "the price is not known here"
        return f"ftbridge retry {self.run.id} (pays for the training again: {price})"

    def interrupted(self) -> str:
        """Ctrl-C: a local job saves a checkpoint and stops; a paid one goes on without us. Returns its outcome."""
        self.run.append("interrupted")
        notice = f"{self.run.id} is kept as it stands"
        if self.state.handle is None or self.state.tuned is not None:
            return notice
        handle = self.state.handle
        if self.backend.on_interrupt == "detach":
            return f"the job {handle.id} goes on without this process, and {notice}"
        if self.backend.poll(handle).state in TERMINAL:
            return notice
        self.watcher.note("stopping at a checkpoint (Ctrl-C again leaves at once)")
        try:
            self.backend.pause(handle)
            self.followed(handle).settle("pause")
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
