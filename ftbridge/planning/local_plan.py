"""This machine's half of a plan: whether the model fits, how long it takes, what an hour comes to.

config.json ─▶ sizes ─▶ memory of a micro-batch ─▶ GPUs that hold it, and this machine
tokenizer   ─▶ tokens as the trainer counts them ─▶ hours, from own runs, a CPU's products or published figures
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import files
from ftbridge.errors import DataError, MissingDependency, ModelUnavailable, UsageError
from ftbridge.planning import sharding
from ftbridge.planning.local_tokens import LocalTokens, local_tokens, renderer_of
from ftbridge.planning.machine import Machine, this_machine
from ftbridge.planning.memory import (
    CARDS,
    GIB,
    Memory,
    ModelShape,
    job_of,
    largest_pass,
    longest_that_fits,
    memory,
    published_config,
    published_shape,
    read_shape,
)
from ftbridge.planning.money import Monthly, break_even_tokens, monthly
from ftbridge.planning.pace import Pace, Reckoned, pace
from ftbridge.planning.processor import products, tokens_per_second
from ftbridge.planning.replay import ReplayPlan
from ftbridge.planning.rollouts import Rollouts
from ftbridge.planning.sharding import ClusterPlan, GpuSet, PerGpu
from ftbridge.planning.whole import Whole, plan_run_time
from ftbridge.planning.workload import Workload
from ftbridge.providers.local.defaults import width_factor
from ftbridge.providers.local.lower import quantization
from ftbridge.providers.local.models.footprint import Kind
from ftbridge.providers.local.process.job import encoded_folder
from ftbridge.runs import store
from ftbridge.spec import JobSpec

_PASS = 2048
"""Tokens of the micro-batch that memory is shown for."""
REFERENCE_SHARE = 0.35
"""Epochs' worth of time that measuring the reference model takes: one pass forward, of forward and backward."""
VALIDATION_SHARE = 0.4
"""Time of validating a token, of training one: forward alone, with logits at the same places."""


class Fit(BaseModel):
    """A card, and the largest pass that it holds."""

    model_config = ConfigDict(frozen=True)

    card: str
    gib: float
    pass_tokens: int = Field(description="Tokens of the largest micro-batch; 0 if the job does not fit.")
    longest_example: int = Field(description="Tokens of the longest example that a micro-batch can hold.")


class Local(BaseModel):
    """This machine's side."""

    model_config = ConfigDict(frozen=True)

    model: str
    parameters: int | None = Field(description="Null if the model's config is not available.")
    quantization: str
    tokens: dict[str, LocalTokens] | None = Field(
        default=None, description="By split, by the model's own tokenizer and template; null if that is not available."
    )
    memory: Memory | None = Field(description="Approximate memory on a GPU, with micro-batches of 2,048 tokens.")
    processor_memory: Memory | None = Field(
        default=None, description="Approximate memory on a CPU, with micro-batches as large as the trainer uses there."
    )
    cards: list[Fit]
    per_gpu: list[PerGpu] = Field(
        default=[], description="Approximate memory on 1, 2, 4 and 8 GPUs, with micro-batches of 2,048 tokens."
    )
    gpu_sets: list[GpuSet] = Field(
        default=[], description="The smallest common GPUs that hold the job, by how many there are of them."
    )
    clusters: list[ClusterPlan] = Field(
        default=[],
        description="Approximate memory on the GPUs that the spec requests of a cluster, with micro-batches of 2,048 tokens.",
    )
    machine: Machine = Field(description="This machine, with its free memory now.")
    here: Fit | None = Field(description="The device that training uses here, with its free memory now.")
    pace: Pace = Field(description="Hours of training.")
    whole: Whole | None = Field(
        default=None, description="Hours of the whole run, with loading and completing; null where no size is known."
    )
    usd: tuple[float, float] | None = Field(description="Hours times the price per hour; null without one.")
    rollouts: Rollouts | None = Field(
        default=None, description="Method reinforcement: completions that training draws, and what grading them takes."
    )
    replay: ReplayPlan | None = Field(default=None, description="What data.replay adds; null without it.")
    break_even_tokens: int | None = Field(
        description="Tokens per month above which serving on your own GPU is cheaper."
    )
    monthly: Monthly | None = Field(
        default=None,
        description="Cost of serving plan.monthly_tokens at the service and on your own GPU; null if it is not set.",
    )
    notes: list[str]


