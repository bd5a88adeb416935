"""A run: its folder, its journal, and the state that folding the journal gives.

journal.jsonl ──▶ events ──▶ fold ──▶ RunState        docs/run-folder.md lists the files, the events and the locks
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ftbridge import __version__, files
from ftbridge.data.manifest import Manifest, Split, SplitName
from ftbridge.errors import JournalCorrupt, RunBusy, RunNotFound
from ftbridge.runs.journal import Event, Journal
from ftbridge.runs.metrics import Metrics, metrics_of
from ftbridge.runs.records import ErrorDocument, JobHandle, Origin, Refusal, Replayed, TunedModel
from ftbridge.spec import JobSpec, parse
from ftbridge.spec.lowering import Lowering
from ftbridge.spec.resolve import ResolvedSpec, Settled
from ftbridge.spec.sections import BudgetSpec

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""States in which nothing happens any more. `succeeded` is final; the others end with `resume_requested`."""
_SUFFIXES = (".yaml", ".yml", ".toml", ".json")


@dataclass(frozen=True)
class RunState:
    """A run now, derived from its events alone. Times are Unix seconds.

    `state` is prepared, validating, queued, running, pausing, paused, succeeded, failed, cancelled, or a service's own word.
    `metrics` holds the latest value of each figure, None before the first; `best_valid_loss` the lowest (nats per trained
    token), `cursor` the last job event seen, `evaluated` the candidates whose completions are complete. `continues` is the run
    that this one fell back from, `continued_by` the id of the one that took over. `chosen` are hyperparameters, by name, that
    the spec left to the provider and that its job reports. `replay` is what was made of the prompts of data.replay. `budget`
    replaces the spec's, `waived` are the gates that were waived, `refused` is a cancel or pause that the service refused,
    `retried` the job that is to be paid for again. `error` without a state of `failed` is why the driver stopped while a paid
    job went on, or may have.
    """

    id: str = ""
    name: str = ""
    provider: str = ""
    state: str = "prepared"
    stage: str = "preparing"
    created: float = 0.0
    updated: float = 0.0
    finished: float | None = None
    data: Manifest | None = None
    token: str | None = None
    handle: JobHandle | None = None
    cursor: str | None = None
    metrics: Metrics | None = None
    best_valid_loss: float | None = None
    tuned: TunedModel | None = None
    error: ErrorDocument | None = None
    evaluated: frozenset[str] = frozenset()
    continues: Origin | None = None
    continued_by: str | None = None
    budget: BudgetSpec | None = None
    waived: frozenset[str] = frozenset()
    replay: Replayed | None = None
    cancel_requested: bool = False
    pause_requested: bool = False
    refused: Refusal | None = None
    retried: str | None = None
    chosen: dict[str, int | float] = field(default_factory=dict)

    def split(self, name: SplitName) -> Split | None:
        """A split of the prepared data; None before it is prepared, and where the spec has none of it."""
        return self.data.splits.get(name) if self.data is not None else None

    @property
    def train_sha256(self) -> str | None:
        """The SHA-256 of the bytes that the run trains on; None before they are prepared."""
        train = self.split("train")
        return train.sha256 if train is not None else None

    @property
    def step(self) -> int | None:
        """Optimizer steps done."""
        return self.metrics.step if self.metrics is not None else None

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps to do."""
        return self.metrics.total_steps if self.metrics is not None else None


def fold(events: Sequence[Event], state: RunState | None = None) -> RunState:
    """The state after `events`, from the beginning or on top of `state`. Pure.

    Types it does not know are passed over. Raises `JournalCorrupt` for a known one without its fields.
    """
    state = state or RunState()
    for event in events:
        try:
            changes = _changes(state, event)
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise JournalCorrupt(f"line {event.seq}, event {event.type}, lacks a required field: {error}.") from None
        if state.state == "succeeded":  # what comes late, such as a cancel in the same moment, cannot undo it
            changes = {name: value for name, value in changes.items() if name not in _STANDING}
        state = replace(state, updated=event.time, **changes)
    return state


_STANDING = frozenset({"state", "stage", "finished", "error"})


def _changes(state: RunState, event: Event) -> dict[str, Any]:
    """The fields of the state that an event sets."""
    data = event.data
    match event.type:
        case "created":
            return {"id": data["id"], "name": data["name"], "provider": data["provider"], "created": event.time}
        case "prepared":
            return {"data": Manifest.model_validate(data["data"])}
        case "evaluating":
            running = state.state if state.state in TERMINAL else "running"
            return {"stage": f"generating completions with {data['candidate']}", "state": running}
        case "evaluated":
            return {"evaluated": state.evaluated | {data["candidate"]}}
        case "replay_written":
            return {"replay": Replayed.model_validate(data)}
        case "submit_intended":
            return {"token": data["token"], "stage": "training", "state": "queued"}
        case "submitted":
            return {
                "handle": JobHandle.model_validate(data["handle"]),
                "stage": "training",
                "state": "queued",
                "error": None,
                "chosen": {},
            }
        case "hyperparameters_chosen":
            return {"chosen": dict(data["chosen"])}
        case "status":
            # A job that ended has not ended the run: the evaluation, or the driver's own event, does.
            return {"state": "running" if data["state"] in TERMINAL else data["state"], "stage": "training"}
        case "job_event":
            return _of_job(state, event)
        case "cancel_requested" | "pause_requested":
            return {event.type: True, "refused": None}
        case "request_refused":
            refusal = Refusal(request=data["request"], reason=data["reason"])
            return {f"{data['request']}_requested": False, "refused": refusal}
        case "stopped":
            return {"error": data["error"]}
        case "retry_requested":
            return {"retried": data["job"]}
        case "resume_requested":
            asked_no_more = {"cancel_requested": False, "pause_requested": False, "refused": None}
            return {"state": "queued", "error": None, "finished": None, **asked_no_more}
        case "result":
            return {"tuned": TunedModel.model_validate(data["model"]), "state": "running"}
        case "continues":
            return {"continues": Origin(run=data["run"], provider=data["provider"], reason=data["reason"])}
        case "continued_by":
            return {"continued_by": data["run"]}
        case "budget_changed":
            return {"budget": BudgetSpec.model_validate(data["budget"])}
        case "gate_waived":
            return {"waived": state.waived | {data["gate"]}}
        case "succeeded" | "failed" | "cancelled" | "paused":
            return _at_rest(event)
        case _:
            return {}


def _at_rest(event: Event) -> dict[str, Any]:
    """The fields that an event sets after which nothing is done until somebody asks for it."""
    match event.type:
        case "succeeded":
            return {"state": "succeeded", "stage": "done", "error": None, "finished": event.time}
        case "failed":
            return {"state": "failed", "error": event.data["error"], "finished": event.time}
        case "paused":
            return {"state": "paused", "error": event.data.get("error"), "finished": None}
        case _:
            return {"state": "cancelled", "finished": event.time}


def _of_job(state: RunState, event: Event) -> dict[str, Any]:
    """The fields that something a job said sets: where to go on reading, and its figures, if it reported any."""
    if (metrics := metrics_of(event)) is None:
        return {"cursor": event.data["id"]}
    losses = [loss for loss in (state.best_valid_loss, metrics.valid_loss) if loss is not None]
    return {
        "cursor": event.data["id"],
        "metrics": metrics.after(state.metrics),
        "best_valid_loss": min(losses, default=None),
    }


class Run:
    """A run folder. Reading never changes it; writing goes through the journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self._folded: tuple[int, Event | None, RunState] = (0, None, RunState())

    @classmethod
    def create(cls, home: Path, *, name: str, provider: str, spec_text: str, spec_suffix: str) -> Run:
        """Make `home/runs/NAME-PROVIDER-YYYYMMDD-xxxx`, whole or not at all: it is built aside and renamed.

        `spec_suffix` says how `spec_text` is written: .yaml, .yml, .toml or .json. Raises `DiskFull`.
        """
        suffix = spec_suffix.lower() if spec_suffix.lower() in _SUFFIXES else ".yaml"
        digest = files.sha256_bytes(spec_text.encode())
        runs = home / "runs"
        while True:
            run_id = f"{name}-{provider}-{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}"
            with files.scratch_folder(runs) as scratch, files.disk_full_is_an_error(runs):
                scratch_run = cls(scratch / run_id)
                scratch_run.path.mkdir()
                files.write_text(scratch_run.path / f"spec{suffix}", spec_text)
                scratch_run.append(
                    "created", id=run_id, name=name, provider=provider, spec_sha256=digest, version=__version__
                )
                try:
                    scratch_run.path.rename(runs / run_id)
                except OSError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                        continue  # the id is taken; draw another
                    raise
                files.sync_folder(runs)
            return cls(runs / run_id)

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in this folder. Raises `RunNotFound` when it is none."""
        if not (path / "journal.jsonl").exists():
            raise RunNotFound(f"{path} is not a run folder: it has no journal.jsonl.")
        return cls(path.resolve())

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.path.name

    @property
    def journal_path(self) -> Path:
        """Everything that happened."""
        return self.journal.path

    @property
    def spec_path(self) -> Path:
        """The spec as given. Raises `RunNotFound` when the folder has none."""
        for suffix in _SUFFIXES:
            if (path := self.path / f"spec{suffix}").exists():
                return path
        raise RunNotFound(f"{self.path} contains no spec.yaml, spec.toml or spec.json.")

    @property
    def resolved_path(self) -> Path:
        """The spec with every "auto" settled, and why."""
        return self.path / "resolved.json"

    @property
    def lowering_path(self) -> Path:
        """The outcome of each field at the provider."""
        return self.path / "lowering.json"

    @property
    def data(self) -> Path:
        """Canonical splits and their manifest."""
        return self.path / "data"

    @property
    def questions(self) -> Path:
        """What retention asks, where the spec wants it."""
        return self.data / "retention.jsonl"

    @property
    def plan_path(self) -> Path:
        """What was planned before anything was spent."""
        return self.path / "plan.json"

    @property
    def checkpoints(self) -> Path:
        """What training saved on its way."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def evaluation_path(self) -> Path:
        """The result of the evaluation."""
        return self.path / "evaluation.json"

    @property
    def grades_path(self) -> Path:
        """What judges were asked and said."""
        return self.path / "grades.jsonl"

    @property
    def scores_path(self) -> Path:
        """The score of every completion by every grader."""
        return self.path / "scores.jsonl"

    def predictions(self, candidate: str) -> Path:
        """A candidate's answers, one JSON line for each. What a file name cannot hold is percent-encoded."""
        return self.path / "predictions" / f"{quote(candidate, safe=' ')}.jsonl"

    def spec(self) -> JobSpec:
        """The spec as given, parsed."""
        path = self.spec_path
        return JobSpec.from_dict(parse(path.read_text(encoding="utf-8-sig"), path.suffix, str(path)), where=str(path))

    def resolved_spec(self) -> JobSpec:
        """The spec with every general "auto" settled, as recorded in resolved.json."""
        document = json.loads(self.resolved_path.read_text(encoding="utf-8"))
        document.pop("settled", None)
        return JobSpec.from_dict(document, where=str(self.resolved_path))

    def settled(self) -> list[Settled]:
        """How each "auto" was settled, as recorded in resolved.json; [] before that, and for runs of version 0.1."""
        if not self.resolved_path.exists():
            return []
        document = json.loads(self.resolved_path.read_text(encoding="utf-8"))
        return [Settled.model_validate(entry) for entry in document.get("settled", [])]

    @property
    def planned_epochs(self) -> int:
        """Passes over the training data that plan and budget reckon with, whatever the service chooses."""
        return ResolvedSpec(spec=self.resolved_spec(), settled=self.settled()).planned("n_epochs")

    @property
    def epochs(self) -> int:
        """Passes over the training data: those that the service chose and reported, or else those planned."""
        chosen = self.state().chosen.get("n_epochs")
        return self.planned_epochs if chosen is None else int(chosen)

    def field_mapping(self) -> Lowering | None:
        """The outcome of each field at the provider, with what that chose; None for a run that was stopped before it."""
        if not self.lowering_path.exists():
            return None
        lowering = Lowering.model_validate_json(self.lowering_path.read_text(encoding="utf-8"))
        return lowering.with_chosen(self.state().chosen)

    def append(self, type: str, /, *, sync: bool = True, **data: Any) -> Event:
        """Journal one event."""
        return self.journal.append(type, sync=sync, **data)

    def state(self) -> RunState:
        """The state now, with what other processes appended. Raises `JournalCorrupt`."""
        events = self.journal.read()
        seen, last, state = self._folded
        if seen and (len(events) < seen or events[seen - 1] is not last):  # a failed append took its line back
            seen, state = 0, RunState()
        try:
            state = fold(events[seen:], state)
        except JournalCorrupt as error:
            raise JournalCorrupt(f"{self.journal_path}, {error.message}") from None
        if state.handle is not None and state.handle.folder != self.path:  # the folder was moved since
            state = replace(state, handle=state.handle.model_copy(update={"folder": self.path}))
        self._folded = (len(events), events[-1] if events else None, state)
        return state

    @contextmanager
    def drive(self) -> Iterator[None]:
        """Hold the driver's lock; the kernel lets go of it when the process dies, however it dies. Raises `RunBusy`."""
        lock = FileLock(self._driver_lock)
        with self.journal.hold():  # `is_driven` takes the lock for an instant; here it cannot be mistaken for a driver
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise self._busy() from None
        try:
            files.sweep(self.path.parent.parent, self.path.parent)
            files.sweep_run(self.path)
            files.write_json(self._driver_note, {"pid": os.getpid(), "since": round(time.time(), 3)})
            yield
        finally:
            self._driver_note.unlink(missing_ok=True)
            lock.release()

    def is_driven(self) -> bool:
        """Whether a process holds the driver's lock, without getting in the way of one that is about to."""
        if not self._driver_lock.exists():
            return False
        lock = FileLock(self._driver_lock)
        with self.journal.hold():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
        return False

    @property
    def _driver_lock(self) -> Path:
        return self.path / "driver.lock"

    @property
    def _driver_note(self) -> Path:
        return self.path / "driver.json"

    def _busy(self) -> RunBusy:
        holder = "another process"
        try:
            note = json.loads(self._driver_note.read_text(encoding="utf-8"))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note["since"]))
            who = "this process already" if note["pid"] == os.getpid() else holder
            holder = f"{who} (PID {note['pid']}, since {since})"
        except (OSError, ValueError, KeyError):
            pass  # the driver has not written its note yet
        return RunBusy(f"{self.id} is being driven by {holder}.", hint=f"Follow it with: ftbridge watch {self.id}")
