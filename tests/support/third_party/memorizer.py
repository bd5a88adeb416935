"""A provider that somebody else wrote, complete and small: it learns training examples by heart, in a process of its own.

Installed beside ftbridge by its entry point alone (memorizer-1.0.dist-info), it shows that the contract is enough: nothing in
ftbridge knows its name. A job is a child process that writes one line to events.jsonl for each example it has learnt, obeys
the file `control`, and goes on from the examples it already knows. The tuned model completes a prompt with the completion of
the training prompt that shares the most words; the base model repeats the prompt.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from ftbridge import files
from ftbridge.errors import UsageError
from ftbridge.providers import base
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering, ProviderRequest, fields
from ftbridge.spec.resolve import ResolvedSpec

SECONDS = "MEMORIZER_SECONDS"
"""How long it takes to learn one example, from the environment."""


class MemorizerRequest(ProviderRequest):
    """What a job is: the model that examples are learnt for."""

    model: str


class Memorizer:
    """Trains by learning examples by heart."""

    name = "memorizer"
    on_interrupt: Literal["pause", "detach"] = "pause"

    def capabilities(self, spec: JobSpec) -> base.Capabilities:
        return base.Capabilities(methods=("supervised",), pause=True, hosted=False, export=("adapter",))

    def base_model(self, spec: JobSpec) -> str | None:
        return spec.model.local

    def lint_target(self, spec: JobSpec) -> base.LintTarget:
        return base.LintTarget(target="local")

    def price_basis(self, spec: JobSpec) -> base.PriceBasis:
        return base.PriceBasis(unit="unknown")

    def last_day(self, spec: JobSpec, model: str) -> datetime.date | None:
        return None

    def auto(self, field: str, spec: JobSpec, examples: int) -> tuple[Any, str] | None:
        return (1.0, "memory needs no rate") if field == "learning_rate_multiplier" else None

    def lower(self, spec: ResolvedSpec) -> Lowering:
        reports = [
            FieldReport(
                field=field,
                outcome="exact" if field.startswith(("data.", "model.", "evaluation.")) else "unused",
                requested=repr(value),
            )
            for field, value in fields(spec.spec)
        ]
        request = MemorizerRequest(model=spec.spec.model.local or "")
        return Lowering(provider=self.name, request=request, fields=reports).complete(spec.spec)

    def with_budget(self, request: ProviderRequest, max_usd: float | None) -> ProviderRequest:
        return request

    def preflight(self, submission: base.Submission, progress: Callable[[str], None]) -> None:
        progress("looking at the examples")

    def submit(self, submission: base.Submission) -> base.JobHandle:
        handle = base.JobHandle(provider=self.name, id=submission.token, folder=submission.folder)
        if self.find(submission) is None:
            _own(submission.folder).mkdir(parents=True, exist_ok=True)
            job = {"token": submission.token, "train": str(submission.train)}
            files.write_json(_own(submission.folder) / "job.json", job)
        return self.resume(handle)

    def find(self, submission: base.Submission) -> base.JobHandle | None:
        path = _own(submission.folder) / "job.json"
        if not path.exists() or json.loads(path.read_text())["token"] != submission.token:
            return None
        return base.JobHandle(provider=self.name, id=submission.token, folder=submission.folder)

    def doubt(self, submission: base.Submission) -> str | None:
        return None

    def is_final(self, submission: base.Submission) -> bool:
        return True

    def forget(self, submission: base.Submission) -> None:
        pass

    def adopt(self, submission: base.Submission, job: str) -> base.JobHandle:
        raise UsageError("a memorizer's job belongs to its run.")

    def discard(self, submission: base.Submission) -> None:
        pass

    def unpromised(self, submission: base.Submission) -> str | None:
        return None

    def poll(self, handle: base.JobHandle) -> base.JobStatus:
        settings = _own(handle.folder)
        last = (_lines(settings / "events.jsonl") or [{"message": "queued"}])[-1]["message"]
        if last in base.TERMINAL | {"paused"}:
            return base.JobStatus(state=last)
        if not _at_work(settings):
            last = (_lines(settings / "events.jsonl") or [{"message": "queued"}])[-1]["message"]
            if last in base.TERMINAL | {"paused"}:
                return base.JobStatus(state=last)
            return base.JobStatus(
                state="failed", error=base.JobError(kind="worker_died", message="the memorizer is gone.")
            )
        return base.JobStatus(state="running")

    def events(self, handle: base.JobHandle, after: str | None) -> Sequence[base.JobEvent]:
        lines = _lines(_own(handle.folder) / "events.jsonl")
        return [
            base.JobEvent(
                id=str(number),
                time=line["time"],
                type="metrics" if "step" in line else "message",
                message=line["message"],
                metrics=base.Metrics(step=line["step"], total_steps=line["of"], train_loss=1 / line["step"])
                if "step" in line
                else None,
            )
            for number, line in enumerate(lines, 1)
            if number > int(after or 0)
        ]

    def cancel(self, handle: base.JobHandle) -> None:
        self._control(handle, "cancelled")

    def pause(self, handle: base.JobHandle) -> None:
        self._control(handle, "paused")

    def resume(self, handle: base.JobHandle) -> base.JobHandle:
        settings = _own(handle.folder)
        if not _at_work(settings) and not (settings / "model.json").exists():
            (settings / "control").unlink(missing_ok=True)
            code = f"import memorizer; memorizer.learn({str(settings)!r})"
            before = len(_lines(settings / "events.jsonl"))
            with (settings / "log").open("ab") as log:
                subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, start_new_session=True)
            until = time.monotonic() + 30
            while len(_lines(settings / "events.jsonl")) == before and time.monotonic() < until:
                time.sleep(0.01)
        return handle

    def retry(self, handle: base.JobHandle) -> base.JobHandle:
        return self.resume(handle)

    def result(self, handle: base.JobHandle) -> base.TunedModel:
        return base.TunedModel(provider=self.name, id=str(_own(handle.folder) / "model.json"), base="blank")

    def sampler(self, lowering: Lowering, model: base.TunedModel | None, folder: Path) -> base.Sampler:
        return Recaller(json.loads(Path(model.id).read_text()) if model else None)

    def identity(self, lowering: Lowering) -> dict[str, Any]:
        return {}

    def checkpoints(self, model: base.TunedModel, folder: Path) -> dict[int, str]:
        return {}

    def export(
        self,
        lowering: Lowering,
        model: base.TunedModel,
        format: base.ExportFormat,
        out: Path,
        progress: Callable[[str], None],
    ) -> Path:
        out.mkdir()
        shutil.copy(model.id, out)
        return out

    def preview(self, lowering: Lowering, train: Path, count: int) -> list[list[tuple[str, bool]]]:
        raise UsageError("a memorizer has no tokens.")

    def _control(self, handle: base.JobHandle, word: str) -> None:
        settings = _own(handle.folder)
        files.write_text(settings / "control", word)
        if not _at_work(settings) and self.poll(handle).state not in base.TERMINAL:
            _say(settings, word)


class Recaller:
    """Completes prompts from memory, or repeats them without one."""

    def __init__(self, memory: dict[str, str] | None) -> None:
        self._memory = memory

    def generate(
        self, prompts: Sequence[base.Prompt], *, max_tokens: int, batch_size: int
    ) -> Iterator[base.Completion]:
        for prompt in prompts:
            question = str(prompt.messages[-1].content)
            text = question if self._memory is None else self._recall(question)
            count = len(text.split())
            yield base.Completion(
                key=prompt.key,
                text=text,
                finish_reason="stop",
                prompt_tokens=count,
                completion_tokens=count,
                seconds=0.001,
            )

    def close(self) -> None:
        pass

    def _recall(self, question: str) -> str:
        assert self._memory is not None
        words = set(re.findall(r"\w+", question.lower()))
        best = max(self._memory, key=lambda remembered: len(words & set(re.findall(r"\w+", remembered.lower()))))
        return self._memory[best]


def learn(state_folder: str) -> None:
    """The job: learn one example after the other, until `control` says otherwise."""
    folder = Path(state_folder)
    with FileLock(folder / "lock", timeout=5):
        _say(folder, "learning")
        job = json.loads((folder / "job.json").read_text())
        examples = _lines(Path(job["train"]))
        memory = json.loads((folder / "memory.json").read_text()) if (folder / "memory.json").exists() else {}
        for number, example in enumerate(examples, 1):
            question, completion = (example["messages"][where]["content"] for where in (-2, -1))
            if question in memory:
                continue
            if (folder / "control").exists():
                _say(folder, (folder / "control").read_text())
                return
            time.sleep(float(os.environ.get(SECONDS, "0")))
            memory[question] = completion
            files.write_json(folder / "memory.json", memory)
            _say(folder, f"learnt {number}", step=number, of=len(examples))
        files.write_json(folder / "model.json", memory)
        _say(folder, "succeeded")


def _own(folder: Path) -> Path:
    return folder / "memorizer"


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _say(state_folder: Path, message: str, **more: int) -> None:
    with (state_folder / "events.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"time": time.time(), "message": message, **more}) + "\n")


def _at_work(state_folder: Path) -> bool:
    lock = FileLock(state_folder / "lock")
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    lock.release()
    return False