def plan_local(
    work: Workload,
    *,
    config: Path | None = None,
    gpu_usd_per_hour: float | None = None,
    serving_per_million: tuple[float, float] | None = None,
    rollouts: Rollouts | None = None,
) -> Local:
    """Memory, hours and cost of training the spec's `model.local` here. No weights and no torch are loaded.

    `config` is the model's config.json where it is not on this machine otherwise, `gpu_usd_per_hour` overrides the spec's,
    `serving_per_million` is what a million tokens of the hosted model cost in US dollars, from and to. Raises `UsageError` for
    a `config` that cannot be read.
    """
    spec = work.job.spec
    machine = this_machine(cards=spec.local.device in ("auto", "cuda"))
    notes = list(machine.notes)
    path = config or find_config(spec.model.local or "")
    shape = _shape(spec.model.local or "", path, required=config is not None, notes=notes)
    tokens = _counted(path, work, notes)
    train = work.splits["train"]
    counted = tokens["train"] if tokens else None
    read, loss_tokens = (counted.tokens, counted.trained) if counted else (train.tokens, train.trained)
    fits = _Fits(spec, machine, shape, min(1.0, loss_tokens / max(1, read)), rollouts)
    this_device = fits.this_device()
    if this_device is not None and not this_device.pass_tokens:
        quantized = quantization(spec.local)
        notes.append(
            f"The job does not fit into the free memory of this machine with {quantized} weights. Use a smaller "
            "model, or free memory."
        )
    replay = work.replay("local")
    speed = _pace(work, tokens, shape, machine, rollouts, replay)
    hour = gpu_usd_per_hour or spec.plan.hour_usd
    usd = _cost(speed, hour, notes)
    serving = serving_per_million
    return Local(
        model=spec.model.local or "",
        parameters=shape.parameters if shape else None,
        quantization=quantization(spec.local),
        tokens=tokens,
        memory=fits.on_a_gpu(),
        processor_memory=fits.on_the_processor(
            _cpu_pass(spec, rollouts.step_tokens if rollouts is not None else 1.1 * _step_tokens(work, read)),
            longest=rollouts.longest if rollouts is not None else (counted or train).longest,
        ),
        cards=fits.gpus(),
        per_gpu=fits.on_several(),
        gpu_sets=fits.smallest_sets(),
        clusters=fits.on_clusters(),
        machine=machine,
        here=this_device,
        pace=speed,
        whole=plan_run_time(speed, work.all_completions(replay), spec, shape, fits.kind, store.runs(files.home())),
        usd=usd,
        rollouts=rollouts,
        replay=replay,
        break_even_tokens=break_even_tokens(hour, serving) if hour is not None and serving else None,
        monthly=monthly(spec.plan.monthly_tokens, hour, serving),
        notes=notes,
    )


def _shape(model: str, path: Path | None, *, required: bool, notes: list[str]) -> ModelShape | None:
    """The model's sizes, from its config or from those published; None, and a note, where neither is there."""
    if path is None and (published := published_shape(model)) is not None:
        notes.append(f"The sizes of {model} are those of its published config; its tokenizer is not on this machine.")
        return published
    if path is None:
        notes.append(
            f"The config of {model} is not on this machine: give --config FILE, or fetch it once (for a gated model, "
            "accept its terms on its page and set HF_TOKEN)."
        )
        return None
    try:
        return read_shape(path)
    except UsageError as error:
        if required:
            raise
        notes.append(error.message)
        return None


def rate_factor(model: str, config: Path | None = None) -> float:
    """What the usual learning rate is multiplied by for this model (`width_factor`); 1 where its config is not available.

    `config` is the model's config.json where it is not on this machine otherwise.
    """
    path = config or find_config(model)
    file = path / "config.json" if path is not None and path.is_dir() else path
    try:
        document = json.loads(file.read_text("utf-8")) if file is not None else published_config(model)
    except (OSError, ValueError, RecursionError):
        return 1.0
    if not isinstance(document, dict):
        return 1.0
    inner = document.get("text_config")
    text = inner if isinstance(inner, dict) else document
    widths = (text.get(key) for key in ("hidden_size", "n_embd", "d_model"))
    width = next((value for value in widths if isinstance(value, int) and value > 0), None)
    return width_factor(width, str(document.get("model_type", "")))


