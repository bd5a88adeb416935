"""A plan: what a job will cost on each side, whether it fits, how long it takes, how long its result lives, and advice.

Only the data are read and prepared, in a scratch folder; nothing is sent, no weights and no torch are loaded.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import files, providers
from ftbridge.data.prepare import prepare
from ftbridge.data.rules.targets import longest_example
from ftbridge.data.tokens import encoding_for
from ftbridge.draft import Draft
from ftbridge.evaluation.items import load_items
from ftbridge.lowering import Lowering
from ftbridge.planning.advice import Advice, Facts, advise
from ftbridge.planning.machine import Machine, this_machine
from ftbridge.planning.memory import CARDS, GIB, Memory, Shape, largest_pass, longest_that_fits, memory, read_shape
from ftbridge.planning.money import Money, PriceList, break_even_tokens, hour_usd, load_prices, managed
from ftbridge.planning.pace import Pace, pace
from ftbridge.planning.tokens import SplitTokens, prompt_tokens, split_tokens
from ftbridge.providers.local.footprint import Kind
from ftbridge.providers.local.lower import quantization
from ftbridge.providers.openai import calendar
from ftbridge.resolve import resolve
from ftbridge.runs import store
from ftbridge.spec import JobSpec

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
    """The managed side."""

    model: str
    target: str
    money: Money
    stops: datetime.date | None = Field(description="The day the base model and its tuned models stop, if known.")
    days_left: int | None
    no_new_jobs: datetime.date | None = Field(description="From this day the service takes no new jobs.")


class Local(_Document):
    """This machine's side."""

    model: str
    parameters: int | None = Field(description="Null when the model's config is not at hand.")
    quantization: str
    memory: Memory | None = Field(description="Of a pass of 2,048 tokens, about.")
    cards: list[Fit]
    machine: Machine = Field(description="This machine, as it is now.")
    here: Fit | None = Field(description="The device that training takes here, with what is free on it now.")
    pace: Pace
    usd: tuple[float, float] | None = Field(description="Hours times the price of an hour; null when none was told.")
    break_even_tokens: int | None = Field(description="Tokens a month above which a card of your own serves cheaper.")
    notes: list[str]


