"""A provider whose workers a scheduler starts: everything of it that does not depend on which scheduler that is.

What a job is (request, records, checkpoints, tuned weights, sampling, export) is the local provider's. Here is what differs:
how a worker gets onto a machine, how its end is noticed, and what Ctrl-C means.

    state of a job = the worker's last record of this launch, if it ended there
                     else what the scheduler shows: queued, running
                     else (it is gone) what was requested of it, or why it is gone
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ftbridge import http
from ftbridge.errors import InDoubt, ProviderRefused, ServiceUnavailable
from ftbridge.providers.base import (
    Capabilities,
    JobError,
    JobEvent,
    JobHandle,
    JobStatus,
    Submission,
)
from ftbridge.providers.cluster.launches import Launch, Launches
from ftbridge.providers.cluster.node import CLOCK_SECONDS
from ftbridge.providers.cluster.scheduler import Ending, Order, Scheduler, View
from ftbridge.providers.local.inference.sampler import MODULE
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.provider import LocalProvider, reported_status
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runs.journal import Event
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering, Outcome
from ftbridge.spec.resolve import ResolvedSpec
from ftbridge.spec.sections import SpecModel

LOOK_SECONDS = 10.0
"""Seconds between two questions to the scheduler about one job: sites limit how often it may be asked."""
_CHECK_HERE = {"device": "auto", "precision": "auto"}
"""What of a request is for the nodes' device, which the machine that submits need not have."""


