"""The provider contract, whole. A provider trains a model somewhere: in a child process, or behind an API.

    lower ──▶ submit ──▶ poll · events ──▶ result ──▶ sampler
                 ▲          │ cancel · pause · resume
                 └──────────┘

A job outlives the process that submitted it. Everything needed to reach it again is in its `JobHandle`, which the caller
journals. `submit` is idempotent by token: called again after a crash with the same token, it returns the job that exists
and never makes, or pays for, a second one. No method blocks for longer than one request or one spawn takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.examples import Message
from ftbridge.lowering import Lowering
from ftbridge.resolve import ResolvedSpec

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""States a job cannot leave by itself. Any other text, known or not, is treated as still running."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Submission(Frozen):
    """One job to start. `token` names it for ever; `folder` is the run's folder, which the provider may write in.

    `heed`, if given, is called before anything that costs money and may raise to stop: a cancel or pause asked meanwhile.
    """

    token: str
    folder: Path
    request: dict[str, Any]
    train: Path
    validation: Path | None
    heed: Callable[[], None] | None = Field(default=None, exclude=True)


class JobHandle(Frozen):
    """What it takes to reach a job from any process: journalled as JSON."""

    provider: str
    id: str
    folder: Path


class JobError(Frozen):
    """Why a job failed. `kind` is a stable word (out_of_memory, worker_died, invalid_file, …)."""

    kind: str
    message: str
    hint: str | None = None


class TunedModel(Frozen):
    """What training made: a name the provider's sampler understands, and what it stands on."""

    provider: str
    id: str
    base: str
    checkpoints: tuple[str, ...] = ()


class JobStatus(Frozen):
    """A job now. `state` is one of the run states, or a service's own word kept as text.

    `estimated_finish` is when the service expects its end, in Unix seconds, where it says so.
    """

    state: str
    error: JobError | None = None
    trained_tokens: int | None = None
    estimated_finish: float | None = None


class Metrics(Frozen):
    """One step's figures. Losses are mean nats per trained token; accuracies and their like are in 0..1.

    `gradient_norm` is the L2 norm over all trained parameters, before it is clipped.
    `device` is what the step was computed on, where the job knows it: cpu, cuda, mps. `trained_tokens` counts from the start.
    """

    step: int
    total_steps: int | None = None
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    memory_gb: float | None = None
    seconds_left: float | None = None
    device: str | None = None
    trained_tokens: int | None = None


class JobEvent(Frozen):
    """Something a job said. `id` is unique within the job and, given back as `after`, marks where to go on."""

    id: str
    time: float
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics", "checkpoint"] = "message"
    message: str
    metrics: Metrics | None = None


class Prompt(Frozen):
    """One item to answer: its key, the messages before the answer, the tools they may call."""

    key: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


class Completion(Frozen):
    """One answer. `finish_reason` is OpenAI's: stop at end of turn, length at the token limit.

    `text` holds neither reasoning nor calls: `reasoning_content` and `tool_calls` do, as OpenAI-compatible servers return them.

    `seconds` is how long it took from being asked, batches as a whole. `error` says why this prompt has no answer while others
    have.
    """

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float | None = None
    error: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Scored(Frozen):
    """How well a model foresaw one answer: nats of all its tokens, the end of turn included, and their number."""

    key: str
    nats: float
    tokens: int


class Scorer(Protocol):
    """What a sampler may also be: it tells how well its model foresees given answers."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, batch_size: int) -> Iterator[Scored]:
        """Yield one entry for each prompt and its answer, in any order."""
        ...


class Sampler(Protocol):
    """Answers prompts with one model. Greedy: the same prompt gives the same answer."""

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, batch_size: int) -> Iterator[Completion]:
        """Yield one completion for each prompt, in any order, as they are ready."""
        ...

    def close(self) -> None:
        """Give back memory and connections."""
        ...


class Provider(Protocol):
    """Where a job trains. Built with no arguments; `name` is its entry-point name."""

    name: str
    on_interrupt: Literal["pause", "detach"]
    """What Ctrl-C does to a job that is followed: a child process is paused, a paid service goes on."""

    def lower(self, spec: ResolvedSpec) -> Lowering:
        """Turn a settled spec into this provider's request, every field accounted for. Pure: no network, no files."""
        ...

    def preflight(self, submission: Submission, progress: Callable[[str], None]) -> None:
        """Raise, before anything is spent, when the job cannot work: libraries, model, key, room, examples.

        `progress` hears one line for each thing that takes time.
        """
        ...

    def submit(self, submission: Submission) -> JobHandle:
        """Start the job named by `submission.token`, or find it if it was started before."""
        ...

    def find(self, submission: Submission) -> JobHandle | None:
        """The job that `submit` made for this token, if it made one. Creates nothing. Raises `InDoubt`."""
        ...

    def doubt(self, submission: Submission) -> str | None:
        """Why a job of this run may be there, or run on, without being known; None when that cannot be. No network."""
        ...

    def is_final(self, submission: Submission) -> bool:
        """Whether what refused the job, if anything did, was the provider itself, so that going elsewhere is right."""
        ...

    def forget(self, submission: Submission) -> None:
        """Take the user's word that attempts whose outcome is not known count no more."""
        ...

    def adopt(self, submission: Submission, job: str) -> JobHandle:
        """Take a job that is there as this submission's. Raises `UsageError` where that cannot be."""
        ...

    def discard(self, submission: Submission) -> None:
        """Remove what was prepared for a job that was never made, and will not be."""
        ...

    def unpromised(self, submission: Submission) -> str | None:
        """Why this provider cannot promise to make the job exactly once, as preflight found; None where it can."""
        ...

    def poll(self, handle: JobHandle) -> JobStatus:
        """The job's state now."""
        ...

    def events(self, handle: JobHandle, after: str | None) -> Sequence[JobEvent]:
        """Events later than `after` (all, if None), oldest first."""
        ...

    def cancel(self, handle: JobHandle) -> None:
        """Ask the job to end for good."""
        ...

    def pause(self, handle: JobHandle) -> None:
        """Ask the job to save its state and stop until `resume`."""
        ...

    def resume(self, handle: JobHandle) -> JobHandle:
        """Let a paused, failed or dead job go on from what it saved. Never pays for another job."""
        ...

    def retry(self, handle: JobHandle) -> JobHandle:
        """Do the work of a job that failed or was cancelled again, as another job where it must be: this may cost again."""
        ...

    def result(self, handle: JobHandle) -> TunedModel:
        """The model a succeeded job made."""
        ...

    def sampler(self, lowering: Lowering, model: TunedModel | None, folder: Path) -> Sampler:
        """A sampler for the tuned model, or for the base model if None. `folder` is the run's."""
        ...
