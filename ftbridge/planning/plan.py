"""A plan: what a job will cost on each side, whether it fits, how long it takes, how long its result lives, and advice.

Only the data are read and prepared, in a scratch folder; nothing is sent, no weights and no torch are loaded.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import files, providers
from ftbridge.data.manifest import Manifest, load_manifest
from ftbridge.data.notation import count_reasoning
from ftbridge.data.prepare import prepare
from ftbridge.data.targets import longest_example
from ftbridge.data.tokens import encoding_for
from ftbridge.errors import DataError, MissingDependency, ModelUnavailable, UsageError
from ftbridge.evaluation.items import Item, load_items
from ftbridge.evaluation.retention.questions import write_questions
from ftbridge.planning.advice import Advice, Facts, advise
from ftbridge.planning.evidence import measured_on
from ftbridge.planning.local_tokens import LocalTokens, local_tokens, renderer_of
from ftbridge.planning.machine import Machine, this_machine
from ftbridge.planning.memory import (
    CARDS,
    GIB,
    Memory,
    Shape,
    largest_pass,
    longest_that_fits,
    memory,
    published_shape,
    read_shape,
)
from ftbridge.planning.money import Money, Monthly, break_even_tokens, judge_money, managed, monthly
from ftbridge.planning.pace import Pace, managed_pace, pace
from ftbridge.planning.rollouts import Rollouts, rollouts_of
from ftbridge.planning.tokens import SplitTokens, prompt_tokens, split_tokens
from ftbridge.planning.whole import Completions, Whole, whole
from ftbridge.prices import PriceList, load_prices
from ftbridge.providers import resolve
from ftbridge.providers.local.lower import quantization
from ftbridge.providers.local.models.footprint import Kind
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.openai import calendar
from ftbridge.runs import store
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec.lowering import Lowering

_PASS = 2048
"""Tokens of the pass that memory is told for."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Fit(_Document):
    """A card, and the largest pass that it holds."""

    card: str
    gib: float
    pass_tokens: int = Field(description="Tokens of the largest forward and backward pass; 0: it does not fit.")
    longest_example: int = Field(description="Tokens of the longest example that such a pass holds.")


class Managed(_Document):
    """The hosted provider."""

    model: str
    target: str
    money: Money
    stops: datetime.date | None = Field(description="The day the base model and its tuned models stop, if known.")
    days_left: int | None
    no_new_jobs: datetime.date | None = Field(description="From this day the service takes no new jobs.")
    pace: Pace = Field(description="Hours from submission to result, from finished runs at the service.")


class Local(_Document):
    """This machine's side."""

    model: str
    parameters: int | None = Field(description="Null when the model's config is not at hand.")
    quantization: str
    tokens: dict[str, LocalTokens] | None = Field(
        default=None, description="By split, by the model's own tokenizer and template; null when it is not at hand."
    )
    memory: Memory | None = Field(description="On a card, of a pass of 2,048 tokens, about.")
    processor_memory: Memory | None = Field(
        default=None, description="On a CPU, of a pass as large as the trainer takes there, about."
    )
    cards: list[Fit]
    machine: Machine = Field(description="This machine, as it is now.")
    here: Fit | None = Field(description="The device that training takes here, with what is free on it now.")
    pace: Pace = Field(description="Hours of training.")
    whole: Whole | None = Field(
        default=None, description="Hours of the whole run, with loading and completing; null where no size is known."
    )
    usd: tuple[float, float] | None = Field(description="Hours times the price of an hour; null when none was told.")
    rollouts: Rollouts | None = Field(
        default=None, description="Method reinforcement: completions that training draws, and what grading them takes."
    )
    break_even_tokens: int | None = Field(description="Tokens a month above which a card of your own serves cheaper.")
    monthly: Monthly | None = Field(
        default=None, description="Serving plan.monthly_tokens on both sides; null when no volume was told."
    )
    notes: list[str]