class Gate(_Document):
    """Something the spec asked for that the plan cannot keep; exit code 4."""

    field: str
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
    draft: Draft,
    *,
    prices: PriceList | None = None,
    config: Path | None = None,
    gpu_usd_per_hour: float | None = None,
    today: datetime.date | None = None,
) -> Plan:
    """Reckon a job. `config` is the local model's config.json, where it is not at hand otherwise.

    Raises `DataError`, `UsageError` or `SpecError` as `ftbridge run` would.
    """
    spec, today = draft.spec, today or datetime.datetime.now(datetime.timezone.utc).date()
    managed_model = spec.model.openai
    encoding = encoding_for(managed_model)
    limit = longest_example(managed_model) if managed_model else None
    with files.scratch_folder(files.home()) as scratch:
        manifest = prepare(spec, base=draft.base, out=scratch / "data")
        splits: dict[str, SplitTokens] = {
            str(name): split_tokens(scratch / "data" / f"{name}.jsonl", encoding, limit) for name in manifest.splits
        }
        test = scratch / "data" / "test.jsonl"
        items = load_items(test) if test.exists() else []
        asked, referenced = prompt_tokens(items, encoding) if items else (0, 0)
    resolved = resolve(spec, splits["train"].examples, "local").spec.hyperparameters
    epochs, batch = int(resolved.n_epochs), int(resolved.batch_size)
    steps = epochs * -(-splits["train"].examples // batch)
    sides = {
        name: providers.load(name).lower(resolve(spec, splits["train"].examples, name))
        for name, model in (("openai", managed_model), ("local", spec.model.local))
        if model is not None
    }
    openai = None
    if managed_model is not None:
        shots = _few_shot_tokens(spec, splits, len(items))
        candidates = 2 + ("few_shot" in spec.evaluation.baselines)
        answered = (candidates * referenced, candidates * len(items) * spec.evaluation.max_completion_tokens)
        money = managed(
            prices or load_prices(),
            managed_model,
            trained=splits["train"].tokens * epochs,
            asked=asked + shots,
            answered=answered,
            tuned_asked=asked,
            batch=spec.openai.batch,
            today=today,
        )
        openai = _managed(spec, managed_model, money, today)
    own = _local(spec, splits, epochs, openai, config, gpu_usd_per_hour) if spec.model.local is not None else None
    gates = list(_gates(spec, openai, own))
    return Plan(
        name=spec.name,
        method=spec.method,
        splits=splits,
        epochs=epochs,
        steps=steps,
        openai=openai,
        local=own,
        advice=advise(Facts(spec, splits, epochs, steps)),
        given=[path for path, _ in _given(spec.model_dump(exclude_unset=True))],
        lowering=sides,
        gates=gates,
        ok=not gates,
    )


def _given(told: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that was written, by its dotted path."""
    for name, value in told.items():
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


def _managed(spec: JobSpec, model: str, money: Money, today: datetime.date) -> Managed:
    own = spec.openai.target == "openai"
    stops = calendar.shutdown(model) if own else None
    notes = list(money.notes)
    if not own:
        notes.append(f"Prices and dates are OpenAI's; {spec.openai.target} has its own.")
    return Managed(
        model=model,
        target=spec.openai.target,
        money=money.model_copy(update={"notes": notes}),
        stops=stops,
        days_left=None if stops is None else (stops - today).days,
        no_new_jobs=calendar.NO_NEW_JOBS if own else None,
    )


def _local(
    spec: JobSpec,
    splits: dict[str, SplitTokens],
    epochs: int,
    openai: Managed | None,
    config: Path | None,
    gpu_usd_per_hour: float | None,
) -> Local:
    model, train = spec.model.local or "", splits["train"]
    notes = [
        "Tokens are counted in the managed model's vocabulary; a local tokenizer often makes a tenth more or less."
    ]
    path = config or find_config(model)
    shape: Shape | None = None
    if path is None:
        notes.append(
            f"The config of {model} is not on this machine: give --config FILE, or fetch it once "
            "(a gated model wants its terms accepted on its page, and HF_TOKEN)."
        )
    else:
        shape = read_shape(path)
    share = min(1.0, train.trained / max(1, train.tokens))
    told = memory(shape, spec.local, pass_tokens=_PASS, trained_share=share) if shape else None
    fits = [_fit(name, gib * GIB * 0.97, shape, spec, share) for name, gib in CARDS.items()] if shape else []
    machine = this_machine(cards=spec.local.device in ("auto", "cuda"))
    notes += machine.notes
    kind, device, free = machine.device(spec.local.device)
    here = None
    if shape is not None and free is not None:
        compute = machine.compute if kind == "cpu" else 2
        here = _fit(device, free * 0.97, shape, spec, share, kind, compute)
    if here is not None and not here.pass_tokens:
        kept = quantization(spec.local)
        notes.append(
            f"It does not fit what is free here now; quantization stays {kept}. Take a smaller model, or free memory."
        )
    speed = pace(train.tokens * epochs, model, shape, store.runs(files.home()))
    hour = hour_usd(gpu_usd_per_hour or spec.plan.gpu_usd_per_hour, spec.plan.watts, spec.plan.usd_per_kwh)
    usd = (speed.hours[0] * hour, speed.hours[1] * hour) if hour is not None and speed.hours is not None else None
    if hour is None:
        notes.append("No price of an hour was told (plan.gpu_usd_per_hour, or plan.watts and plan.usd_per_kwh).")
    serving = openai.money.serving_per_million if openai else None
    return Local(
        model=model,
        parameters=shape.parameters if shape else None,
        quantization=quantization(spec.local),
        memory=told,
        cards=fits,
        machine=machine,
        here=here,
        pace=speed,
        usd=usd,
        break_even_tokens=break_even_tokens(hour, serving) if hour is not None and serving else None,
        notes=notes,
    )


def _fit(
    device: str, size: float, shape: Shape, spec: JobSpec, share: float, kind: Kind = "cuda", compute: int = 2
) -> Fit:
    most = largest_pass(shape, spec.local, size, share, kind=kind, compute=compute)
    return Fit(
        card=device, gib=round(size / 0.97 / GIB, 2), pass_tokens=most, longest_example=longest_that_fits(shape, most)
    )


def find_config(model: str) -> Path | None:
    """The config.json of a local model, where it is on this machine: a folder, a converted model, or the hub's cache."""
    from ftbridge.providers.local.gguf import models_folder

    cache = os.environ.get("HF_HUB_CACHE") or str(
        Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    )
    snapshots = Path(cache) / f"models--{model.replace('/', '--')}" / "snapshots"
    alias = model.rsplit("/", 1)[-1].lower()
    places = [Path(model).expanduser(), models_folder() / alias, *sorted(snapshots.glob("*"))]
    return next((place / "config.json" for place in places if (place / "config.json").is_file()), None)


def _gates(spec: JobSpec, openai: Managed | None, own: Local | None) -> Sequence[Gate]:
    gates = []
    if openai is not None and spec.budget.max_usd is not None:
        total = openai.money.total
        if total is None:
            text = f"budget.max_usd = {spec.budget.max_usd:g} cannot be held: no price is known for {openai.model}."
            gates.append(Gate(field="budget.max_usd", message=text))
        elif total[0] > spec.budget.max_usd:
            text = f"the managed side costs ${total[0]:.2f} at least; budget.max_usd is {spec.budget.max_usd:g}."
            gates.append(Gate(field="budget.max_usd", message=text))
    limit, hours = spec.budget.max_hours, own.pace.hours if own is not None else None
    if limit is not None and hours is not None and hours[0] > limit:
        text = f"training here takes {hours[0]:.1f} hours at least; budget.max_hours is {limit:g}."
        gates.append(Gate(field="budget.max_hours", message=text))
    days = spec.plan.min_life_days
    if openai is not None and days is not None and openai.days_left is not None and openai.days_left < days:
        text = f"{openai.model} and models tuned from it stop in {openai.days_left} days; plan.min_life_days is {days}."
        gates.append(Gate(field="plan.min_life_days", message=text))
    return gates