def _pace(
    work: Workload,
    counted: Mapping[str, LocalTokens] | None,
    shape: ModelShape | None,
    machine: Machine,
    rollouts: Rollouts | None,
    replay: ReplayPlan | None,
) -> Pace:
    """Hours of training and validating, and what is replayed; of drawing completions nothing is published or estimated."""
    spec, splits = work.job.spec, counted or work.splits
    train, epochs = splits["train"], work.schedule("local").epochs
    passes = epochs + REFERENCE_SHARE * (spec.method == "dpo")
    tokens = round(train.tokens * passes) if rollouts is None else sum(rollouts.tokens) // 2
    if rollouts is None and "validation" in splits:
        tokens += round(splits["validation"].tokens * VALIDATION_SHARE * epochs * spec.local.evals_per_epoch)
    tokens += sum(replay.training_tokens) // 2 if replay is not None else 0
    sizes = shape if rollouts is None else None
    reckoned: Callable[[], Reckoned | str] | None = None
    if rollouts is not None:
        reckoned = partial(str, "the time of drawing completions is not estimated")
    elif sizes is not None and machine.device(spec.local.device)[0] == "cpu":
        sequences = train.examples * (2 if spec.method == "dpo" else 1)
        reckoned = partial(
            _reckoned, spec, sizes, machine, train.tokens / max(1, sequences), train.trained / max(1, train.tokens)
        )
    return pace(tokens, spec, sizes, store.runs(files.home()), files.home() / "probes.json", reckoned)


def _reckoned(spec: JobSpec, shape: ModelShape, machine: Machine, length: float, loss_share: float) -> Reckoned | str:
    """Tokens a second on this machine's CPU, from its measured products; or why there is no figure."""
    if quantization(spec.local) == "int8":
        return "products in 8 bits are not measured"
    if quantization(spec.local) == "nf4" and spec.local.cache_dequantized_weights is False:
        return "the time of dequantizing weights in each pass is not measured"
    measured = products(machine, spec.local.precision)
    if isinstance(measured, str):
        return measured
    job = job_of(spec.local, "cpu", 4 if measured.compute == "float32" else 2)
    checkpointing = spec.local.gradient_checkpointing is True
    rate = tokens_per_second(measured, shape, job, length=length, loss_share=loss_share, checkpointing=checkpointing)
    return Reckoned(rate, f"this processor's products ({measured.sentence}) and the model's sizes")


class _Fits:
    """What holds a job of a model's shape; all None or empty where the shape is not known. `share`: tokens with a loss."""

    def __init__(
        self, spec: JobSpec, machine: Machine, shape: ModelShape | None, share: float, rollouts: Rollouts | None
    ) -> None:
        self.spec, self.machine, self.shape = spec, machine, shape
        self.share = share if rollouts is None else rollouts.trained_share
        self.rollouts = None if rollouts is None else (rollouts.step_completions, rollouts.longest)
        self.rows = 1.0 if rollouts is None else rollouts.attention_rows
        self.kind, self.device, self.free = machine.device(spec.local.device)

    def on_a_gpu(self) -> Memory | None:
        if self.shape is None:
            return None
        return memory(
            self.shape,
            self.spec.local,
            pass_tokens=_PASS,
            trained_share=self.share,
            rollouts=self.rollouts,
            rows=self.rows,
        )

    def on_the_processor(self, size: int, *, longest: int) -> Memory | None:
        """Of micro-batches of `size` tokens, whose longest example has `longest`. Where memory is ample, as it is on most CPUs,
        the worker keeps a 16-bit copy and recomputes nothing.
        """
        if self.shape is None:
            return None
        return memory(
            self.shape,
            self.spec.local,
            pass_tokens=size,
            trained_share=self.share,
            checkpointing=False,
            kind="cpu",
            compute=self.machine.compute,
            copied=self.spec.local.cache_dequantized_weights is not False,
            longest=longest,
            rollouts=self.rollouts,
            rows=self.rows,
        )

    def gpus(self) -> list[Fit]:
        return [fit for name, gib in CARDS.items() if (fit := self._fit(name, gib * GIB * 0.97)) is not None]

    def on_several(self) -> list[PerGpu]:
        if self.shape is None:
            return []
        return sharding.shown(self.shape, self.spec, pass_tokens=_PASS, share=self.share)

    def smallest_sets(self) -> list[GpuSet]:
        return [] if self.shape is None else sharding.smallest_sets(self.shape, self.spec, share=self.share)

    def on_clusters(self) -> list[ClusterPlan]:
        if self.shape is None:
            return []
        return sharding.on_clusters(self.shape, self.spec, pass_tokens=_PASS, share=self.share)

    def this_device(self) -> Fit | None:
        if self.free is None:
            return None
        compute = self.machine.compute if self.kind == "cpu" else 2
        return self._fit(self.device, self.free * 0.97, self.kind, compute)

    def _fit(self, device: str, size: float, kind: Kind = "cuda", compute: int = 2) -> Fit | None:
        if self.shape is None:
            return None
        most = largest_pass(
            self.shape,
            self.spec.local,
            size,
            self.share,
            kind=kind,
            compute=compute,
            rollouts=self.rollouts,
            rows=self.rows,
        )
        longest = longest_that_fits(self.shape, most)
        return Fit(card=device, gib=round(size / 0.97 / GIB, 2), pass_tokens=most, longest_example=longest)