class Gate(_Document):
    """Something the spec asked for that the plan cannot keep; exit code 4."""

    field: str
    side: Literal["openai", "local"]
    message: str


class Plan(_Document):
    """What `ftbridge plan --json` prints."""

    name: str
    method: str
    splits: dict[str, SplitTokens]
    epochs: int
    steps: int = Field(description="Optimizer steps.")
    openai: Managed | None
    local: Local | None
    advice: list[Advice]
    given: list[str] = Field(description="Fields that the spec gives, as against defaults.")
    lowering: dict[str, Lowering] = Field(description="By provider.")
    gates: list[Gate]
    ok: bool


def plan(
    spec_file: SpecFile,
    *,
    prices: PriceList | None = None,
    config: Path | None = None,
    gpu_usd_per_hour: float | None = None,
    today: datetime.date | None = None,
) -> Plan:
    """Reckon a job. `config` is the local model's config.json, where it is not at hand otherwise.

    Raises `DataError`, `UsageError` or `SpecError` as `ftbridge run` would.
    """
    prices, today = prices or load_prices(), today or datetime.datetime.now(datetime.timezone.utc).date()
    with files.scratch_folder(files.home()) as scratch:
        manifest = prepare(spec_file.spec, base=spec_file.base, out=scratch / "data")
        return _reckon(spec_file.spec, scratch / "data", manifest, prices, config, gpu_usd_per_hour, today)


def plan_of_run(run: Run) -> Plan:
    """The plan of a run that has its data, which is read where it lies. Raises as `plan` does."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return _reckon(run.resolved_spec(), run.data, load_manifest(run.data), load_prices(), None, None, today)


def read_plan(run: Run) -> Plan | None:
    """The plan that a run began with; None without one, or where another version wrote it and this one cannot read it."""
    try:
        return Plan.model_validate_json(run.plan_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _reckon(
    spec: JobSpec,
    data: Path,
    manifest: Manifest,
    prices: PriceList,
    config: Path | None,
    gpu_usd_per_hour: float | None,
    today: datetime.date,
) -> Plan:
    managed_model = spec.model.openai
    encoding = encoding_for(managed_model)
    limit = longest_example(managed_model) if managed_model else None
    splits: dict[str, SplitTokens] = {
        str(name): split_tokens(data / f"{name}.jsonl", encoding, limit) for name in manifest.splits
    }
    items = load_items(data / "test.jsonl") if (data / "test.jsonl").exists() else []
    questions = _questions(spec, data)
    prompt_counts, referenced = prompt_tokens(items, encoding) if items else (0, 0)
    asked_more, referenced_more = prompt_tokens(questions, encoding) if questions else (0, 0)
    reasoning = count_reasoning(data / "train.jsonl")
    resolved = resolve(spec, splits["train"].examples, "local", reasoning).spec.hyperparameters
    epochs, batch = int(resolved.n_epochs), int(resolved.batch_size)
    steps = epochs * -(-splits["train"].examples // batch)
    sides = {
        name: providers.load(name).lower(resolve(spec, splits["train"].examples, name, reasoning))
        for name, model in (("openai", managed_model), ("local", spec.model.local))
        if model is not None
    }
    baselines = [
        name for name in spec.evaluation.baselines if name != "zero_shot" or spec.evaluation.system is not None
    ]
    shots = _few_shot_tokens(spec, splits, len(items)) + prompt_counts * (len(baselines) - ("few_shot" in baselines))
    candidates, samples = 2 + len(baselines), spec.evaluation.samples
    longest = spec.evaluation.max_completion_tokens
    count = samples * candidates * len(items) + 2 * len(questions)
    completions = Completions(
        count=count,
        read=samples * (2 * prompt_counts + shots) + 2 * asked_more,
        written=(samples * candidates * referenced + 2 * referenced_more, count * longest),
    )
    openai = None
    if managed_model is not None:
        money = managed(
            prices,
            managed_model,
            training_tokens=splits["train"].tokens * epochs,
            prompt_count=samples * (prompt_counts + shots) + asked_more,
            completion_tokens=(
                samples * (candidates - 1) * referenced + referenced_more,
                (samples * (candidates - 1) * len(items) + len(questions)) * longest,
            ),
            tuned_asked=samples * prompt_counts + asked_more,
            tuned_answered=(
                samples * referenced + referenced_more,
                (samples * len(items) + len(questions)) * longest,
            ),
            batch=spec.openai.batch,
            judges=judge_money(prices, spec.evaluation.graders, items, samples * candidates, longest, encoding),
            today=today,
        )
        openai = _managed(spec, managed_model, money, splits["train"].tokens * epochs, today)
    rollouts = None
    if "local" in sides:
        rollouts = rollouts_of(LocalRequest.model_validate(sides["local"].request), data, prices, encoding)
    local_plan = (
        _local(spec, data, splits, epochs, openai, config, gpu_usd_per_hour, completions, rollouts)
        if spec.model.local is not None
        else None
    )
    gates = list(_gates(spec, openai, local_plan))
    return Plan(
        name=spec.name,
        method=spec.method,
        splits=splits,
        epochs=epochs,
        steps=steps,
        openai=openai,
        local=local_plan,
        advice=advise(Facts(spec, splits, epochs, steps, measured_on(data / "test.jsonl", store.runs(files.home())))),
        given=[path for path, _ in _given(spec.model_dump(exclude_unset=True))],
        lowering=sides,
        gates=gates,
        ok=not gates,
    )


def _questions(spec: JobSpec, data: Path) -> list[Item]:
    """What retention asks: as a run wrote it, or as it would."""
    if spec.evaluation.retention is None:
        return []
    path = data / "retention.jsonl"
    if not path.exists():
        write_questions(spec.evaluation.retention, data / "train.jsonl", path)
    return load_items(path)


def _given(document: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that was written, by its dotted path."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _given(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _few_shot_tokens(spec: JobSpec, splits: dict[str, SplitTokens], items: int) -> int:
    """Prompt tokens of the few_shot candidate beyond base's own: its examples before every item, and the item again."""
    if "few_shot" not in spec.evaluation.baselines or not items:
        return 0
    train, test = splits["train"], splits["test"]
    example = train.tokens / max(1, train.examples)
    return round(items * spec.evaluation.few_shot_examples * example) + test.tokens