class ClusterProvider(LocalProvider):
    """Trains on a cluster over a shared run folder. A subclass names itself and its scheduler."""

    name: str
    on_interrupt: Literal["pause", "detach"] = "detach"

    def __init__(self) -> None:
        super().__init__()
        self._views: dict[str, tuple[float, int, View]] = {}
        self._silent: set[str] = set()

    @abstractmethod
    def scheduler(self, launch: dict[str, Any]) -> Scheduler:
        """The scheduler for a request's `launch`, which is this provider's section of the spec."""

    @abstractmethod
    def notes(self, spec: JobSpec) -> dict[str, tuple[Outcome, Any, str]]:
        """Fields of this provider's section whose mapping is more than "as given": outcome, value and how."""

    @abstractmethod
    def machines(self, spec: JobSpec) -> tuple[int, int]:
        """Nodes that the spec requests, and GPUs of each; 0 GPUs trains on CPUs."""

    def section(self, spec: JobSpec) -> SpecModel:
        """This provider's section of the spec."""
        section: SpecModel = getattr(spec, self.name)
        return section

    def capabilities(self, spec: JobSpec) -> Capabilities:
        """As on this machine, where its models are exported too; `resume` submits a job that ended again."""
        nodes, gpus = self.machines(spec)
        changes = {"restart": True, "nodes": nodes, "gpus_per_node": gpus}
        return super().capabilities(spec).model_copy(update=changes)

    def lower(self, spec: ResolvedSpec) -> Lowering:
        """The local provider's request and mapping, with this provider's section as the request's `launch`."""
        local = super().lower(spec)
        section, prefix = self.section(spec.spec), f"{self.name}."
        notes = self.notes(spec.spec)
        fallback = spec.spec.fallback
        if fallback in (None, self.name):
            notes["fallback"] = ("unused", None, f"the first provider is already {self.name}" * (fallback is not None))
        else:
            notes["fallback"] = ("exact", fallback, "a new run there with the same bytes, if training here fails")
        reports = [
            _report(report, notes.get(report.field))
            if report.field.startswith(prefix) or report.field in notes
            else report
            for report in local.fields
        ]
        request = LocalRequest.of(local.request).model_copy(update={"launch": section.model_dump(mode="json")})
        return Lowering(provider=self.name, request=request, fields=reports).complete(spec.spec)

    def preflight(self, submission: Submission, progress: Callable[[str], None]) -> None:
        """The scheduler would take the job, and what the local provider checks of model and data; not this machine's device."""
        request = LocalRequest.of(submission.request)
        self.scheduler(request.launch).check(_order(submission.folder, "preflight"), progress)
        checked = request.model_copy(update=_CHECK_HERE)
        super().preflight(submission.model_copy(update={"request": checked}), progress)

    def submit(self, submission: Submission) -> JobHandle:
        """Submit the job to the scheduler, unless its token is known."""
        job, launches = Job(submission.folder), Launches(submission.folder)
        if not (job.submitted and job.submission().token == submission.token):
            job.own_folder.mkdir(parents=True, exist_ok=True)
            job.write(submission)
        with launches.lock() as lock:
            if self._settled(job, launches) is None:
                self._launch(job, launches, lock)
        return self._handle(submission)

    def find(self, submission: Submission) -> JobHandle | None:
        """The job with this token, looked for at the scheduler where a submission was cut short."""
        job, launches = Job(submission.folder), Launches(submission.folder)
        if not job.submitted or job.submission().token != submission.token:
            return None
        with launches.lock():
            try:
                launch = self._settled(job, launches)
            except ServiceUnavailable as error:
                raise InDoubt(
                    f"{submission.folder.name} may have a job: {error.message}",
                    hint=error.hint or "Resume the run when the scheduler responds again.",
                ) from error
        return None if launch is None else self._handle(submission)

    def doubt(self, submission: Submission) -> str | None:
        """A submission that was begun and whose job's id is not known."""
        launch = Launches(submission.folder).last()
        if launch is None or not launch.in_doubt:
            return None
        return f"a job named {launch.name} may have been submitted"

    def forget(self, submission: Submission) -> None:
        """Count a submission that is in doubt as none; should its job run after all, it ends at once."""
        launches = Launches(submission.folder)
        launch = launches.last()
        if launch is not None and launch.in_doubt:
            launches.journal.append("forgotten")

    def poll(self, handle: JobHandle) -> JobStatus:
        """What the worker recorded, else what the scheduler shows."""
        job, launches = Job(handle.folder), Launches(handle.folder)
        try:
            launch = self._known(job, launches)
        except ServiceUnavailable:  # whether there is a job is found out when the scheduler answers
            return JobStatus(state="queued")
        if launch is None or launch.job is None:  # it was not submitted again: `resume` does that
            return JobStatus(state="paused")
        events = job.journal.read()
        attempt, status = _attempt(events, launch)
        self._compare_clocks(launches, launch, attempt)
        is_requeued = job.is_requeued() and status is not None and status.state in ("paused", "failed")
        if status is not None and status.state != "running" and not is_requeued:
            return status
        view = self._view(handle, launches, launch, seen=attempt.seq if attempt else 0)
        if view is None:  # the scheduler does not answer: the worker's records go on
            return _running(job) if status is not None and status.state == "running" else JobStatus(state="queued")
        if view.state == "queued":
            # Ray cannot stop a job that waits; its node does nothing once somebody asked for that.
            return JobStatus(state=_requested_state(launch) if launch.stopped and attempt is None else "queued")
        if view.state == "running":
            return _running(job)
        again = job.journal.read()
        if len(again) != len(events):
            return self.poll(handle)  # it ended between the two looks
        return self._gone(job, launch, view, status, started=attempt is not None)

    def events(self, handle: JobHandle, after: str | None) -> Sequence[JobEvent]:
        """What the worker recorded and what the scheduler showed, by time. An id is "W.L": how far both journals were read."""
        worker_seen, launches_seen = (int(part) for part in (after or "0.0").split("."))
        launch_events = [
            (event, shown)
            for event in Launches(handle.folder).journal.read()
            if event.seq > launches_seen and (shown := self._shown(event)) is not None
        ]
        merged = [(shown.time, shown, 0, event.seq) for event, shown in launch_events]
        merged += [(shown.time, shown, int(shown.id), 0) for shown in super().events(handle, str(worker_seen))]
        merged.sort(key=lambda entry: entry[0])
        events = []
        for _, shown, worker_seq, launch_seq in merged:
            worker_seen, launches_seen = max(worker_seen, worker_seq), max(launches_seen, launch_seq)
            events.append(shown.model_copy(update={"id": f"{worker_seen}.{launches_seen}"}))
        return events

    def resume(self, handle: JobHandle) -> JobHandle:
        """Submit the job again, to go on from the newest whole checkpoint; one that is queued or running goes on as it is."""
        job, launches = Job(handle.folder), Launches(handle.folder)
        self._views.pop(handle.id, None)
        if self.poll(handle).state not in ("paused", "failed", "cancelled"):
            return handle
        with launches.lock() as lock:
            job.clear_control()
            self._views.pop(handle.id, None)
            self._launch(job, launches, lock)
        return handle

    def _sampling_command(self, request: LocalRequest, folder: Path) -> list[str] | None:
        """The scheduler's, where it can attach a process on a node."""
        return self.scheduler(request.launch).attached(MODULE, f"{folder.name}-completions")

    def _launch(self, job: Job, launches: Launches, lock: int) -> None:
        """Submit once more: the intent first, with the name that the job will carry."""
        launch = launches.intend(job.submission().token, job.log_path)
        order = _order(job.folder, launch.name, lock)
        try:
            submitted = self._scheduler(job).submit(order)
        except ProviderRefused:
            launches.journal.append("refused")
            raise
        launches.journal.append("submitted", job=submitted)

    def _known(self, job: Job, launches: Launches) -> Launch | None:
        """The newest launch as `_settled` has it; the lock is taken only where a submission is in doubt."""
        launch = launches.last()
        if launch is None or not launch.in_doubt:
            return launch
        with launches.lock():
            return self._settled(job, launches)

    def _settled(self, job: Job, launches: Launches) -> Launch | None:
        """The newest launch, its job's id looked for where it is not known; None where there is no job."""
        launch = launches.last()
        if launch is None or launch.void:
            return None
        if launch.job is not None:
            return launch
        attempt, _ = _attempt(job.journal.read(), launch)
        job_id = str(attempt.data["job"]) if attempt else self._scheduler(job).find(_order(job.folder, launch.name))
        if job_id is None:
            launches.journal.append("refused")
            return None
        launches.journal.append("submitted", job=job_id)
        return launches.last()

    def _stop(self, handle: JobHandle, request: Literal["pause", "cancel"], ended: str) -> None:
        """Ask the worker by its control file, and end at the scheduler what has no worker yet, or is to be cancelled."""
        del ended
        job, launches = Job(handle.folder), Launches(handle.folder)
        launch = self._known(job, launches)
        if launch is None or launch.job is None:
            return
        if launch.requested != request:
            launches.journal.append("requested", request=request)
        job.ask(request)
        scheduler = self._scheduler(job)
        if request == "cancel" or scheduler.look(_order(job.folder, launch.name), launch.job).state == "queued":
            scheduler.stop(launch.job)
            launches.journal.append("stopped")
        self._views.pop(handle.id, None)

    def _view(self, handle: JobHandle, launches: Launches, launch: Launch, seen: int) -> View | None:
        """The job as the scheduler shows it, asked now and then and at each new attempt; None when it does not answer."""
        assert launch.job is not None
        at, last_seen, view = self._views.get(handle.id, (0.0, -1, None))
        if view is not None and last_seen == seen and time.monotonic() - at < http.scaled(LOOK_SECONDS):
            return view
        try:
            view = self._scheduler(Job(handle.folder)).look(_order(handle.folder, launch.name), launch.job)
        except ServiceUnavailable as error:
            if handle.id not in self._silent:
                self._silent.add(handle.id)
                text = f"{error.message} Meanwhile the worker's own records are followed."
                launches.journal.append("message", text=text, level="warn")
            return None
        if handle.id in self._silent:
            self._silent.discard(handle.id)
            launches.journal.append("message", text="the scheduler responds again", level="info")
        self._views[handle.id] = (time.monotonic(), seen, view)
        if view != launch.view:
            launches.journal.append("viewed", view=view.model_dump(mode="json"))
        return view

    def _gone(self, job: Job, launch: Launch, view: View, recorded: JobStatus | None, *, started: bool) -> JobStatus:
        """The state of a job whose scheduler has ended it, and whose worker recorded no end, or one by a signal."""
        if launch.requested is not None:
            return JobStatus(state=_requested_state(launch))
        if view.ending == "cancelled":
            return JobStatus(state="cancelled")
        if recorded is not None and recorded.state == "failed":
            return recorded
        assert launch.job is not None
        scheduler, tail = self._scheduler(job), job.log_tail(start=launch.log_start)
        if not tail:
            with contextlib.suppress(ServiceUnavailable):
                tail = scheduler.log_tail(launch.job)
        last = f" Its last line was: {tail[-1]}" if tail else ""
        which = f"{scheduler.title} job {launch.job}"
        has_checkpoint = any((job.folder / "checkpoints").glob("step-*"))
        if job.is_requeued() or (view.ending == "time_limit" and has_checkpoint):
            return JobStatus(
                state="paused",
                error=JobError(
                    kind="training_failed",
                    message=f"{which} ended at its time limit, or its node was taken back: {view.summary()}.",
                    hint="What was trained is kept.",
                ),
            )
        if not started:
            return JobStatus(state="failed", error=_never_began(which, view, tail, launch, job))
        kind, what = _CAUSES[view.ending or "failed"]
        return JobStatus(
            state="failed",
            error=JobError(
                kind=kind,
                message=f"{which} {what}: {view.summary()}.{last}",
                hint=f"Resuming continues from the last checkpoint. Log: {job.log_path}",
            ),
        )

    def _compare_clocks(self, launches: Launches, launch: Launch, attempt: Event | None) -> None:
        """Say once where a node's clock is ahead of this one; behind, the node says so itself."""
        if attempt is None or (ahead := attempt.time - time.time()) <= CLOCK_SECONDS:
            return
        host = attempt.data.get("host")
        text = f"the clock of {host} is at least {ahead:.0f} s ahead of this machine's; times and hours are off by that"
        if not any(event.type == "message" and event.data.get("host") == host for event in launches.journal.read()):
            launches.journal.append("message", text=text, level="warn", host=host)

    def _shown(self, event: Event) -> JobEvent | None:
        """An event of the launches as a job event; None where it is for this program alone."""
        data: dict[str, Any] = event.data
        common: dict[str, Any] = {"id": str(event.seq), "time": event.time}
        if event.type == "submitted":
            return JobEvent(**common, message=f"submitted as job {data['job']}")
        if event.type == "viewed":
            return JobEvent(**common, message=f"scheduler: {View.model_validate(data['view']).summary()}")
        if event.type == "message":
            return JobEvent(**common, level=data["level"], message=data["text"])
        return None

    def _scheduler(self, job: Job) -> Scheduler:
        return self.scheduler(job.request().launch)

    def _handle(self, submission: Submission) -> JobHandle:
        return JobHandle(provider=self.name, id=submission.token, folder=submission.folder)


