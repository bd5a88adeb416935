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
was interrupted, and for one whose machine lost power. The job is in `job`, what stops a run on its way in `stopping`, and
requests from other processes in `control`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ftbridge.errors import (
    DataError,
    FtbridgeError,
    GateNotMet,
    Interrupted,
    ModelUnavailable,
    ProviderRefused,
    document,
)
from ftbridge.evaluation.document import Evaluation
from ftbridge.providers.base import TunedModel
from ftbridge.runner import replay
from ftbridge.runner.evaluate import RunEvaluation
from ftbridge.runner.fallback import fall_back, last_of
from ftbridge.runner.follow import FollowedJob, Quiet
from ftbridge.runner.gates import enforce_budget, hold_once, save_plan, stop_if_baseline_meets_target
from ftbridge.runner.job import RunJob
from ftbridge.runner.observer import NullObserver, Observer
from ftbridge.runner.stopping import Stops
from ftbridge.runner.summary import read_evaluation
from ftbridge.runs.run import TERMINAL, Run, RunState

Go = Callable[[Run, Observer], "Evaluation | None"]
"""What takes a run further: `drive`, or `resume`, `retry`, `drive_on` or `watch` of `control`."""

POLL_SECONDS = 0.5


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
            outcome = driver.stops.interrupted()
            raise Interrupted(f"interrupted; {outcome}.", hint=f"Continue with: ftbridge resume {run.id}") from None
        except (Interrupted, GateNotMet):
            raise
        except FtbridgeError as error:
            driver.end_with(error)
            follower = driver.fall_back(error)
            if follower is None:
                raise
        return drive(follower, watcher)  # under both locks: whoever watches never sees that nobody drives


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
        self.job = RunJob(run, watcher)
        self.stops = Stops(self.job)
        self.job.check_requests = self.stops.check_before_job
        self.backend, self.spec, self.lowering = self.job.backend, self.job.spec, self.job.lowering
        self.trained_tokens: int | None = None
        self.evaluation = RunEvaluation(run, self.spec, watcher, self.stops.check_requests)

    @property
    def state(self) -> RunState:
        return self.run.state()

    def stages(self) -> list[Stage]:
        """The picture at the top of this module, as a table. `is_done` is asked when a stage's turn comes."""
        after_the_job = not self.answers_first()
        return [
            Stage("look for a job in doubt", lambda now: has_job(now) or now.token is None, self.look_for_job),
            Stage("stop if asked to", has_job, self.stops.check_before_job),
            Stage("check model and data", has_job, self.preflight),
            Stage(
                "complete with the base model",
                lambda now: after_the_job or has_job(now),
                lambda: self.answer_with(None),
            ),
            Stage("pass the gates", lambda now: has_job(now) or now.token is not None, self.pass_gates),
            Stage("stop if asked to", has_job, self.stops.check_before_job),
            Stage("complete the replay prompts", has_job, self.complete_replay),
            Stage("submit", has_model, self.job.submit),
            Stage("follow", has_model, self.follow_to_result),
            Stage("complete with the base model", lambda now: False, lambda: self.answer_with(None)),
            Stage("complete with the tuned model", lambda now: False, lambda: self.answer_with(self.state.tuned)),
            Stage("hold the budget", lambda now: False, lambda: self.stops.hold_budget(now=True)),
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
        self.job.find()

    def preflight(self) -> None:
        """Everything that can be found wrong before time or money is spent."""
        self.watcher.stage(self.run, "checking model and data")
        self.backend.preflight(self.job.submission(self.state.token or "preflight"), self.watcher.note)
        save_plan(self.run, self.watcher.note)
        enforce_budget(self.run)

    def answers_first(self) -> bool:
        """Whether the base model answers before a job is made: where that costs nothing, or decides whether to train."""
        return self.backend.on_interrupt == "pause" or self.spec.evaluation.target is not None

    def pass_gates(self) -> None:
        """Stop, before anything is trained, when it is not needed, costs more than it may, or might be paid twice."""
        hold_once(self.run, self.backend.unpromised(self.job.submission("none")), self.watcher.note)
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
            between=self.stops.check_requests,
        )

    def answer_with(self, model: TunedModel | None) -> None:
        """Let everybody on the base model, or on the tuned one, answer what they have not answered yet."""
        self.evaluation.complete(
            lambda: self.backend.sampler(self.lowering, model, self.run.path), tuned=model is not None
        )

    def follow_to_result(self) -> None:
        """Follow the job to its end, and journal the model that it made."""
        assert self.state.handle is not None
        handle = self.state.handle
        self.follow(self.job.followed(handle))
        tuned = self.backend.result(handle)
        self.run.append("result", model=tuned.model_dump(mode="json"), trained_tokens=self.trained_tokens)

    def follow(self, job: FollowedJob) -> None:
        """Copy the job's events into the journal until it ends. Raises unless it succeeded."""
        expected = None
        quiet = Quiet(self.spec.openai.max_quiet_hours if self.backend.capabilities(self.spec).hosted else None)
        while True:
            job.pass_requests_on()
            status, is_new = job.look()
            if status.estimated_finish is not None and expected is None:
                expected = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.estimated_finish))
                self.watcher.note(f"the service expects to finish at {expected}")
            if status.state == "succeeded":
                self.trained_tokens = status.trained_tokens
                return
            self.stops.stop_on(status)
            if not job.passed_on:
                self.stops.hold_budget(job)
            quiet.hold(job, is_new=is_new)
            time.sleep(POLL_SECONDS)

    def score(self) -> None:
        """Grade all completions and compare the candidates; then the run has succeeded."""
        self.evaluation.judge()
        self.run.append("succeeded")

    def end_with(self, error: FtbridgeError) -> None:
        """Journal an error: the run has failed, or, while a paid job goes on or may, only its driver has stopped."""
        state = self.state
        if state.state in TERMINAL or state.state == "paused":
            return
        if self.job.may_go_on():
            self.run.append("stopped", error=document(error))
            return
        self.run.append("failed", error=document(error))
        if state.handle is None and isinstance(error, (DataError, ProviderRefused, ModelUnavailable)):
            self.job.discard()

    def fall_back(self, error: FtbridgeError) -> Run | None:
        """The last stage of a run that failed: a prepared run with another provider, where the spec and the error allow it."""
        return fall_back(self.run, error, self.backend, self.job.submission(self.state.token or "none"), self.watcher)