def _managed(spec: JobSpec, model: str, money: Money, tokens: int, today: datetime.date) -> Managed:
    is_openai = spec.openai.target == "openai"
    stops = calendar.shutdown(model) if is_openai else None
    notes = list(money.notes)
    if not is_openai:
        notes.append(f"Prices and dates are OpenAI's; {spec.openai.target} has its own.")
    return Managed(
        model=model,
        target=spec.openai.target,
        money=money.model_copy(update={"notes": notes}),
        stops=stops,
        days_left=None if stops is None else (stops - today).days,
        no_new_jobs=calendar.NO_NEW_JOBS if is_openai else None,
        pace=managed_pace(tokens, spec, store.runs(files.home())),
    )


def _local(
    spec: JobSpec,
    data: Path,
    splits: dict[str, SplitTokens],
    epochs: int,
    openai: Managed | None,
    config: Path | None,
    gpu_usd_per_hour: float | None,
    completions: Completions,
    rollouts: Rollouts | None,
) -> Local:
    model, train = spec.model.local or "", splits["train"]
    machine = this_machine(cards=spec.local.device in ("auto", "cuda"))
    notes = list(machine.notes)
    path = config or find_config(model)
    shape: Shape | None = None
    if path is None and (published := published_shape(model)) is not None:
        shape = published
        notes.append(f"The sizes of {model} are those of its published config; its tokenizer is not on this machine.")
    elif path is None:
        notes.append(
            f"The config of {model} is not on this machine: give --config FILE, or fetch it once "
            "(a gated model wants its terms accepted on its page, and HF_TOKEN)."
        )
    else:
        try:
            shape = read_shape(path)
        except UsageError as error:
            if config is not None:
                raise
            notes.append(error.message)
    tokens = _counted(path, data, splits, spec, notes)
    counted = tokens["train"] if tokens else None
    read, loss_tokens = (counted.tokens, counted.trained) if counted else (train.tokens, train.trained)
    share = min(1.0, loss_tokens / max(1, read))
    memory_estimate = memory(shape, spec.local, pass_tokens=_PASS, trained_share=share) if shape else None
    kind, device, free = machine.device(spec.local.device)
    compute = machine.compute if kind == "cpu" else 2
    size = _cpu_pass(spec, read, train.examples)
    # Where memory is ample, as it is on most CPUs, the worker keeps a 16-bit copy and recomputes nothing.
    on_cpu = (
        memory(
            shape,
            spec.local,
            pass_tokens=size,
            trained_share=share,
            checkpointing=False,
            kind="cpu",
            compute=machine.compute,
            copied=spec.local.keep_dequantized is not False,
        )
        if shape
        else None
    )
    fits = [_fit(name, gib * GIB * 0.97, shape, spec, share) for name, gib in CARDS.items()] if shape else []
    fit = None
    if shape is not None and free is not None:
        fit = _fit(device, free * 0.97, shape, spec, share, kind, compute)
    if fit is not None and not fit.pass_tokens:
        quantized = quantization(spec.local)
        notes.append(
            f"It does not fit what is free here now; quantization stays {quantized}. Take a smaller model, or free memory."
        )
    passes = epochs + REFERENCE_SHARE * (spec.method == "dpo")
    work = round(read * passes) if rollouts is None else sum(rollouts.tokens) // 2
    # What is published of training says nothing of drawing completions.
    sizes = shape if rollouts is None else None
    speed = pace(work, spec, sizes, store.runs(files.home()), files.home() / "probes.json")
    hour = gpu_usd_per_hour or spec.plan.hour_usd
    usd = (speed.hours[0] * hour, speed.hours[1] * hour) if hour is not None and speed.hours is not None else None
    if hour is None:
        notes.append("No price of an hour was told (plan.gpu_usd_per_hour, or plan.watts and plan.usd_per_kwh).")
    serving = openai.money.serving_per_million if openai else None
    return Local(
        model=model,
        parameters=shape.parameters if shape else None,
        quantization=quantization(spec.local),
        tokens=tokens,
        memory=memory_estimate,
        processor_memory=on_cpu,
        cards=fits,
        machine=machine,
        here=fit,
        pace=speed,
        whole=whole(speed, completions, spec, shape, kind, store.runs(files.home())),
        usd=usd,
        rollouts=rollouts,
        break_even_tokens=break_even_tokens(hour, serving) if hour is not None and serving else None,
        monthly=monthly(spec.plan.monthly_tokens, hour, serving),
        notes=notes,
    )