def _step_tokens(work: Workload, read: int) -> float:
    """Tokens of an optimizer step; `read` are those of an epoch."""
    batch = work.job.resolve("local").planned("batch_size")
    return read / max(1, work.splits["train"].examples) * batch


def _cpu_pass(spec: JobSpec, step_tokens: float) -> int:
    """Tokens of the trainer's largest pass on a CPU: the largest step, up to 2,048 (the fastest), or what the spec says."""
    requested = spec.local.max_tokens_per_microbatch
    return min(requested if isinstance(requested, int) else _PASS, max(256, round(step_tokens)))


def _cost(speed: Pace, hour: float | None, notes: list[str]) -> tuple[float, float] | None:
    """US dollars, from and to. None where the hours are not known, and, with a note, where no price per hour is set."""
    if hour is None:
        notes.append("No price per hour is set (plan.gpu_usd_per_hour, or plan.watts and plan.usd_per_kwh).")
        return None
    return (speed.hours[0] * hour, speed.hours[1] * hour) if speed.hours is not None else None


def _counted(config: Path | None, work: Workload, notes: list[str]) -> dict[str, LocalTokens] | None:
    """Every split by the model's own tokenizer and template; None, and a note, where they are not at hand.

    A run that is about to train has its splits as tokens: those are counted. Otherwise examples are rendered for the plan.
    """
    spec = work.job.spec
    if spec.method != "reinforcement" and (stored := _stored(work)) is not None:
        _note_long(spec, stored, notes)
        return stored
    about = (
        "Tokens are counted with the hosted model's vocabulary; a local tokenizer often gives a tenth more or fewer."
    )
    if config is None or not (config.parent / "tokenizer.json").exists() or spec.method == "reinforcement":
        notes.append(about)
        return None
    try:
        renderer = renderer_of(config.parent, work.job.resolve("local").spec.local.thinking)
        counts = {
            str(name): local_tokens(work.job.path(name), renderer, spec.local)
            for name in work.job.manifest.splits
            if name != "replay"
        }
    except (MissingDependency, ModelUnavailable) as error:
        notes.append(f"{error.message} {about}")
        return None
    _note_long(spec, counts, notes)
    for name, split in counts.items():
        if split.counted < split.examples:
            notes.append(f"{name}: tokens are scaled from {split.counted:,} of {split.examples:,} examples.")
        if split.unreadable and split.unreadable == split.examples:
            _refuse_model(spec, name, split)
        if split.unreadable:
            notes.append(f"{name}: {split.unreadable:,} examples cannot be expressed by this model's chat template.")
    return counts


def _note_long(spec: JobSpec, counts: Mapping[str, LocalTokens], notes: list[str]) -> None:
    became = {"refuse": "the run would be refused", "truncate": "they are cut", "drop": "they are left out"}
    longer = f"longer than local.max_length = {spec.local.max_length:,}"
    for name, split in counts.items():
        if split.too_long:
            notes.append(f"{name}: {split.too_long:,} examples are {longer}; {became[spec.local.overlength]}.")


def _stored(work: Workload) -> dict[str, LocalTokens] | None:
    """The splits that the run encoded for training; None where it has not."""
    from ftbridge.providers.local.data.encoded import stored_counts

    folder = encoded_folder(work.job.folder.parent)
    counts = {}
    for name, split in work.job.manifest.splits.items():
        stored = stored_counts(folder, name, split.sha256)
        if stored is not None:
            counts[str(name)] = LocalTokens(
                examples=split.examples,
                tokens=stored.tokens,
                trained=stored.num_loss_tokens,
                longest=stored.longest,
                too_long=stored.too_long,
                unreadable=0,
                counted=split.examples,
            )
    return counts if "train" in counts else None


def _refuse_model(spec: JobSpec, name: str, split: LocalTokens) -> None:
    """Raise `DataError`: a run with this model would train nothing, so there is nothing to plan."""
    raise DataError(
        f"{name}: the chat template of {spec.model.local} cannot write any of the {split.examples:,} examples: "
        f"{(split.reason or '').rstrip('.')}.",
        hint="Choose a model whose template can write them, or leave model.local out of the spec.",
    )


def find_config(model: str) -> Path | None:
    """The config.json of a local model, where it is on this machine: a folder, a converted model, or the hub's cache."""
    from ftbridge.providers.local.models.gguf import models_folder

    cache = os.environ.get("HF_HUB_CACHE") or str(
        Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    )
    snapshots = Path(cache) / f"models--{model.replace('/', '--')}" / "snapshots"
    alias = model.rsplit("/", 1)[-1].lower()
    places = [Path(model).expanduser(), models_folder() / alias, *sorted(snapshots.glob("*"))]
    return next((path / "config.json" for path in places if (path / "config.json").is_file()), None)
