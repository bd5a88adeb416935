"""The provider contract, whole. A provider trains a model somewhere: in a child process, or behind an API.

    lower ──▶ submit ──▶ poll · events ──▶ result ──▶ sampler · export
                 ▲          │ cancel · pause · resume
                 └──────────┘

Whatever the program needs to know of a provider is asked here, so that it never compares a provider's name: what it can do
(`capabilities`), which model of a spec it trains (`base_model`), which data rules hold there (`lint_target`), what its work
is paid by (`price_basis`), until when its models answer (`last_day`). These read nothing but the spec.

A job outlives the process that submitted it. Everything needed to reach it again is in its `JobHandle`, which the caller
journals. `submit` is idempotent by token: called again after a crash with the same token, it returns the job that exists
and never makes, or pays for, a second one. No method blocks for longer than one request or one spawn takes.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from ftbridge.data.examples import Message
from ftbridge.runs.metrics import Metrics as Metrics
from ftbridge.runs.records import JobHandle as JobHandle
from ftbridge.runs.records import TunedModel as TunedModel
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering, ProviderRequest
from ftbridge.spec.resolve import ResolvedSpec
from ftbridge.spec.sections import Method

JobState = Literal[
    "prepared", "validating", "queued", "running", "pausing", "paused", "succeeded", "failed", "cancelled"
]
"""The states of a job and of a run. A service's own word that is none of these is kept as text and means "still running"."""
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""States a job cannot leave by itself. Any other text, known or not, is treated as still running."""


class Frozen(BaseModel):
    """A document that is never changed once it is made."""

    model_config = ConfigDict(frozen=True)


class Submission(Frozen):
    """One job to start. `token` names it for ever; `folder` is the run's folder, which the provider may write in.

    `replay` holds chats with the base model's own completions, for a provider that mixes them into its steps.

    `check_requests`, if given, is called before anything that costs money. It raises when a cancel or pause was requested.
    """

    token: str
    folder: Path
    request: SerializeAsAny[ProviderRequest]
    train: Path
    validation: Path | None
    replay: Path | None = None
    check_requests: Callable[[], None] | None = Field(default=None, exclude=True)


class JobError(Frozen):
    """Why a job failed. `kind` is a stable word (out_of_memory, worker_died, invalid_file, …)."""

    kind: str
    message: str
    hint: str | None = None


class JobStatus(Frozen):
    """A job now. `state` is one of the run states, or a service's own word kept as text.

    `estimated_finish` is when the service expects its end, in Unix seconds, where it says so. `chosen` are hyperparameters, by
    name, that the request left to the provider, once the job reports what it took.
    """

    state: JobState | str
    error: JobError | None = None
    trained_tokens: int | None = None
    estimated_finish: float | None = None
    chosen: dict[str, int | float] = {}


class JobEvent(Frozen):
    """Something a job said. `id` is unique within the job and, given back as `after`, marks where to go on."""

    id: str
    time: float
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics", "checkpoint"] = "message"
    message: str
    metrics: Metrics | None = None


class Prompt(Frozen):
    """One item to answer: its key, the messages before the answer, the tools they may call.

    Without a `temperature` the answer is greedy. `seed` tells apart several answers to one prompt; a sampler of this machine
    draws by it, a service need not.
    """

    key: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    temperature: float | None = None
    seed: int | None = None


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
    """What a sampler also is where the provider's capabilities say `score`: it computes the likelihood of given completions."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int) -> Iterator[Scored]:
        """Yield one entry for each prompt and its answer, in any order."""
        ...


ExportFormat = Literal["adapter", "merged"]