REFERENCE_SHARE = 0.35
"""Epochs' worth of time that measuring the reference model takes: one pass forward, of forward and backward."""


def _cpu_pass(spec: JobSpec, tokens: int, examples: int) -> int:
    """Tokens of the trainer's largest pass on a CPU: a whole batch, up to 2,048, the fastest there; or what the spec says."""
    requested = spec.local.tokens_per_pass
    batch = spec.hyperparameters.batch_size
    size = batch if isinstance(batch, int) else 1
    return min(
        requested if isinstance(requested, int) else _PASS, max(256, round(1.1 * size * tokens / max(1, examples)))
    )


def _fit(
    device: str, size: float, shape: Shape, spec: JobSpec, share: float, kind: Kind = "cuda", compute: int = 2
) -> Fit:
    most = largest_pass(shape, spec.local, size, share, kind=kind, compute=compute)
    longest = longest_that_fits(shape, most)
    return Fit(card=device, gib=round(size / 0.97 / GIB, 2), pass_tokens=most, longest_example=longest)


def _counted(
    config: Path | None, data: Path, splits: dict[str, SplitTokens], spec: JobSpec, notes: list[str]
) -> dict[str, LocalTokens] | None:
    """Every split by the model's own tokenizer and template; None, and a note, where they are not at hand."""
    about = "Tokens are counted in the managed model's vocabulary; a local tokenizer often makes a tenth more or less."
    if config is None or not (config.parent / "tokenizer.json").exists() or spec.method == "reinforcement":
        notes.append(about)
        return None
    try:
        reasoning = count_reasoning(data / "train.jsonl")
        settled = resolve(spec, splits["train"].examples, "local", reasoning).spec.local
        renderer = renderer_of(config.parent, settled.thinking)
        counts = {name: local_tokens(data / f"{name}.jsonl", renderer, spec.local) for name in splits}
    except (MissingDependency, ModelUnavailable) as error:
        notes.append(f"{error.message} {about}")
        return None
    for name, split in counts.items():
        if split.counted < split.examples:
            notes.append(f"{name}: tokens are scaled from {split.counted:,} of {split.examples:,} examples.")
        if split.too_long:
            became = {"refuse": "the run would be refused", "truncate": "they are cut", "drop": "they are left out"}
            longer = f"longer than local.max_length = {spec.local.max_length:,}"
            notes.append(f"{name}: {split.too_long:,} examples are {longer}; {became[spec.local.too_long]}.")
        if split.unreadable and split.unreadable == split.examples:
            _refuse_model(spec, name, split)
        if split.unreadable:
            notes.append(f"{name}: {split.unreadable:,} examples cannot be expressed by this model's chat template.")
    return counts


