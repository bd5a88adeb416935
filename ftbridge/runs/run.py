"""A run: its folder, its journal, and the state that folding the journal gives."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftbridge import __version__, files
from ftbridge.errors import RunBusy, UsageError
from ftbridge.runs.journal import Event, Journal
from ftbridge.spec import JobSpec, parse

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class RunState:
    """A run now, derived from its events alone.

    `metrics` holds the latest value of each figure; `cursor` the last job event seen; `evaluated` the candidates whose
    answers are complete.
    """

    id: str = ""
    name: str = ""
    provider: str = ""
    state: str = "prepared"
    stage: str = "preparing"
    created: float = 0.0
    updated: float = 0.0
    finished: float | None = None
    data: dict[str, Any] | None = None
    token: str | None = None
    handle: dict[str, Any] | None = None
    cursor: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    best_valid_loss: float | None = None
    tuned: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    evaluated: frozenset[str] = frozenset()
    cancel_requested: bool = False
    pause_requested: bool = False


def fold(events: Sequence[Event], state: RunState | None = None) -> RunState:
    """The state after `events`, from the beginning or on top of `state`. Unknown types are passed over."""
    state = state or RunState()
    for event in events:
        state = replace(_after(state, event), updated=event.time)
    return state


def _after(state: RunState, event: Event) -> RunState:
    data = event.data
    if event.type == "created":
        return replace(
            state, id=data["id"], name=data["name"], provider=data["provider"], created=event.time, state="prepared"
        )
    if event.type == "prepared":
        return replace(state, data=data["data"])
    if event.type == "evaluating":
        return replace(state, stage=f"answering with {data['candidate']}", state=_running(state))
    if event.type == "evaluated":
        return replace(state, evaluated=state.evaluated | {data["candidate"]})
    if event.type == "submit_intended":
        return replace(state, token=data["token"], stage="training", state="queued")
    if event.type == "submitted":
        return replace(state, handle=data["handle"], stage="training", state="queued")
    if event.type == "status":
        return replace(state, state=data["state"], stage="training")
    if event.type == "job_event":
        return _after_job_event(state, data)
    if event.type == "cancel_requested":
        return replace(state, cancel_requested=True)
    if event.type == "pause_requested":
        return replace(state, pause_requested=True)
    if event.type == "resume_requested":
        return replace(
            state, state="queued", error=None, finished=None, cancel_requested=False, pause_requested=False
        )
    if event.type == "result":
        return replace(state, tuned=data["model"], state="running")
    if event.type == "failed":
        return replace(state, state="failed", error=data["error"], finished=event.time)
    if event.type in ("succeeded", "cancelled", "paused"):
        done = event.type in TERMINAL
        stage = "done" if event.type == "succeeded" else state.stage
        return replace(state, state=event.type, stage=stage, finished=event.time if done else None)
    return state


def _after_job_event(state: RunState, data: dict[str, Any]) -> RunState:
    figures = {name: value for name, value in (data.get("metrics") or {}).items() if value is not None}
    best, loss = state.best_valid_loss, figures.get("valid_loss")
    if loss is not None:
        best = loss if best is None else min(best, loss)
    return replace(state, cursor=data["id"], metrics={**state.metrics, **figures}, best_valid_loss=best)


def _running(state: RunState) -> str:
    return state.state if state.state in TERMINAL else "running"


class Run:
    """A run folder. Reading never changes it; writing goes through the journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self._state = RunState()
        self._seen = 0

    @classmethod
    def create(cls, home: Path, *, name: str, provider: str, spec_text: str, spec_suffix: str) -> Run:
        """Make `home/runs/NAME-PROVIDER-YYYYMMDD-xxxx`, whole or not at all."""
        suffix = spec_suffix if spec_suffix in (".yaml", ".yml", ".toml", ".json") else ".yaml"
        runs = home / "runs"
        with files.disk_full_is_an_error(runs):
            runs.mkdir(parents=True, exist_ok=True)
            while True:
                run_id = f"{name}-{provider}-{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}"
                if not (runs / run_id).exists():
                    break
            with files.scratch_folder(runs) as scratch:
                made = cls(scratch)
                files.write_text(scratch / f"spec{suffix}", spec_text)
                digest = files.sha256_bytes(spec_text.encode())
                made.append("created", id=run_id, name=name, provider=provider, spec_sha256=digest, version=__version__)
                os.replace(scratch, runs / run_id)
                files.sync_folder(runs)
        return cls(runs / run_id)

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.path.name

    @property
    def spec_path(self) -> Path:
        """The spec as given."""
        return next(path for path in sorted(self.path.glob("spec.*")))

    @property
    def resolved_path(self) -> Path:
        """The spec with every "auto" settled, and why."""
        return self.path / "resolved.json"

    @property
    def lowering_path(self) -> Path:
        """How each field fared with the provider."""
        return self.path / "lowering.json"

    @property
    def data(self) -> Path:
        """Canonical splits and their manifest."""
        return self.path / "data"

    @property
    def evaluation_path(self) -> Path:
        """What the judge found."""
        return self.path / "evaluation.json"

    def predictions(self, candidate: str) -> Path:
        """A candidate's answers, one JSON line for each."""
        return self.path / "predictions" / f"{candidate}.jsonl"

    def spec(self) -> JobSpec:
        """The spec as given, parsed."""
        path = self.spec_path
        return JobSpec.from_dict(parse(path.read_text(encoding="utf-8-sig"), path.suffix, str(path)), where=str(path))

    def resolved_spec(self) -> JobSpec:
        """The spec with every general "auto" settled, as recorded in resolved.json."""
        document = json.loads(self.resolved_path.read_text(encoding="utf-8"))
        document.pop("settled", None)
        return JobSpec.from_dict(document, where=str(self.resolved_path))

    def append(self, type: str, /, *, sync: bool = True, **data: Any) -> Event:
        """Journal one event."""
        return self.journal.append(type, sync=sync, **data)

    def state(self) -> RunState:
        """The state now, with what other processes appended."""
        events = self.journal.read()
        self._state = fold(events[self._seen :], self._state)
        self._seen = len(events)
        return self._state

    @contextmanager
    def drive(self) -> Iterator[None]:
        """Hold the driver's lock; the kernel lets go of it when the process dies. Raises `RunBusy`."""
        lock = FileLock(self.path / "driver.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = self._driver_pid()
            raise RunBusy(
                f"{self.id} is being driven by another process{f' ({holder})' if holder else ''}.",
                hint=f"Follow it with: ftbridge watch {self.id}",
            ) from None
        try:
            files.write_text(self.path / "driver.pid", str(os.getpid()))
            yield
        finally:
            (self.path / "driver.pid").unlink(missing_ok=True)
            lock.release()

    def is_driven(self) -> bool:
        """Whether a process holds the driver's lock."""
        lock = FileLock(self.path / "driver.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def _driver_pid(self) -> str:
        try:
            return (self.path / "driver.pid").read_text()
        except OSError:
            return ""


def open_run(path: Path) -> Run:
    """The run in this folder. Raises `UsageError` when it is none."""
    if not (path / "journal.jsonl").exists():
        raise UsageError(f"{path} is not a run folder: it has no journal.jsonl.")
    return Run(path)
