"""Following a job: its state, and every event once and in order, through failures of any length.

    poll ──▶ due? ──no──▶ the state last seen
              │yes
              ▼
            GET job ──no answer──▶ the state last seen; look again later
              │
              ▼
            GET events, newest first, until a whole page is known ──▶ the run's ledger ──▶ events(after)

Nothing here waits: `PollingPace` says when to look, the caller's loop comes by. An event's id towards the caller is its place
in the ledger, so that what a service sends late, twice or out of order is reported once.
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from ftbridge import files
from ftbridge.errors import FtbridgeError
from ftbridge.http import aged
from ftbridge.providers.base import TERMINAL, JobError, JobEvent, JobStatus, Metrics
from ftbridge.providers.openai.client import Connection, items_of
from ftbridge.providers.openai.errors import ServiceFault, ServiceUnavailable, clean, error_of, fault_of, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.marks import reported
from ftbridge.providers.openai.jobs.results import metrics_of, parse_result_file, rewards_of
from ftbridge.providers.openai.jobs.twins import TwinWatch
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.retry import PollingPace, read
from ftbridge.providers.openai.sampling.answers import UNPAID, is_about_data
from ftbridge.providers.openai.settings import differences
from ftbridge.runs.journal import Event
from ftbridge.spec.sections import Hyperparameters

_STATES = {"validating_files": "validating", "pending": "queued", "notRunning": "queued", "canceled": "cancelled"}
"""Words of OpenAI's API and the run state that each means; any other word is kept."""
_PAGE = 100
_GONE_AFTER = 300.0
"""Seconds for which a job's 404 is waited out: reads may lag behind a creation, and one replica behind another."""
_GONE_LOOKS = 5
_EARLIEST_FINISH, _LATEST_FINISH = 1e9, 4e9
"""A time beyond it, in Unix seconds, is in milliseconds or no time."""


