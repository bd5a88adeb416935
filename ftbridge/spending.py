"""What a run has spent so far, from its journal and files: dollars, hours of training, hours of cards.

    journal.jsonl ─▶ trained tokens, steps, when the job worked ─┐
    predictions/  ─▶ tokens read and written, seconds ──────────┼─▶ Spent ─▶ over(budget)?
    grades.jsonl  ─▶ tokens of judges ──────────────────────────┘

A run that goes on for another counts what that one spent. Dollars are reckoned by the dated price list (`ftbridge.prices`);
where a price is not known, `known` is false and the part counts as 0. Derived anew each time: no counter can go wrong.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.answering import Prediction, read_predictions
from ftbridge.evaluation.grades import read_grades
from ftbridge.prices import PriceList, load_prices
from ftbridge.runs.journal import Event
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, override_section
from ftbridge.spec_sections import BudgetSpec

_STOPS = frozenset({"paused", "failed", "cancelled", "interrupted", "resume_requested"})
"""After these a job does not work until it says something again."""
_CARDS = ("cuda", "mps")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Dollars(_Document):
    """US dollars, about."""

    training: float = 0.0
    answers: float = 0.0
    judges: float = 0.0
    machine: float = Field(default=0.0, description="This machine's hours, by plan.gpu_usd_per_hour or watts.")

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.answers + self.judges + self.machine


class Spent(_Document):
    """What a run spent, with what the run that it continues spent."""

    usd: Dollars
    known: bool = Field(description="Whether every price was known; else dollars are the part that is.")
    hours: float = Field(description="Wall-clock hours in which the job trained.")
    gpu_hours: float = Field(description="Hours of this machine's cards, training and answering; 0 on a CPU.")

    def __add__(self, other: Spent) -> Spent:
        """Both together."""
        parts = {name: getattr(self.usd, name) + getattr(other.usd, name) for name in Dollars.model_fields}
        return Spent(
            usd=Dollars(**parts),
            known=self.known and other.known,
            hours=self.hours + other.hours,
            gpu_hours=self.gpu_hours + other.gpu_hours,
        )

    def told(self) -> str:
        """One line for people."""
        about = "about " if self.known else "at least "
        parts = [f"{about}${self.usd.total:.2f}" if self.usd.total or not self.known else "no money"]
        parts.append(f"{self.hours:.2f} hours of training")
        if self.gpu_hours:
            parts.append(f"{self.gpu_hours:.2f} hours of a card")
        return ", ".join(parts)


def spent(run: Run, prices: PriceList | None = None) -> Spent:
    """What a run has spent so far. Reading never changes it. Raises `UsageError` for a price list that is none."""
    prices = prices or load_prices()
    state = run.state()
    spec = run.resolved_spec() if run.resolved_path.exists() else run.spec()
    own = _local(run, spec) if state.provider == "local" else _managed(run, spec, prices)
    judges, known = _judges(run, prices)
    dollars = own.usd.model_copy(update={"judges": judges})
    own = own.model_copy(update={"usd": dollars, "known": own.known and known})
    if state.continues is not None and (before := run.path.parent / str(state.continues["run"])).exists():
        return spent(Run.open(before), prices) + own
    return own


def over(told: Spent, budget: BudgetSpec, *, training: bool = True) -> str | None:
    """Which limit is reached, as a sentence's beginning; None while there is room.

    `budget.max_hours` is of training: once that is done, answering is not stopped for it.
    """
    limits = [
        ("budget.max_usd", budget.max_usd, told.usd.total),
        ("budget.max_gpu_hours", budget.max_gpu_hours, told.gpu_hours),
    ]
    if training:
        limits.append(("budget.max_hours", budget.max_hours, told.hours))
    for name, limit, value in limits:
        if limit is not None and value >= limit:
            return f"{name} = {limit:g} is used up ({told.told()})"
    return None


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
        told = over(spent(self.run), budget, training=training)
        self._looked = time.monotonic()
        return told


def _managed(run: Run, spec: JobSpec, prices: PriceList) -> Spent:
    state, model = run.state(), spec.model.openai or ""
    share = 1.0
    if state.tuned is None:  # what a job trained so far
        step, total = state.step or 0, state.total_steps
        share = step / total if total else 0.0
    known = spec.openai.target == "openai" or not prices.is_built_in
    splits = (state.data or {}).get("splits", {})
    tokens, epochs = int(splits["train"]["tokens"]) if "train" in splits else 0, spec.hyperparameters.n_epochs
    billed = trained_tokens(run.journal.read())
    rounds = 1 if billed is not None else epochs if isinstance(epochs, int) else 1
    training = prices.training_usd(model, tokens if billed is None else billed, rounds)
    if state.handle is None:
        training = 0.0
    told = list(_answers(run))
    answers = prices.answers_usd(model, *(sum(getattr(p, name) for p in told) for name in _COUNTS)) if told else 0.0
    if answers is not None and spec.openai.batch:
        answers *= 1 - prices.batch_discount
    return Spent(
        usd=Dollars(training=(training or 0.0) * share, answers=answers or 0.0),
        known=known and training is not None and answers is not None,
        hours=_training_hours(run.journal.read(), own_clock=False),
        gpu_hours=0.0,
    )


_COUNTS = ("prompt_tokens", "completion_tokens")


def _local(run: Run, spec: JobSpec) -> Spent:
    events = run.journal.read()
    training = _training_hours(events, own_clock=True)
    # Each answer tells the seconds of the batch that it came in.
    batch = max(1, spec.evaluation.batch_size)
    answering = sum(told.seconds or 0.0 for told in _answers(run)) / batch / 3600
    on_card = _device(events, spec) in _CARDS
    hour = spec.plan.hour_usd
    machine = (training + answering) * hour if hour is not None else 0.0
    return Spent(
        usd=Dollars(machine=machine), known=True, hours=training, gpu_hours=training + answering if on_card else 0.0
    )


def _answers(run: Run) -> Iterator[Prediction]:
    """Every answer that was paid for: those that one candidate copied from another count once."""
    seen: set[tuple[bool, str]] = set()
    for path in sorted((run.path / "predictions").glob("*.jsonl")):
        tuned = path.stem.startswith("tuned")
        for told in read_predictions(path):
            if (name := (tuned, told.prompt_sha256)) not in seen:
                seen.add(name)
                yield told


def _judges(run: Run, prices: PriceList) -> tuple[float, bool]:
    """Dollars of judge models, all tokens at the price of written ones, which is the higher; and whether all were known."""
    total, known = 0.0, True
    for result in read_grades([run.grades_path]).values():
        for call in result.metadata.calls:
            if urlsplit(call.endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
                continue  # a judge on this machine is not paid
            usd = prices.answers_usd(call.model, 0, call.tokens or 0)
            known = known and usd is not None
            total += usd or 0.0
    return total, known


def trained_tokens(events: Sequence[Event]) -> int | None:
    """What the service said it trained, which is what it bills."""
    told = [event.data.get("trained_tokens") for event in events if event.type == "result"]
    return next((tokens for tokens in reversed(told) if isinstance(tokens, int)), None)


def _training_hours(events: Sequence[Event], *, own_clock: bool) -> float:
    """Hours between the job's words from its first step on, without the time in which it had stopped.

    `own_clock` takes the job's own time of an event instead of when it was copied: a job may work on while nobody looks.
    """
    seconds, last, begun = 0.0, None, False
    for event in events:
        if event.type in _STOPS:
            last = None
        elif event.type == "job_event":
            moment = float(event.data["time"]) if own_clock else event.time
            begun = begun or bool(event.data.get("metrics"))
            if last is not None and begun:
                seconds += max(0.0, moment - last)
            last = moment if begun else None
    return seconds / 3600


def _device(events: Sequence[Event], spec: JobSpec) -> str:
    """What the job trains on, as it says; before it says anything, what the spec asks for."""
    for event in reversed(events):
        if event.type == "job_event" and (device := (event.data.get("metrics") or {}).get("device")):
            return str(device)
    return spec.local.device


def budget_of(run: Run) -> BudgetSpec:
    """The budget that holds now: the spec's, or what `ftbridge resume --set budget.…` made of it."""
    changed = run.state().budget
    return BudgetSpec.model_validate(changed) if changed is not None else run.spec().budget


def changed_budget(run: Run, overrides: Sequence[str]) -> BudgetSpec:
    """The budget after `budget.max_usd=40` and its like. Raises `UsageError` for anything else, and for a bad value."""
    return override_section(budget_of(run), "budget", overrides)
