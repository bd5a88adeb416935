"""The local provider: a job is a child process that outlives its parent and reports through its own journal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ftbridge import extras, files
from ftbridge.errors import UsageError, WorkerDied
from ftbridge.providers.base import (
    TERMINAL,
    Capabilities,
    ExportFormat,
    JobError,
    JobEvent,
    JobHandle,
    JobStatus,
    LintTarget,
    Metrics,
    PriceBasis,
    Sampler,
    Submission,
    TunedModel,
)
from ftbridge.providers.local import defaults
from ftbridge.providers.local.inference.sampler import LocalSampler
from ftbridge.providers.local.lower import lower
from ftbridge.providers.local.process.child import Child, child_environment
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.request import LocalRequest, SampleRequest
from ftbridge.providers.local.vllm import VllmSampler
from ftbridge.runs.journal import Event
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering, ProviderRequest
from ftbridge.spec.resolve import ResolvedSpec

NEEDS = ("torch", "transformers", "peft", "psutil", "safetensors", "numpy", "huggingface_hub", "gguf")
START_SECONDS = 60
"""How long a worker may take to hold its lock; it does so before any heavy import."""
_SERVING = ("thinking", "quantization", "precision", "device", "tuning", "engine")
_STATES = {
    "started": "running",
    "paused": "paused",
    "cancelled": "cancelled",
    "failed": "failed",
    "succeeded": "succeeded",
}


class LocalProvider:
    """Trains in a child process on this machine."""

    name = "local"
    on_interrupt: Literal["pause", "detach"] = "pause"

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

    def capabilities(self, spec: JobSpec) -> Capabilities:
        """Every method, paused at any step; weights are files of the run."""
        return Capabilities(
            methods=("supervised", "dpo", "reinforcement"),
            pause=True,
            hosted=False,
            score=spec.local.engine == "transformers",
            export=("adapter", "merged"),
            token_preview=True,
            plan="local",
            mixes_replay=True,
        )

    def base_model(self, spec: JobSpec) -> str | None:
        """`model.local`."""
        return spec.model.local

    def lint_target(self, spec: JobSpec) -> LintTarget:
        """This machine's own rules; preflight reads every example with the model's template."""
        del spec
        return LintTarget(target="local")

    def price_basis(self, spec: JobSpec) -> PriceBasis:
        """Hours of this machine."""
        del spec
        return PriceBasis(unit="hours")

    def last_day(self, spec: JobSpec, model: str) -> None:
        """None: weights on this machine stay."""
        del spec, model

    def auto(self, field: str, spec: JobSpec, examples: int) -> tuple[Any, str] | None:
        """A multiplier of 1, since the base rate is this provider's own; batch and epochs of supervised tuning."""
        hyperparameters = spec.hyperparameters
        if field == "learning_rate_multiplier":
            return (
                1.0,
                "local.base_learning_rate already suits the model and the tuning method, so it is multiplied by 1",
            )
        if spec.method != "supervised":
            return None
        if field == "batch_size":
            return defaults.batch_size(examples)
        if field == "n_epochs" and hyperparameters.batch_size != "auto":
            return defaults.n_epochs(examples, hyperparameters.batch_size)
        return None

    def lower(self, spec: ResolvedSpec) -> Lowering:
        """The local request and its parity report."""
        return lower(spec)

    def with_budget(self, request: ProviderRequest, max_usd: float | None) -> ProviderRequest:
        """With the budget for judges, which reward completions; training itself spends no money with a service."""
        job = LocalRequest.of(request)
        if job.reinforcement is None:
            return job
        return job.model_copy(update={"reinforcement": job.reinforcement.model_copy(update={"max_usd": max_usd})})

    def preflight(self, submission: Submission, progress: Callable[[str], None]) -> None:
        """Libraries are here, the model is found and usable, every example renders and fits."""
        request = LocalRequest.of(submission.request)
        needs = (*NEEDS, "bitsandbytes") if request.quantization != "none" or "8bit" in request.optimizer else NEEDS
        extras.require("local", "training on this machine", *needs)
        child = Child("ftbridge.providers.local.process.check", submission.folder / "worker.log")
        try:
            child.ask(submission.model_dump(mode="json"))
            for reply in child.replies(progress):
                for note in reply["notes"]:
                    progress(note)
        finally:
            child.close()

    def submit(self, submission: Submission) -> JobHandle:
        """Start a worker for the job, unless its token is known: then only what died is started again."""
        job = Job(submission.folder)
        handle = JobHandle(provider=self.name, id=submission.token, folder=submission.folder)
        if job.submitted and job.submission().token == submission.token:
            if not job.alive() and self.poll(handle).state not in TERMINAL | {"paused"}:
                self._start(job)
            return handle
        job.own_folder.mkdir(parents=True, exist_ok=True)
        job.write(submission)
        self._start(job)
        return handle

    def find(self, submission: Submission) -> JobHandle | None:
        """The job with this token, if it was submitted in this run's folder."""
        job = Job(submission.folder)
        if not job.submitted or job.submission().token != submission.token:
            return None
        return JobHandle(provider=self.name, id=submission.token, folder=submission.folder)

    def doubt(self, submission: Submission) -> str | None:
        """Never: whether a worker was started stands in the run's folder."""
        del submission
        return None

    def is_final(self, submission: Submission) -> bool:
        """Always: nothing stands between this machine and its word."""
        del submission
        return True

    def forget(self, submission: Submission) -> None:
        """Nothing is in doubt here."""

    def adopt(self, submission: Submission, job: str) -> JobHandle:
        """Never: a job on this machine belongs to the run in whose folder it works."""
        raise UsageError(f"{submission.folder.name} trains on this machine; {job} cannot be its job.")

    def discard(self, submission: Submission) -> None:
        """Nothing is kept elsewhere."""

    def unpromised(self, submission: Submission) -> str | None:
        """Once is promised: a token starts one job in its folder."""
        del submission
        return None

    def poll(self, handle: JobHandle) -> JobStatus:
        """What the worker's journal says; a job whose worker is gone without a last word has failed."""
        job = Job(handle.folder)
        events = job.journal.read()
        status = reported_status(events)
        if status is None:
            return JobStatus(state="queued")
        if status.state == "running" and not job.alive():
            if job.journal.read()[-1].seq != events[-1].seq:
                return self.poll(handle)  # it ended between the two looks
            return JobStatus(state="failed", error=_died(job))
        if status.state == "running" and (request := job.requested()) is not None:
            return JobStatus(state="pausing" if request == "pause" else "running")
        return status

    def events(self, handle: JobHandle, after: str | None) -> Sequence[JobEvent]:
        """The worker's events as job events; the id is the journal's sequence number."""
        seen = int(after or 0)
        events = (_job_event(event) for event in Job(handle.folder).journal.read() if event.seq > seen)
        return [event for event in events if event is not None]

    def cancel(self, handle: JobHandle) -> None:
        """Ask the worker to end at its next step; a job without a worker is cancelled on the spot."""
        self._stop(handle, "cancel", "cancelled")

    def pause(self, handle: JobHandle) -> None:
        """Ask the worker to save a checkpoint and end; `resume` starts another."""
        self._stop(handle, "pause", "paused")

    def resume(self, handle: JobHandle) -> JobHandle:
        """Start a worker from the newest whole checkpoint, unless one is at work or the job is done."""
        job = Job(handle.folder)
        if not job.alive() and self.poll(handle).state != "succeeded":
            self._start(job)
        return handle

    def retry(self, handle: JobHandle) -> JobHandle:
        """The same as `resume`: nothing is paid here."""
        return self.resume(handle)

    def result(self, handle: JobHandle) -> TunedModel:
        """The adapter's folder (the model's, for full tuning)."""
        job = Job(handle.folder)
        request = job.request()
        checkpoints = sorted(path.name for path in (handle.folder / "checkpoints").glob("step-*"))
        folder = handle.folder / ("adapter" if request.tuning == "lora" else "model")
        return TunedModel(provider=self.name, id=str(folder), base=request.model, checkpoints=tuple(checkpoints))

    def sampler(self, lowering: Lowering, model: TunedModel | None, folder: Path) -> Sampler:
        """Sampling processes, one for each GPU, for the base or the tuned model."""
        request = _evaluated(LocalRequest.of(lowering.request))
        sample_request = SampleRequest(request=request, tuned=model.id if model else None)
        if request.engine == "vllm":
            return VllmSampler(sample_request, folder / "vllm.log")
        return LocalSampler(sample_request, folder / "worker.log", self._sampling_command(request, folder))

    def identity(self, lowering: Lowering) -> dict[str, Any]:
        """How weights are held and completions are computed."""
        request = _evaluated(LocalRequest.of(lowering.request))
        return request.model_dump(mode="json", include=set(_SERVING), exclude_unset=True, exclude_none=True)

    def checkpoints(self, model: TunedModel, folder: Path) -> dict[int, str]:
        """The folders of whole checkpoints."""
        del model
        return {
            int(path.name.removeprefix("step-")): str(path)
            for path in (folder / "checkpoints").glob("step-*")
            if path.name.removeprefix("step-").isdigit()
        }

    def export(
        self, lowering: Lowering, model: TunedModel, format: ExportFormat, out: Path, progress: Callable[[str], None]
    ) -> Path:
        """The adapter (the model, after full tuning) as it is, or merged into its base in 16 bits."""
        request, source = LocalRequest.of(lowering.request), Path(model.id)
        if format == "adapter" or request.tuning == "full":
            with files.scratch_folder(out.parent) as scratch, files.disk_full_is_an_error(out):
                shutil.copytree(source, scratch / "copy")
                (scratch / "copy").replace(out)
            return out
        extras.require("local", "exporting weights", *NEEDS)
        child = Child("ftbridge.providers.local.export.merged", source.parent / "export.log")
        try:
            child.ask(
                {
                    "model": request.model,
                    "adapter": str(source),
                    "out": str(out.resolve()),
                    "trust_remote_code": request.trust_remote_code,
                }
            )
            list(child.replies(progress))
        finally:
            child.close()
        return out

    def preview(self, lowering: Lowering, train: Path, count: int) -> list[list[tuple[str, bool]]]:
        """By the trainer's own renderer and tokenizer."""
        from ftbridge.providers.local.data.preview import preview

        return preview(LocalRequest.of(lowering.request), train, count)

    def _start(self, job: Job) -> None:
        """Spawn a worker and wait until it holds its lock, so that liveness is never a guess."""
        job.clear_control()
        before = len(job.journal.read())
        with job.log_path.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "ftbridge.providers.local.process.worker", str(job.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**child_environment(), "PYTHONUNBUFFERED": "1"},
            )
        self._children.append(child)
        give_up = time.monotonic() + START_SECONDS
        while len(job.journal.read()) == before:
            if child.poll() is not None or time.monotonic() > give_up:
                raise WorkerDied("the training process did not start.", hint=f"Its log: {job.log_path}")
            time.sleep(0.02)

    def _sampling_command(self, request: LocalRequest, folder: Path) -> list[str] | None:
        """What starts a sampling process elsewhere than on this machine; None here."""
        del request, folder
        return None

    def _stop(self, handle: JobHandle, request: Literal["pause", "cancel"], ended: str) -> None:
        job = Job(handle.folder)
        job.ask(request)
        if not job.alive() and self.poll(handle).state not in TERMINAL:
            job.journal.append(ended)