def _refuse_model(spec: JobSpec, name: str, split: LocalTokens) -> None:
    """Raise `DataError`: a run with this model would train nothing, so there is nothing to plan."""
    raise DataError(
        f"{name}: the chat template of {spec.model.local} cannot write any of the {split.examples:,} examples: "
        f"{(split.reason or '').rstrip('.')}.",
        hint="Choose a model whose template has a place for them, or leave model.local out of the spec.",
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


def _gates(spec: JobSpec, openai: Managed | None, local_plan: Local | None) -> Sequence[Gate]:
    gates = []
    if openai is not None and spec.budget.max_usd is not None:
        total = openai.money.total
        if total is None:
            text = f"budget.max_usd = {spec.budget.max_usd:g} cannot be held: no price is known for {openai.model}."
            gates.append(Gate(field="budget.max_usd", side="openai", message=text))
        elif total[0] > spec.budget.max_usd:
            text = f"the managed side costs ${total[0]:.2f} at least; budget.max_usd is {spec.budget.max_usd:g}."
            gates.append(Gate(field="budget.max_usd", side="openai", message=text))
    judges = local_plan.rollouts.judges_usd if local_plan is not None and local_plan.rollouts is not None else None
    if judges is not None and spec.budget.max_usd is not None and judges[0] > spec.budget.max_usd:
        text = f"judges cost ${judges[0]:.2f} at least while training here; budget.max_usd is {spec.budget.max_usd:g}."
        gates.append(Gate(field="budget.max_usd", side="local", message=text))
    limit, hours = spec.budget.max_hours, local_plan.pace.hours if local_plan is not None else None
    if limit is not None and hours is not None and hours[0] > limit:
        text = f"training here takes {hours[0]:.1f} hours at least; budget.max_hours is {limit:g}."
        gates.append(Gate(field="budget.max_hours", side="local", message=text))
    days = spec.plan.min_life_days
    if openai is not None and days is not None and openai.days_left is not None and openai.days_left < days:
        text = f"{openai.model} and models tuned from it stop in {openai.days_left} days; plan.min_life_days is {days}."
        gates.append(Gate(field="plan.min_life_days", side="openai", message=text))
    return gates
