"""Following, written once: a job into its run's journal, and a run's journal to whoever watches it.

    provider ── poll · events ──▶ FollowedJob.look ──▶ journal.jsonl ──▶ looks ──▶ ftbridge watch, the server
    provider ◀── cancel · pause ── FollowedJob.ask ◀── journal.jsonl ◀── ftbridge cancel, ftbridge pause

The driver of a run, and it alone, follows the job. Everybody else follows the run's journal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ftbridge.errors import FtbridgeError, JobStuck, ModelUnavailable, ProviderRefused, UsageError
from ftbridge.providers.base import JobHandle, JobStatus, Provider
from ftbridge.runner.observer import Observer
from ftbridge.runs.journal import Event
from ftbridge.runs.run import TERMINAL, Run, RunState

Request = Literal["cancel", "pause"]

_SETTLE_SECONDS = 0.1


class FollowedJob:
    """A job as the driver of its run sees it. `state` is what the last look showed; None before the first."""

    def __init__(self, run: Run, backend: Provider, handle: JobHandle, watcher: Observer) -> None:
        self.run, self.backend, self.handle, self.watcher = run, backend, handle, watcher
        self.state: str | None = None
        self.passed_on: set[Request] = set()
        self._journalled: str | None = None

    def look(self) -> tuple[JobStatus, bool]:
        """The job's status now, with what it said since the last look journalled; and whether there was anything new."""
        status = self.backend.poll(self.handle)
        self.state = status.state
        is_new = self._record_choice(status)
        is_new = self._copy_events() or is_new
        if status.state != self._journalled:
            self._journalled, is_new = status.state, True
            if status.state not in TERMINAL:
                self.run.append("status", state=status.state)
        return status, is_new

    def settle(self, request: Request, seconds: float = 120) -> None:
        """Look until a cancel or pause took effect. Raises `UsageError` when it has not after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.backend.poll(self.handle)
            self.state = status.state
            self._copy_events()
            if status.state in TERMINAL | {"paused"}:
                return
            time.sleep(_SETTLE_SECONDS)
        raise UsageError(
            f"{self.run.id}: the job did not {request} within {seconds:.0f} s; at the service it is {self.state}.",
            hint=f"The request remains in force; follow the job with: ftbridge watch {self.run.id}",
        )

    def ask(self, request: Request) -> None:
        """Ask the job to pause or end. A refusal is journalled, so that nobody takes the request for done, and raised."""
        try:
            if request == "cancel":
                self.backend.cancel(self.handle)
            else:
                self.backend.pause(self.handle)
        except (ProviderRefused, ModelUnavailable, UsageError) as error:
            self.run.append("request_refused", request=request, reason=error.message)
            raise

    def pass_requests_on(self) -> None:
        """Pass a cancel or pause that the journal shows on to the job, once; after a refusal the job is followed on."""
        state = self.run.state()
        requests: dict[Request, bool] = {"cancel": state.cancel_requested, "pause": state.pause_requested}
        for request, is_requested in requests.items():
            if not is_requested:
                self.passed_on.discard(request)
            elif request not in self.passed_on:
                self.passed_on.add(request)
                try:
                    self.ask(request)
                except FtbridgeError as error:
                    self.watcher.note(f"the job could not be asked to {request} and is still running: {error.message}")
                    if self.run.state().refused is None:  # the service is away: the next look asks again
                        self.passed_on.discard(request)

    def _record_choice(self, status: JobStatus) -> bool:
        """Journal the hyperparameters that the provider chose, when its job reports them; returns whether that is news."""
        chosen = {**self.run.state().chosen, **status.chosen}
        if chosen == self.run.state().chosen:
            return False
        self.run.append("hyperparameters_chosen", job=self.handle.id, chosen=chosen)
        named = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
        self.watcher.note(f"chosen by the provider: {named}")
        return True

    def _copy_events(self) -> bool:
        """Journal what the job said since the last event in the journal; returns whether it said anything."""
        is_new = False
        for event in self.backend.events(self.handle, self.run.state().cursor):
            self.run.append(
                "job_event", sync=event.type != "metrics", **event.model_dump(mode="json", exclude_none=True)
            )
            self.watcher.job_event(event)
            is_new = True
        return is_new


class Quiet:
    """How long a job may neither change its state nor say anything (`openai.max_quiet_hours`); None is no limit."""

    def __init__(self, hours: float | None) -> None:
        self._hours, self._since = hours, time.monotonic()

    def hold(self, job: FollowedJob, *, is_new: bool) -> None:
        """Raise `JobStuck` when the limit is reached; the job itself is left as it is."""
        if is_new:
            self._since = time.monotonic()
        if self._hours is not None and time.monotonic() - self._since >= self._hours * 3600:
            raise JobStuck(
                f"{job.handle.id} has neither changed its state nor reported anything for {self._hours:g} hours "
                "(openai.max_quiet_hours); it is still running at the service.",
                hint=f"Keep waiting with: ftbridge resume {job.run.id}; or end it with: ftbridge cancel {job.run.id}",
            )


@dataclass(frozen=True)
class Look:
    """A run at one moment: the events since the last look, the state, and whether a process is driving it.

    A run whose state changed while it was looked at counts as driven, so `events` are all there are where `is_driven`
    is False.
    """

    events: Sequence[Event]
    state: RunState
    is_driven: bool


def looks(run: Run, after: int = 0) -> Iterator[Look]:
    """Yield a look at a run each time the caller comes back; events begin behind the sequence number `after`. Endless."""
    while True:
        state = run.state()
        is_driven = run.is_driven() or _origin_is_driven(run, state)
        events = [event for event in run.journal.read() if event.seq > after]
        after = events[-1].seq if events else after
        yield Look(events, state, is_driven or run.state() != state)


def _origin_is_driven(run: Run, state: RunState) -> bool:
    """Whether the run that fell back on this one is driven: its driver goes on to drive this one."""
    return state.continues is not None and Run(run.path.parent / state.continues.run).is_driven()
