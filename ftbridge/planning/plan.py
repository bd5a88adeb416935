"""A plan: what a job will cost on each side, whether it fits, how long it takes, how long its result lives, and advice.

Only the data are read and prepared, in a scratch folder; nothing is sent, no weights and no torch are loaded.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ftbridge import files, providers
from ftbridge.evaluation.job_data import JobData
from ftbridge.planning.advice import Advice, Facts, advise
from ftbridge.planning.evidence import measured_on
from ftbridge.planning.hosted_plan import Managed, plan_hosted
from ftbridge.planning.local_plan import Local, plan_local, rate_factor
from ftbridge.planning.money import cannot_run
from ftbridge.planning.rollouts import Rollouts, rollouts_of
from ftbridge.planning.tokens import SplitTokens
from ftbridge.planning.workload import Schedule, Workload
from ftbridge.prices import PriceList, load_prices
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runs import store
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec.lowering import FieldReport, Lowering

Side = Literal["openai", "local"]


class Gate(BaseModel):
    """Something the spec asked for that the plan cannot keep; exit code 4, or 2 where the side refuses the field."""

    model_config = ConfigDict(frozen=True)

    field: str
    side: Side
    message: str
    refused: bool = Field(
        default=False, description="The side refuses this field, so `ftbridge run` would not start there."
    )


class Plan(BaseModel):
    """What `ftbridge plan --json` prints."""

    model_config = ConfigDict(frozen=True)

    name: str
    method: str
    splits: dict[str, SplitTokens]
    epochs: int
    steps: int = Field(description="Optimizer steps.")
    schedules: dict[str, Schedule] = Field(
        default={}, description="Epochs and steps by provider, whose rules for auto differ."
    )
    openai: Managed | None
    local: Local | None
    advice: list[Advice]
    explicit: list[str] = Field(
        validation_alias=AliasChoices("explicit", "given"),
        description="Fields that the spec sets itself, not by default.",
    )
    lowering: dict[str, Lowering] = Field(description="By provider.")
    gates: list[Gate]
    ok: bool

    def schedule(self, provider: str | None) -> Schedule:
        """Epochs and steps at one provider; plans of version 0.1 have one schedule for all."""
        return self.schedules.get(provider or "", Schedule(epochs=self.epochs, steps=self.steps))


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
    with files.scratch_folder(files.home()) as scratch:
        job = JobData.prepare(spec_file, scratch / "data")
        return plan_of(job, prices=prices, config=config, gpu_usd_per_hour=gpu_usd_per_hour, today=today)


def plan_of_run(run: Run) -> Plan:
    """The plan of a run that has its data, which is read where it lies. Raises as `plan` does.

    What the run's own provider refused, the run was allowed to go on without: it would not exist otherwise.
    """
    job = JobData.of_run(run)
    provider = providers.find(run.state().provider)
    return plan_of(job, allowed=provider.capabilities(job.spec).plan if provider is not None else None)


def read_plan(run: Run) -> Plan | None:
    """The plan that a run began with; None without one, or where another version wrote it and this one cannot read it."""
    try:
        return Plan.model_validate_json(run.plan_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def plan_of(
    job: JobData,
    *,
    prices: PriceList | None = None,
    config: Path | None = None,
    gpu_usd_per_hour: float | None = None,
    today: datetime.date | None = None,
    allowed: Side | None = None,
) -> Plan:
    """Reckon a job whose data are prepared. Arguments and errors as `plan`; `allowed` is a side that goes on without what it
    refuses.
    """
    prices, today = prices or load_prices(), today or datetime.datetime.now(datetime.timezone.utc).date()
    spec = job.spec
    models: dict[Side, str | None] = {"openai": spec.model.openai, "local": spec.model.local}
    work = Workload(job)
    mappings = {name: job.map(name).lowering for name, model in models.items() if model is not None}
    refused = {name: [] if name == allowed else mapping.refused for name, mapping in mappings.items()}
    openai, local = None, None
    if spec.model.openai is not None:
        openai = plan_hosted(work, spec.model.openai, prices, today, refused["openai"])
    if "local" in mappings:
        local = plan_local(
            work,
            config=config,
            gpu_usd_per_hour=gpu_usd_per_hour,
            serving_per_million=openai.money.serving_per_million if openai else None,
            rollouts=_rollouts(mappings["local"], work, prices),
        )
        local = _without_money(local) if cannot_run(refused["local"]) else local
    schedules = {name: work.schedule(name) for name in mappings}
    schedule = work.schedule("local" if spec.model.local is not None else "openai")
    gates = list(_gates(spec, openai, local, refused))
    measured = measured_on(job.path("test"), store.runs(files.home()))
    factor = rate_factor(spec.model.local, config) if spec.model.local is not None else 1.0
    facts = Facts(spec, work.splits, schedule.epochs, schedule.steps, measured, factor)
    return Plan(
        name=spec.name,
        method=spec.method,
        splits=work.splits,
        epochs=schedule.epochs,
        steps=schedule.steps,
        schedules=schedules,
        openai=openai,
        local=local,
        advice=advise(facts),
        explicit=[path for path, _ in _leaves(spec.model_dump(exclude_unset=True))],
        lowering=mappings,
        gates=gates,
        ok=not gates,
    )


def _without_money(local: Local) -> Local:
    """A side that cannot run costs nothing and breaks even with nothing."""
    return local.model_copy(update={"usd": None, "break_even_tokens": None, "monthly": None, "rollouts": None})


def _rollouts(mapping: Lowering, work: Workload, prices: PriceList) -> Rollouts | None:
    request = LocalRequest.of(mapping.request)
    return rollouts_of(request, work.job.folder, prices, work.encoding, work.splits["train"])


def _leaves(document: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that was written, by its dotted path."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _gates(
    spec: JobSpec,
    openai: Managed | None,
    local_plan: Local | None,
    refused: Mapping[Side, Sequence[FieldReport]],
) -> Iterator[Gate]:
    """What each side refuses, then the limits that it does not keep; a side that cannot run has no limits to keep."""
    for side, reports in refused.items():
        for report in reports:
            text = f"{side} refuses {report.field} = {_shortened(report.requested)}: {report.how}."
            yield Gate(field=report.field, side=side, message=text, refused=True)
    if openai is not None and not cannot_run(refused["openai"]):
        yield from _hosted_gates(spec, openai)
    if local_plan is not None and not cannot_run(refused["local"]):
        yield from _local_gates(spec, local_plan)


def _hosted_gates(spec: JobSpec, openai: Managed) -> Iterator[Gate]:
    """The budget, by the rule of a run's preflight: a price that the list does not hold at this service is not known."""
    limit, total = spec.budget.max_usd, openai.money.total
    if limit is not None:
        if total is None:
            service = "" if openai.target == "openai" else f" at {openai.target}"
            text = (
                f"budget.max_usd = {limit:g} cannot be enforced: no price is known for {openai.model}{service}. Add it to a "
                "price list (FTBRIDGE_PRICES), or leave budget.max_usd out."
            )
            yield Gate(field="budget.max_usd", side="openai", message=text)
        elif total[0] > limit:
            cost = f"training and evaluation at the hosted provider cost at least ${total[0]:.2f}"
            yield Gate(field="budget.max_usd", side="openai", message=f"{cost}; budget.max_usd is {limit:g}.")
    days = spec.plan.min_life_days
    if days is not None and openai.days_left is not None and openai.days_left < days:
        text = f"{openai.model} and models tuned from it stop in {openai.days_left} days; plan.min_life_days is {days}."
        yield Gate(field="plan.min_life_days", side="openai", message=text)


def _local_gates(spec: JobSpec, local_plan: Local) -> Iterator[Gate]:
    judges = local_plan.rollouts.judges_usd if local_plan.rollouts is not None else None
    if judges is not None and spec.budget.max_usd is not None and judges[0] > spec.budget.max_usd:
        text = f"judges cost ${judges[0]:.2f} at least while training here; budget.max_usd is {spec.budget.max_usd:g}."
        yield Gate(field="budget.max_usd", side="local", message=text)
    limit, hours = spec.budget.max_hours, local_plan.pace.hours
    if limit is not None and hours is not None and hours[0] > limit:
        text = f"training here takes {hours[0]:.1f} hours at least; budget.max_hours is {limit:g}."
        yield Gate(field="budget.max_hours", side="local", message=text)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