class Capabilities(Frozen):
    """What a provider can do with one spec.

    `hosted`: a service does the work; the job goes on when this machine is off, and its hours are not this machine's.
    `score`: its samplers are `Scorer`s too. `export`: the forms in which the tuned weights can be had; none where a service
    keeps them. `token_preview`: it can show training examples as tokens with their loss masks. `plan`: the side of
    `ftbridge plan` that describes its runs, None where neither does. `mixes_replay`: it takes replay examples as a file of
    their own (`Submission.replay`); elsewhere they are lines of the training file.
    `restart`: `resume` lets a job that failed or was cancelled go on from its last checkpoint, and nothing is paid again; so
    does every job that Ctrl-C pauses.
    `nodes`, `gpus_per_node`: what the spec requests of a cluster; None where a job takes what the machine has.
    """

    methods: tuple[Method, ...]
    pause: bool
    hosted: bool
    score: bool = False
    export: tuple[ExportFormat, ...] = ()
    token_preview: bool = False
    plan: Literal["openai", "local"] | None = None
    mixes_replay: bool = False
    restart: bool = False
    nodes: int = 1
    gpus_per_node: int | None = None


class LintTarget(Frozen):
    """Whose rules data must follow: a target of `ftbridge lint`, and the model whose limits and prices count, if any."""

    target: str
    model: str | None = None


class PriceBasis(Frozen):
    """What training and completions are paid by.

    `tokens`: the price list's rates of `model` at the service `target`, with the batch discount where `batch`. `hours`: the
    spec's price per hour of this machine (`plan.gpu_usd_per_hour`, or watts). `unknown`: neither; sums are then "at least".
    """

    unit: Literal["tokens", "hours", "unknown"]
    model: str = ""
    target: str = ""
    batch: bool = False


class Sampler(Protocol):
    """Answers prompts with one model: greedy, so that the same prompt gives the same answer, unless it has a temperature."""

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

    def capabilities(self, spec: JobSpec) -> Capabilities:
        """What this provider can do with the spec. Pure, like the five that follow."""
        ...

    def base_model(self, spec: JobSpec) -> str | None:
        """The model of the spec that this provider would train; None where the spec names none for it."""
        ...

    def lint_target(self, spec: JobSpec) -> LintTarget:
        """The data rules that hold where the spec's files would go."""
        ...

    def price_basis(self, spec: JobSpec) -> PriceBasis:
        """What a job of this spec and its completions are paid by."""
        ...

    def last_day(self, spec: JobSpec, model: str) -> datetime.date | None:
        """The last day on which a model of this provider answers; None where none is announced."""
        ...

    def auto(self, field: str, spec: JobSpec, examples: int) -> tuple[Any, str] | None:
        """This provider's own value for a hyperparameter at "auto", and the reason; None to take the general rule.

        `field` is `batch_size`, `n_epochs` or `learning_rate_multiplier`, which are settled in this order: `spec` has the
        values of those before. `examples` is the number of training examples, 1 or more. A value of "auto" leaves the choice
        to the service, which receives it as it is; `JobStatus.chosen` then reports what it took.
        """
        ...

    def lower(self, spec: ResolvedSpec) -> Lowering:
        """Turn a settled spec into this provider's request, every field accounted for. Pure: no network, no files.

        The request is of the provider's own class; every method that gets one reads it by that class's `of`.
        """
        ...

    def with_budget(self, request: ProviderRequest, max_usd: float | None) -> ProviderRequest:
        """The request of a lowering under this budget in US dollars, which may have changed since; None is no limit."""
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
        """Ask the job to end."""
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

    def identity(self, lowering: Lowering) -> dict[str, Any]:
        """What of a request its completions depend on (weights, arithmetic, address), and not how training went: JSON."""
        ...

    def checkpoints(self, model: TunedModel, folder: Path) -> dict[int, str]:
        """Checkpoints that can be sampled, by step: an id for `TunedModel.id`. `folder` is the run's."""
        ...

    def export(
        self, lowering: Lowering, model: TunedModel, format: ExportFormat, out: Path, progress: Callable[[str], None]
    ) -> Path:
        """Write the weights of a tuned model to the folder `out`, which does not exist yet, whole or not at all; returns `out`.

        Raises `UsageError` for a form that `capabilities` does not list.
        """
        ...

    def preview(self, lowering: Lowering, train: Path, count: int) -> list[list[tuple[str, bool]]]:
        """The first `count` training examples as pieces of text, each with whether the loss is computed on it.

        Raises `UsageError` where `capabilities.token_preview` is False.
        """
        ...
