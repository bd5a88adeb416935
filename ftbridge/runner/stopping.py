"""What stops a run on its way: a request to cancel or pause, Ctrl-C, a used-up budget, a job that stopped by itself."""

from __future__ import annotations

from ftbridge.errors import (
    DataError,
    FtbridgeError,
    GateNotMet,
    InDoubt,
    Interrupted,
    UsageError,
    document,
    from_document,
)
from ftbridge.evaluation.spending import Budget
from ftbridge.providers.base import JobStatus
from ftbridge.runner.follow import FollowedJob
from ftbridge.runner.job import RunJob, retry_usd
from ftbridge.runs.run import TERMINAL

BUDGET_PAUSE_SECONDS = 30.0
"""Seconds that a job gets to pause for a budget before it is cancelled: it costs more meanwhile."""


class Stops:
    """Turns what stops a run into its event and its error."""

    def __init__(self, job: RunJob) -> None:
        self.job, self.run, self.watcher, self.backend = job, job.run, job.watcher, job.backend
        self.budget = Budget(job.run)

    def check_before_job(self) -> None:
        """Before anything that costs: stop when somebody asked to. With a creation in doubt nothing more is made."""
        state = self.run.state()
        if not (state.cancel_requested or state.pause_requested):
            return
        if (doubt := self.job.doubt()) is not None:
            raise InDoubt(
                f"{self.run.id} was asked to stop, but {doubt}: its job may be running.",
                hint=(
                    f"Try again in a few minutes: ftbridge {'cancel' if state.cancel_requested else 'pause'} "
                    f"{self.run.id}"
                ),
            )
        self.stop_on(JobStatus(state="cancelled" if state.cancel_requested else "paused"))

    def check_requests(self) -> None:
        """Between two answers: stop when somebody asked to, or when the budget is used up."""
        self.hold_budget()
        if self.run.state().cancel_requested:
            self.stop_on(JobStatus(state="cancelled"))
        if self.run.state().pause_requested:
            self.stop_on(JobStatus(state="paused"))

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
            hint=(
                f"Everything done so far is kept. With a larger budget: ftbridge resume {self.run.id} --set "
                "budget.KEY=VALUE"
            ),
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
            self.watcher.note(f"the budget is used up, but the job could not be asked to pause: {error.message}")
            return None
        try:
            self.backend.cancel(job.handle)
            job.settle("cancel")
        except FtbridgeError as error:
            self.watcher.note(f"the budget is used up, but the job is still running and costs more: {error.message}")
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
            if not isinstance(error, DataError):  # the run keeps its data: fixed data are a new run
                error.hint = " ".join(part for part in (error.hint, f"Then: {self.go_on()}") if part)
            raise error
        if status.state == "cancelled":
            self.run.append("cancelled")
            if self.run.state().handle is None:
                self.job.discard()
            raise Interrupted(f"{self.run.id} was cancelled.", hint=f"To continue after all: {self.go_on()}")
        if status.state == "paused":
            if status.error is not None:  # the job paused by itself: a budget, or a judge that is away
                error = from_document(status.error.model_dump())
                hint = error.hint or "Everything done so far is kept."
                error.hint = f"{hint} Then: ftbridge resume {self.run.id}"
                self.run.append("paused", error=document(error))
                raise error
            self.run.append("paused")
            raise Interrupted(f"{self.run.id} is paused.", hint=f"Continue with: ftbridge resume {self.run.id}")

    def go_on(self) -> str:
        """The command that goes on after a job ended: at a service it pays again, and says what."""
        if self.job.can_restart() or self.run.state().handle is None:
            return f"ftbridge resume {self.run.id}"
        usd = retry_usd(self.run)
        price = f"about ${usd:.2f}" if usd is not None else "the price is not known"
        return f"ftbridge retry {self.run.id} (the training is billed again: {price})"

    def interrupted(self) -> str:
        """Ctrl-C: a local job saves a checkpoint and stops; a paid one goes on without us. Returns its outcome."""
        self.run.append("interrupted")
        notice = f"{self.run.id} is saved"
        state = self.run.state()
        if state.handle is None or state.tuned is not None:
            return notice
        handle = state.handle
        if self.backend.on_interrupt == "detach":
            return f"the job {handle.id} continues without this process, and {notice}"
        if self.backend.poll(handle).state in TERMINAL:
            return notice
        self.watcher.note("stopping at a checkpoint (Ctrl-C again leaves at once)")
        try:
            self.backend.pause(handle)
            self.job.followed(handle).settle("pause")
            self.run.append("paused")
        except KeyboardInterrupt:
            pass
        return notice
