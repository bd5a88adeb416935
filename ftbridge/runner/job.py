"""The job of a run at its provider: submitted once under a token, found again after a crash, taken up, discarded.

submit_intended (token) ──▶ provider.submit ──▶ submitted (handle)
                                   └── cut short here: `find` asks by the token; while nobody knows, a job is in doubt
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable

from ftbridge import providers
from ftbridge.data.replay import EXAMPLES, WITH_TRAIN
from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.evaluation.spending import budget_of
from ftbridge.planning.plan import read_plan
from ftbridge.providers.base import JobHandle, Provider, Submission
from ftbridge.runner.follow import FollowedJob
from ftbridge.runner.observer import Observer
from ftbridge.runner.summary import lowering_of
from ftbridge.runs.run import TERMINAL, Run, RunState


class RunJob:
    """A run's hold on its job.

    `check_requests` is called before anything that costs money, and may raise to stop. Raises `UsageError` for a run that
    was stopped before its data was prepared.
    """

    def __init__(self, run: Run, watcher: Observer) -> None:
        self.run, self.watcher = run, watcher
        self.backend: Provider = providers.load(run.state().provider)
        lowering = lowering_of(run)
        if lowering is None or run.state().data is None:
            raise UsageError(f"{run.id} was stopped before its data was prepared; start it again with `ftbridge run`.")
        self.lowering = lowering
        self.spec = run.resolved_spec()
        self.check_requests: Callable[[], None] = lambda: None
        self._followed: FollowedJob | None = None

    @property
    def state(self) -> RunState:
        return self.run.state()

    def submission(self, token: str) -> Submission:
        """What the provider is given: the files of the run, and its request with the budget as it is now."""
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
            check_requests=self.check_requests,
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

    def find(self) -> JobHandle | None:
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

    def may_go_on(self) -> bool:
        """Whether a job may be at work at a service, and be paid, after its driver stops."""
        state = self.state
        if self.backend.on_interrupt != "detach" or state.tuned is not None:
            return False
        if state.handle is not None:
            return self._followed is None or self._followed.state not in TERMINAL
        return self.doubt() is not None

    def doubt(self) -> str | None:
        """What is not known about a submission that was cut short; None where nothing is in doubt."""
        token = self.state.token
        return None if token is None else self.backend.doubt(self.submission(token))

    def followed(self, handle: JobHandle) -> FollowedJob:
        """The job as this process follows it."""
        if self._followed is None or self._followed.handle != handle:
            self._followed = FollowedJob(self.run, self.backend, handle, self.watcher)
        return self._followed

    def discard(self) -> None:
        """Remove what was uploaded for a job that was never made; that it cannot be removed now is no reason to go on."""
        with contextlib.suppress(FtbridgeError):
            self.backend.discard(self.submission(self.state.token or "discard"))


def retry_usd(run: Run) -> float | None:
    """About what training again costs, in US dollars, as the run's plan reckoned it; None where no price is known."""
    plan = read_plan(run)
    return plan.openai.money.training if plan is not None and plan.openai is not None else None


def new_token(run: Run) -> str:
    """A name for a job that no other submission has."""
    return f"{run.id}-{secrets.token_hex(8)}"
