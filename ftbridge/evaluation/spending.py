"""What a run has spent so far, from its journal and files: dollars, hours of training, hours of cards.

    journal.jsonl ─▶ trained tokens, steps, when the job worked ─┐
    predictions/  ─▶ tokens read and written, seconds ──────────┼─▶ Spent ─▶ over(budget)?
    judge_calls   ─▶ tokens of judges ──────────────────────────┘

A run that goes on for another counts what that one spent. Dollars are reckoned by the dated price list (`ftbridge.prices`);
where a price is not known, `known` is false and the part counts as 0. Derived again each time: no counter can go wrong.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from pydantic import Field

from ftbridge import providers
from ftbridge.evaluation.generate import Prediction, read_predictions
from ftbridge.evaluation.grade_cache import read_grades
from ftbridge.graders.budget import call_usd
from ftbridge.graders.calls import FILE as CALLS
from ftbridge.graders.calls import read_calls
from ftbridge.graders.chat import JudgeResponse
from ftbridge.prices import PriceList, load_prices
from ftbridge.providers.base import Frozen, PriceBasis
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.runs.journal import Event
from ftbridge.runs.metrics import metrics_of
from ftbridge.runs.run import Run, RunState
from ftbridge.spec import JobSpec, override_section
from ftbridge.spec.sections import BudgetSpec

_STOPS = frozenset({"paused", "failed", "cancelled", "interrupted", "resume_requested"})
"""After these a job does not work until it says something again."""
_WAITING = frozenset({"validating", "validating_files", "queued", "pending", "created"})
_STOPPED = frozenset({"paused", "succeeded", "failed", "cancelled", "result"})
_GPUS = ("cuda", "mps")


class Dollars(Frozen):
    """US dollars, about."""

    training: float = 0.0
    answers: float = 0.0
    judges: float = 0.0
    machine: float = Field(default=0.0, description="This machine's hours, by plan.gpu_usd_per_hour or watts.")

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.answers + self.judges + self.machine


class Spent(Frozen):
    """What a run spent, with what the run that it continues spent."""

    usd: Dollars
    known: bool = Field(description="Whether every price was known; if not, dollars cover the known part.")
    hours: float = Field(description="Wall-clock hours in which the job trained.")
    gpu_hours: float = Field(
        description="GPU hours of training and completing together, added up over GPUs; 0 on a CPU."
    )

    def __add__(self, other: Spent) -> Spent:
        """Both together."""
        parts = {name: getattr(self.usd, name) + getattr(other.usd, name) for name in Dollars.model_fields}
        return Spent(
            usd=Dollars(**parts),
            known=self.known and other.known,
            hours=self.hours + other.hours,
            gpu_hours=self.gpu_hours + other.gpu_hours,
        )

    def summary(self) -> str:
        """One line for people."""
        about = "about " if self.known else "at least "
        parts = [f"{about}${self.usd.total:.2f}" if self.usd.total or not self.known else "no money"]
        parts.append(f"{self.hours:.2f} hours of training")
        if self.gpu_hours:
            parts.append(f"{self.gpu_hours:.2f} GPU hours")
        return ", ".join(parts)


def spent(run: Run, prices: PriceList | None = None) -> Spent:
    """What a run has spent so far. Reading never changes it. Raises `UsageError` for a price list that is none."""
    prices = prices or load_prices()
    state = run.state()
    spec = run.resolved_spec() if run.resolved_path.exists() else run.spec()
    provider = providers.find(state.provider)
    basis = provider.price_basis(spec) if provider is not None else PriceBasis(unit="unknown")
    training_cost = _local(run, spec) if basis.unit == "hours" else _managed(run, basis, prices)
    judges, judges_priced = _judges(run, prices)
    dollars = training_cost.usd.model_copy(update={"judges": judges})
    training_cost = training_cost.model_copy(update={"usd": dollars, "known": training_cost.known and judges_priced})
    if state.continues is not None and (before := run.path.parent / state.continues.run).exists():
        return spent(Run.open(before), prices) + training_cost
    return training_cost


def over(spending: Spent, budget: BudgetSpec, *, training: bool = True) -> str | None:
    """Which limit is reached, as a sentence's beginning; None while there is room.

    `budget.max_hours` is of training: once that is done, answering is not stopped for it.
    """
    limits = [
        ("budget.max_usd", budget.max_usd, spending.usd.total),
        ("budget.max_gpu_hours", budget.max_gpu_hours, spending.gpu_hours),
    ]
    if training:
        limits.append(("budget.max_hours", budget.max_hours, spending.hours))
    for name, limit, value in limits:
        if limit is not None and value >= limit:
            return f"{name} = {limit:g} is used up ({spending.summary()})"
    return None


def over_by_choice(run: Run, spending: Spent, budget: BudgetSpec) -> str | None:
    """Which limit the whole training will pass since the service chose more epochs than were planned; None while it will not.

    Known as soon as the job reports its epochs, long before the money is spent.
    """
    state, limit = run.state(), budget.max_usd
    chosen, provider = state.chosen.get("n_epochs"), providers.find(state.provider)
    if limit is None or chosen is None or provider is None or chosen <= run.planned_epochs:
        return None
    basis = provider.price_basis(run.resolved_spec())
    usd = load_prices().training_usd(basis.model, _file_tokens(state), int(chosen)) if basis.unit == "tokens" else None
    if usd is None or spending.usd.total - spending.usd.training + usd <= limit:
        return None
    return (
        f"the service chose {chosen:g} epochs where {run.planned_epochs} were planned, so that training would cost about "
        f"${usd:.2f}, more than budget.max_usd = {limit:g} leaves"
    )


class Budget:
    """A run's budget while it is driven. Looking reads the run's files, so it is done once in `EVERY` seconds at most."""

    EVERY = 1.0

    def __init__(self, run: Run) -> None:
        self.run = run
        self._looked = -math.inf

    def used_up(self, *, training: bool, now: bool = False) -> str | None:
        """Which limit is reached, and what was spent; None while there is room, or no limit."""
        budget = budget_of(self.run)
        if budget == BudgetSpec() or (not now and time.monotonic() - self._looked < self.EVERY):
            return None
        spending = spent(self.run)
        self._looked = time.monotonic()
        used_up = over(spending, budget, training=training)
        return over_by_choice(self.run, spending, budget) if used_up is None and training else used_up


def _managed(run: Run, basis: PriceBasis, prices: PriceList) -> Spent:
    """At a price per token; without a known price, the hours alone."""
    state, model = run.state(), basis.model
    events, ledger = run.journal.read(), Ledger(run.path)
    epochs = run.epochs if run.resolved_path.exists() else 1
    tokens, complete = billed_tokens(events, ledger, _file_tokens(state) * epochs)
    training = prices.training_usd(model, tokens, 1)
    completions_usd: float | None = 0.0
    for tuned, sample in _answers(run):
        usd = prices.completions_usd(
            model, sample.prompt_tokens, sample.completion_tokens, tuned=tuned, batch=basis.batch
        )
        completions_usd = None if completions_usd is None or usd is None else completions_usd + usd
    is_priced = basis.unit == "tokens" and prices.holds_at(model, basis.target) and complete
    return Spent(
        usd=Dollars(training=training or 0.0, answers=completions_usd or 0.0),
        known=is_priced and training is not None and completions_usd is not None,
        hours=service_hours(events, ledger),
        gpu_hours=0.0,
    )


def _file_tokens(state: RunState) -> int:
    """Tokens of the file that a service trains on, replay examples included."""
    train = state.split("train")
    return (train.tokens if train is not None else 0) + (state.replay.tokens if state.replay is not None else 0)


def billed_tokens(events: Sequence[Event], ledger: Ledger, planned: int) -> tuple[int, bool]:
    """Trained tokens that a service bills for all jobs of a run, and whether every share is known. `planned` are those of a
    whole job: the file's, times epochs.

    A job that succeeded costs what the service says it trained, else `planned`. One that failed costs nothing; one that was
    stopped, or is at work, the share of its steps, unless the service says more. What the service counted of a whole job is
    taken for the others of this run, which train the same file.
    """
    ends = {str(event.data["job"]): event for event in ledger.of("status")}
    jobs = _jobs(events)
    counted = trained_tokens(events)
    tokens_billed, billed, complete = counted if counted is not None else planned, 0.0, True
    for index, (job, job_events) in enumerate(jobs):
        end = ends.get(job)
        state = str(end.data["state"]) if end is not None else "queued"
        succeeded = state == "succeeded" or (
            index == len(jobs) - 1 and any(event.type == "result" for event in job_events)
        )
        figures = [metrics for event in job_events if (metrics := metrics_of(event)) is not None]
        steps = max((metrics.step for metrics in figures), default=0)
        total = max((metrics.total_steps or 0 for metrics in figures), default=0)
        reported = end.data.get("trained_tokens") if end is not None else None
        if succeeded:
            billed += tokens_billed
        elif state == "failed":
            continue
        elif isinstance(reported, int):
            billed += reported
        elif total:
            billed += tokens_billed * min(1.0, steps / total)
        elif state == "cancelled" and any(event.type == "status" for event in job_events):
            complete = False
    return round(billed), complete


def _jobs(events: Sequence[Event]) -> list[tuple[str, list[Event]]]:
    """The jobs of a run in turn, each with the events from its submission to the next."""
    jobs: list[tuple[str, list[Event]]] = []
    for event in events:
        if event.type == "submitted" and (not jobs or jobs[-1][0] != str(event.data["handle"]["id"])):
            jobs.append((str(event.data["handle"]["id"]), []))
        if jobs:
            jobs[-1][1].append(event)
    return jobs


def service_hours(events: Sequence[Event], ledger: Ledger, now: float | None = None) -> float:
    """Hours in which a service's jobs trained, whoever looked.

    Of a job that is at work: from the moment it was seen running, by this machine's clock, to `now`; and by the service's own
    clock, from its first step to the last thing it said; the longer counts. Of one that has ended or is paused: what its own
    clock says, else the time between being seen at work and being seen to stop.
    """
    now = time.time() if now is None else now
    return sum(_job_seconds(job, job_events, ledger, now) for job, job_events in _jobs(events)) / 3600


def _job_seconds(job: str, job_events: Sequence[Event], ledger: Ledger, now: float) -> float:
    states = [(event.time, str(event.data["state"])) for event in ledger.of("status") if event.data["job"] == job]
    states += [(event.time, event.type) for event in job_events if event.type == "result"]
    seen, since, at_work = 0.0, None, False
    for moment, state in sorted(states):
        at_work = state not in _WAITING | _STOPPED
        if at_work and since is None:
            since = moment
        elif state in _STOPPED and since is not None:
            seen, since = seen + moment - since, None
    seconds = 0.0
    last: float | None = None
    for event in job_events:
        if event.type in _STOPS - {"interrupted"}:
            last = None
        elif event.type == "job_event":
            moment = float(event.data["time"])
            if last is not None:
                seconds += max(0.0, moment - last)
            last = moment if last is not None or metrics_of(event) is not None else None
    if since is not None:
        return max(seconds, seen + max(0.0, now - since))
    return seconds or seen


def _local(run: Run, spec: JobSpec) -> Spent:
    events = run.journal.read()
    training = _training_hours(events)
    # Each completion has the seconds of its whole batch, so equal seconds are one batch, however full it was.
    batches = {(tuned, completion.seconds) for tuned, completion in _answers(run) if completion.seconds is not None}
    answering = sum(seconds for _, seconds in batches) / 3600
    on_gpu = _device(events, spec) in _GPUS
    hour = spec.plan.hour_usd
    machine = (training + answering) * hour if hour is not None else 0.0
    return Spent(
        usd=Dollars(machine=machine),
        known=True,
        hours=training,
        gpu_hours=training * _workers(events) + answering if on_gpu else 0.0,
    )


def _answers(run: Run) -> Iterator[tuple[bool, Prediction]]:
    """Each answer that was paid for, and whether the tuned model gave it; one that was copied counts once."""
    seen: set[tuple[bool, str]] = set()
    for path in sorted((run.path / "predictions").glob("*.jsonl")):
        tuned = path.stem.startswith("tuned")
        for sample in (sample for one in read_predictions(path) for sample in one.samples):
            if (name := (tuned, sample.prompt_sha256)) not in seen:
                seen.add(name)
                yield tuned, sample


def _judges(run: Run, prices: PriceList) -> tuple[float, bool]:
    """Dollars of judge models, those whose replies could not be read included; and whether all prices were known."""
    records = read_calls(run.path / CALLS)
    if not records:  # a run of version 0.1 has what judges replied in its grades alone
        graded = [call for result in read_grades([run.grades_path]).values() for call in result.metadata.calls]
        paid = [call_usd(prices, call.model, call.endpoint, JudgeResponse(tokens=call.tokens)) for call in graded]
    else:
        paid = [call_usd(prices, one.model, one.endpoint, one.reply) for one in records if one.reply is not None]
    return sum(usd or 0.0 for usd in paid), all(usd is not None for usd in paid)


def trained_tokens(events: Sequence[Event]) -> int | None:
    """What the service said it trained, which is what it bills."""
    counts = [event.data.get("trained_tokens") for event in events if event.type == "result"]
    return next((tokens for tokens in reversed(counts) if isinstance(tokens, int)), None)


def _training_hours(events: Sequence[Event]) -> float:
    """Hours between the words of a job of our own workers from its first step on, by its own clock, without those in which it
    had stopped or waited in a queue.
    """
    seconds, last, begun = 0.0, None, False
    for event in events:
        if event.type in _STOPS or (event.type == "status" and event.data["state"] in _WAITING):
            last = None
        elif event.type == "job_event":
            moment = float(event.data["time"])
            begun = begun or metrics_of(event) is not None
            if last is not None and begun:
                seconds += max(0.0, moment - last)
            last = moment if begun else None
    return seconds / 3600


def _device(events: Sequence[Event], spec: JobSpec) -> str:
    """What the job trains on, as it says; before it says anything, what the spec asks for."""
    for event in reversed(events):
        if (metrics := metrics_of(event)) is not None and metrics.device is not None:
            return metrics.device
    return spec.local.device


def _workers(events: Sequence[Event]) -> float:
    """How many workers trained the newest step, each on a GPU of its own."""
    for event in reversed(events):
        if (metrics := metrics_of(event)) is not None and metrics.workers:
            return float(metrics.workers)
    return 1.0


def budget_of(run: Run) -> BudgetSpec:
    """The budget that holds now: the spec's, or what `ftbridge resume --set budget.…` made of it."""
    changed = run.state().budget
    return changed if changed is not None else run.spec().budget


def changed_budget(run: Run, overrides: Sequence[str]) -> BudgetSpec:
    """The budget after `budget.max_usd=40` and its like. Raises `UsageError` for anything else, and for a bad value."""
    return override_section(budget_of(run), "budget", overrides)