_CAUSES: dict[Ending, tuple[str, str]] = {
    "completed": ("worker_died", "ended without a record from its worker"),
    "failed": ("worker_died", "ended without a record from its worker"),
    "cancelled": ("worker_died", "was cancelled"),
    "time_limit": ("training_failed", "reached its time limit before the first checkpoint"),
    "out_of_memory": ("out_of_memory", "was given less memory than it needed"),
    "node_failed": ("worker_died", "lost its node"),
    "lost": ("worker_died", "is gone from the scheduler, without a record from its worker"),
}
"""Kind of the error, and what happened, of a job that ended without the worker's record."""


def _order(folder: Path, name: str, lock: int | None = None) -> Order:
    return Order(name=name, folder=folder.resolve(), job_name=folder.name, lock=lock)


def _attempt(events: Sequence[Event], launch: Launch) -> tuple[Event | None, JobStatus | None]:
    """The newest attempt of a launch that the node recorded, and the state that its worker recorded since."""
    index = next((index for index in reversed(range(len(events))) if events[index].type == "attempt"), None)
    if index is None or events[index].data.get("launch") != launch.name:
        return None, None
    return events[index], reported_status(events[index:])


def _requested_state(launch: Launch) -> Literal["paused", "cancelled"]:
    return "cancelled" if launch.requested == "cancel" else "paused"


def _running(job: Job) -> JobStatus:
    return JobStatus(state="pausing" if job.requested() == "pause" and not job.is_requeued() else "running")


def _never_began(which: str, view: View, tail: Sequence[str], launch: Launch, job: Job) -> JobError:
    """Why a job ended before its worker began: what it wrote; and, with nothing in its log, that nodes must see the folder."""
    message = f"{which} ended before training began: {view.summary()}."
    if tail:
        message += f" Its last line was: {tail[-1]}"
    if job.log_tail(start=launch.log_start):
        return JobError(kind="worker_died", message=message, hint=f"Log: {job.log_path}")
    hint = f"It wrote nothing to {job.log_path}. Nodes must see this folder under the same path: point FTBRIDGE_HOME at storage"
    return JobError(kind="worker_died", message=message, hint=f"{hint} that they share.")


def _report(report: FieldReport, note: tuple[Outcome, Any, str] | None) -> FieldReport:
    if note is not None:
        outcome, value, how = note
    elif report.requested is None or report.requested == [] or report.requested == {}:
        outcome, value, how = "unused", None, "not given"
    else:
        outcome, value, how = "exact", report.requested, ""
    return report.model_copy(update={"outcome": outcome, "sent": value, "how": how})