def reported_status(events: Sequence[Event]) -> JobStatus | None:
    """What a worker's events say last of its job's state; None before it started."""
    last = next((event for event in reversed(events) if event.type in _STATES), None)
    if last is None:
        return None
    state = _STATES[last.type]
    error = last.data.get("error") if state in ("failed", "paused") else None
    return JobStatus(state=state, error=JobError(**error) if error is not None else None)


def _evaluated(request: LocalRequest) -> LocalRequest:
    """A request with the arithmetic that its completions are computed in."""
    precision = request.evaluation_precision
    return request if precision == "auto" else request.model_copy(update={"precision": precision})


def _died(job: Job) -> JobError:
    tail = job.log_tail()
    last = f" Its last line was: {tail[-1]}" if tail else ""
    return JobError(
        kind="worker_died",
        message=f"the training process ended without a message (killed, or out of memory).{last}",
        hint=f"Resume continues from the last checkpoint. If memory was short: `dmesg | tail`. Log: {job.log_path}",
    )


def _step_in_words(figures: Metrics) -> str:
    """A step in one line: its losses, or in reinforcement its rewards and what they came of."""
    begin = f"step {figures.step}/{figures.total_steps}:"
    if (reward := figures.more.get("train_mean_reward")) is None:
        text = f"{begin} training loss {figures.train_loss:.4f}"
        return text if figures.valid_loss is None else f"{text}, validation loss {figures.valid_loss:.4f}"
    text = f"{begin} reward {reward:.3f}"
    if (held_out := figures.more.get("full_valid_mean_reward")) is not None:
        text += f", on validation prompts {held_out:.3f}"
    return (
        f"{text}; {figures.more['live_groups']:.0%} live groups, entropy {figures.more['entropy']:.2f}, "
        f"{figures.more['clipped_share']:.0%} cut, grader {figures.more['grader_latency']:.2f} s"
    )


def _job_event(event: Event) -> JobEvent | None:
    data: dict[str, Any] = event.data
    common: dict[str, Any] = {"id": str(event.seq), "time": event.time}
    if event.type == "metrics":
        shared = {name: data[name] for name in Metrics.model_fields if name in data}
        more = {name: value for name, value in data.items() if name not in Metrics.model_fields}
        figures = Metrics(**shared, more=more)
        return JobEvent(**common, type="metrics", message=_step_in_words(figures), metrics=figures)
    if event.type == "checkpoint":
        return JobEvent(**common, type="checkpoint", message=f"checkpoint at step {data['step']}")
    if event.type == "message":
        return JobEvent(**common, level=data["level"], message=data["text"])
    if event.type == "stage":
        return JobEvent(**common, message=data["name"])
    if event.type == "failed":
        return JobEvent(**common, level="error", message=str(data["error"]["message"]))
    return JobEvent(**common, message=event.type) if event.type in _STATES else None