class Follower:
    """One job as one process follows it."""

    def __init__(self, at: Connection, ledger: Ledger, job: str) -> None:
        self._at, self._ledger, self._job = at, ledger, job
        self.pace = PollingPace()
        self._failing = False
        self._fetch = True
        self._last: JobStatus | None = None
        self._sends_validation: bool | None = None
        self._missing_since: float | None = None
        self._misses = 0
        self._twins = TwinWatch(at, ledger, job)

    def poll(self) -> JobStatus:
        """The job's state, asked of the service when it is time to. Raises only what asking again cannot fix."""
        if not self.pace.due:
            return self._last or self._remembered()
        try:
            job = require_fields(self._at.client.fine_tuning.jobs.retrieve(self._job), "status")
        except Exception as error:
            self._failed(fault_of(error))
            return self._last or self._remembered()
        self._answered()
        status = status_of(job).model_copy(update={"chosen": chosen_by(self._at.request, job)})
        self._compare_settings(job)
        before = self._last or self._remembered()
        if status.state != before.state:
            token_count = {} if status.trained_tokens is None else {"trained_tokens": status.trained_tokens}
            self._ledger.append("status", job=self._job, state=status.state, **token_count)
        self.pace.looked(changed=status.state != before.state)
        self._last, self._fetch = status, True
        self._twins.look(ended=status.state in TERMINAL)
        return status

    def events(self, after: str | None) -> Sequence[JobEvent]:
        """What the job said after `after`; asked of the service once for each look that `poll` took."""
        ended = self._last is not None and self._last.state in TERMINAL
        if self._fetch and self._at.target.events:
            self._fetch = False
            try:
                new_events = read(self._new, "reading the job's events", self._at.service, attempts=5 if ended else 1)
                self._ledger.add_events(self._job, new_events)
            except FtbridgeError as error:
                if ended or not isinstance(error, ServiceUnavailable):
                    self._say_once(f"the job's events could not be read: {error.message}")
        if ended and self._last is not None and self._last.state == "succeeded":
            self._add_results()
        seen = int(after or 0)
        return [_job_event(event) for event in self._ledger.of("event", "note") if event.seq > seen]

    def _new(self) -> list[dict[str, Any]]:
        """Events the ledger does not know, oldest first."""
        seen = {event.data.get("id") for event in self._ledger.of("event")}
        fresh: list[Any] = []
        known_in_a_row = 0
        jobs = self._at.client.fine_tuning.jobs
        for event in items_of(lambda more: jobs.list_events(self._job, limit=_PAGE, **more)):
            known_in_a_row = known_in_a_row + 1 if getattr(event, "id", None) in seen else 0
            if known_in_a_row == 0:
                fresh.append(event)
            if known_in_a_row >= _PAGE:
                break
        fresh.reverse()
        fresh.sort(key=_time)
        return [event for event in _with_ids(_told(event) for event in fresh) if event["id"] not in seen]

    def _add_results(self) -> None:
        """Steps that only the result file tells, once."""
        if not self._at.target.result_files or self._ledger.last("results", job=self._job) is not None:
            return
        try:
            rows = read(self._rows, "reading the result file", self._at.service, attempts=3)
        except FtbridgeError as error:
            self._say_once(f"the result file could not be read: {error.message}")
            rows = []
        known_steps = {(event.data.get("metrics") or {}).get("step") for event in self._ledger.of("event")}
        total = max((row.step for row in rows), default=None)
        new = [row.model_copy(update={"total_steps": total}) for row in rows if row.step not in known_steps]
        self._ledger.add_events(self._job, (_told_row(self._job, row) for row in new))
        self._ledger.append("results", job=self._job, rows=len(rows))

    def _rows(self) -> list[Metrics]:
        job = require_fields(self._at.client.fine_tuning.jobs.retrieve(self._job), "status")
        rows: list[Metrics] = []
        for file in getattr(job, "result_files", None) or []:
            rows += parse_result_file(self._at.client.files.content(file).read())
        return rows

    def _remembered(self) -> JobStatus:
        recorded = self._ledger.last("status", job=self._job)
        return JobStatus(state=str(recorded.data["state"]) if recorded is not None else "queued")

    def _failed(self, fault: ServiceFault) -> None:
        if fault.kind == "missing" and not self._is_gone():
            self.pace.failed(fault)
            return
        if fault.kind not in ("lost", "foreign", "later", "not_ready"):
            error = error_of(fault, f"following the job {self._job}", self._at.service)
            error.hint = f"{error.hint or ''} The job itself is still running at the service.".strip()
            raise error
        self.pace.failed(fault)
        if not self._failing:
            self._failing = True
            self._note("warn", f"{self._at.service} does not respond ({fault.message}); trying again until it does")

    def _is_gone(self) -> bool:
        """Whether a job that is not there has been missing for so long, and so often, that it will not come."""
        self._misses += 1
        self._missing_since = self._missing_since or time.time()
        return self._misses >= _GONE_LOOKS and aged(self._missing_since, _GONE_AFTER)

    def _answered(self) -> None:
        self._missing_since, self._misses = None, 0
        if self._failing:
            self._failing = False
            self._note("info", f"{self._at.service} responds again")

    def _compare_settings(self, job: Any) -> None:
        """Say, once, that the job trains with other settings than were asked."""
        if self._sends_validation is None:
            try:
                written = json.loads((self._ledger.folder / "submission.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                written = {}
            self._sends_validation = written.get("validation") is not None
        if other := differences(self._at.request.body, job, validation=self._sends_validation):
            self._say_once(f"the service reports other settings than were requested: {'; '.join(other)}")

    def _say_once(self, message: str) -> None:
        if self._ledger.last("note", message=clean(message)) is None:
            self._note("warn", message)

    def _note(self, level: str, message: str) -> None:
        self._ledger.append("note", level=level, message=clean(message))


def status_of(job: Any) -> JobStatus:
    """A job object as a status. An error that is null, empty, or an object full of nulls is none."""
    state = str(job.status)
    state = _STATES.get(state, state)
    error = _error_of(getattr(job, "error", None))
    if state == "failed" and error is None:
        error = JobError(kind="training_failed", message="the service reports that the job failed, without a reason.")
    token_count, finish = getattr(job, "trained_tokens", None), getattr(job, "estimated_finish", None)
    return JobStatus(
        state=state,
        error=error if state == "failed" else None,
        trained_tokens=token_count if isinstance(token_count, int) else None,
        estimated_finish=_moment(finish),
    )


def chosen_by(request: OpenAIRequest, job: Any) -> dict[str, int | float]:
    """Hyperparameters that the request leaves to the service, as the job reports them: numbers above 0, once they are there.

    Services write what is not chosen yet as "auto", null, 0 or -1.
    """
    chosen = {}
    for name in Hyperparameters.model_fields:
        value = reported(job, name)
        if request.hyperparameters.get(name, "auto") == "auto" and value is not None and 0 < value < math.inf:
            chosen[name] = value
    return chosen


def _moment(value: Any) -> float | None:
    """A time in Unix seconds, where a service tells one that can be: 0 is "not known", and some tell milliseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _EARLIEST_FINISH < value < math.inf:
        return None
    seconds = value / 1000 if value > _LATEST_FINISH else float(value)
    return seconds if seconds <= _LATEST_FINISH else None


def _time(event: Any) -> float:
    """When an event happened, in Unix seconds; 0 where its time is missing or written another way that is not known."""
    value = getattr(event, "created_at", None)
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        except ValueError:
            return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        return 0.0
    return float(value)


def _with_ids(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Events, oldest first; one that has no id is named by what it says, and by how often that was said before."""
    counts: Counter[str] = Counter()
    for event in events:
        if event["id"] is None:
            digest = files.sha256_bytes(json.dumps(event, sort_keys=True, default=str).encode())[:24]
            counts[digest] += 1
            event = {**event, "id": f"unnamed-{digest}-{counts[digest]}"}
        yield event


def _error_of(error: Any) -> JobError | None:
    if error is None or isinstance(error, (str, list)):
        return JobError(kind="training_failed", message=clean(error)) if error else None
    fields = (
        error
        if isinstance(error, dict)
        else {name: getattr(error, name, None) for name in ("code", "message", "param")}
    )
    code, message, param = fields.get("code"), fields.get("message"), fields.get("param")
    if not (code or message):
        return None
    text = clean(message or "no message")
    told_code = f" [{code}{f', {param}' if param else ''}]" if code else ""
    sentence = f"the service ended the job{told_code}: {text}"
    if is_about_data(code and str(code), param and str(param), text):
        hint = "Fix the data and start a new run; `ftbridge lint` names the lines."
        return JobError(kind="data_error", message=sentence, hint=hint)
    if code in UNPAID:
        return JobError(
            kind="provider_refused", message=sentence, hint="Check the plan and the billing of this account."
        )
    return JobError(kind="training_failed", message=sentence)


def _told(event: Any) -> dict[str, Any]:
    """A service's event as the ledger keeps it: no more of it than the contract knows."""
    data = getattr(event, "data", None)
    data = data if isinstance(data, dict) else {}
    metrics = metrics_of(data) if getattr(event, "type", None) == "metrics" else None
    rewards = rewards_of(data)
    message = clean(getattr(event, "message", "") or "")
    level = getattr(event, "level", "info")
    return {
        "id": str(event.id) if getattr(event, "id", None) is not None else None,
        "created_at": _time(event),
        "level": level if level in ("warn", "error") else "info",
        "message": f"{message} ({rewards})" if rewards else message,
        "metrics": metrics.model_dump(exclude_none=True) if metrics is not None and not rewards else None,
    }


def _told_row(job: str, row: Metrics) -> dict[str, Any]:
    event = {"id": f"{job}/step/{row.step}", "created_at": 0.0, "level": "info", "message": f"step {row.step}"}
    return {**event, "metrics": row.model_dump(exclude_none=True)}


def _job_event(event: Event) -> JobEvent:
    data = event.data
    metrics = data.get("metrics")
    level: Literal["info", "warn", "error"] = data.get("level", "info")
    return JobEvent(
        id=str(event.seq),
        time=data.get("created_at") or event.time,
        level=level,
        type="metrics" if metrics else "message",
        message=data.get("message", ""),
        metrics=Metrics(**metrics) if metrics else None,
    )


def checkpoints_of(listed: Iterable[Any]) -> list[str]:
    """Names of checkpoints by step: the model name where one is served, else the checkpoint's id."""
    ordered = sorted(listed, key=lambda checkpoint: getattr(checkpoint, "step_number", 0) or 0)
    return [str(getattr(checkpoint, "fine_tuned_model_checkpoint", None) or checkpoint.id) for checkpoint in ordered]
