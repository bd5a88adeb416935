"""Recording a tuned model's behaviour while it answers: `ftbridge migrate record MODEL`.

    choose items ─▶ forecast (cost, time, way) ─▶ agreed? ─▶ earlier batches ─▶ live or batch ─▶ again for what is missing
         │ once                                                                                        │
         └── recordings/MODEL/items.jsonl                                                              └── recorded

Every completion is flushed before the next is asked for; a process that is killed goes on where it was, by the same command.
Nothing that was paid for is asked again. How much is wanted (`limit`, `samples`) is the last command's; how completions are
drawn is fixed when a recording begins.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.errors import GateNotMet, UsageError
from ftbridge.migrate.account import Inventory, RateLimit, TunedModel
from ftbridge.migrate.batched import Batched
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.forecast import Forecast, forecast, spent_usd
from ftbridge.migrate.items import Chosen, choose
from ftbridge.migrate.limits import RateLimits
from ftbridge.migrate.live import Live
from ftbridge.migrate.loading import load_inventory, local_file, stored_completions
from ftbridge.migrate.objects import MigrationKey
from ftbridge.migrate.recording import RecordedSoFar, Recording, RecordingRequest, Settings, requests_of
from ftbridge.prices import PriceList, load_prices
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.targets import TARGETS, Target

SAMPLES, ITEMS = 3, 2000
_SECONDS_BETWEEN_NEWS = 0.3
_ROUNDS = 3
"""Times that what is missing is asked again, such as when a service turns out not to take `n`."""


class RecordWish(BaseModel):
    """What to record. `items` is a file of your own, `temperature` the production one where stored requests do not tell it.

    Of a recording that was begun, `limit` and `samples` say how much of it is wanted now.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    items: Path | None = None
    limit: int = ITEMS
    samples: int = SAMPLES
    temperature: float | None = None
    max_completion_tokens: int | None = None
    way: Literal["auto", "live", "batch"] = "auto"
    max_usd: float | None = None
    store: bool = True


class Recorded(BaseModel):
    """What a recording is now. `so_far.finished` is false when something is missing."""

    model_config = ConfigDict(frozen=True)

    model: str
    path: Path
    so_far: RecordedSoFar
    notes: list[str] = []


Agree = Callable[[Forecast, Sequence[str]], None]
"""Hears the forecast and the notes before anything is spent, and raises to stop."""
Progress = Callable[[int, int, float | None, float | None], None]
"""Hears items done, items in all, US dollars spent, and seconds left (None where not known)."""


def record(
    migration: Migration,
    wish: RecordWish,
    *,
    agree: Agree = lambda forecast, notes: None,
    progress: Progress = lambda done, total, usd, seconds: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Recorded:
    """Record a model, or go on with its recording, and return how far it is. `tell` hears how far batches are.

    Raises `UsageError` before anything is spent; `GateNotMet` at the budget; `ModelUnavailable` when the model stops answering;
    what requests raise. In every case what was recorded is kept, and the same command goes on.
    """
    inventory = load_inventory(migration)
    name, model = find_model(inventory, wish.model)
    prices = load_prices()
    if wish.max_usd is not None and prices.completions_usd(name, 1, 1) is None:
        raise UsageError(
            f"no price is known for {name}, so --max-usd cannot be enforced.",
            hint="Add it to a price list: FTBRIDGE_PRICES=prices.json.",
        )
    with migration.working(f"recording {name}"):
        recording = Recording.of(migration, name)
        chosen, settings = _plan(migration, inventory, model, name, recording, wish)
        variable = source_of(inventory, model).variable
        at = KeyOf(_request(name), migration.service, variable=variable)
        limit = inventory.limit(name)
        work = _Work(at, recording, settings, wish, prices, limit, hours_left(inventory, model), progress, tell)
        requests = requests_of(chosen.items, settings, recording.samples)
        if requests or settings != recording.settings:
            estimate = work.forecast(requests)
            agree(estimate, [*chosen.notes, *_warnings(inventory, model, estimate)])
            recording.begin(chosen.items, settings)
            migration.append(
                "recording",
                model=name,
                items=len(settings.wanted(chosen.items)),
                samples=settings.samples,
                way=estimate.way,
            )
        if requests:
            work.run(_paid_for(recording, settings))
        so_far = recording.so_far(spent_usd(recording.usage(), name, prices))
        migration.append("recorded", model=name, items=so_far.items, complete=so_far.complete, usd=so_far.usd)
    return Recorded(model=name, path=recording.path, so_far=so_far, notes=chosen.notes)


def find_model(inventory: Inventory, name: str) -> tuple[str, TunedModel]:
    """The name that answers, which may be that of a checkpoint, and the tuned model it belongs to. Raises `UsageError`."""
    model = inventory.model(name)
    checkpoint = next((point.model for point in model.checkpoints if point.model == name), None)
    return checkpoint or model.id, model


def source_of(inventory: Inventory, model: TunedModel) -> MigrationKey:
    """The key that can ask a model. Raises `UsageError` when no project key of the inventory has seen it."""
    for source in inventory.sources:
        if source.kind == "project" and source.id in model.sources:
            return source
    raise UsageError(
        f"no key of the inventory may use {model.id}.",
        hint="Run the inventory again with a key of its project: ftbridge migrate inventory --key-env NAME",
    )


def hours_left(inventory: Inventory, model: TunedModel, now: float | None = None) -> float | None:
    """Hours until the day on which a model stops begins (UTC), by the service's clock; None where no date is known."""
    if model.shutdown is None:
        return None
    end = datetime.datetime.combine(model.shutdown, datetime.time(), datetime.timezone.utc).timestamp()
    return (end - (time.time() if now is None else now) - inventory.clock_skew) / 3600


def _plan(
    migration: Migration, inventory: Inventory, model: TunedModel, name: str, recording: Recording, wish: RecordWish
) -> tuple[Chosen, Settings]:
    """The items and settings of a recording: those that it began with, or chosen now. Writes nothing."""
    settings = recording.settings
    if recording.begun and settings is not None:
        _refuse_other_ways(settings, wish, recording)
        limit = wish.limit if wish.limit < len(recording.items) else None
        settings = settings.model_copy(update={"samples": wish.samples, "limit": limit})
        return Chosen(items=recording.items, notes=_notes_of_begun(settings, wish, recording)), settings
    chosen = _chosen(migration, inventory, model, name, wish)
    temperature = chosen.temperature if wish.temperature is None else wish.temperature
    settings = Settings(
        model=name,
        samples=wish.samples,
        temperature=temperature,
        max_completion_tokens=wish.max_completion_tokens,
    )
    notes = [*chosen.notes, f"Further completions are drawn at temperature {temperature:g}."]
    return chosen.model_copy(update={"notes": notes}), settings


def _refuse_other_ways(begun: Settings, wish: RecordWish, recording: Recording) -> None:
    """Raise `UsageError` for a wish that would draw completions otherwise than those that are recorded."""
    changes = (
        ("--temperature", "at temperature {:g}", begun.temperature, wish.temperature),
        ("--max-tokens", "with at most {:,} tokens", begun.max_completion_tokens, wish.max_completion_tokens),
    )
    for option, words, now, wanted in changes:
        if wanted is None or wanted == now:
            continue
        way = words.format(now) if now is not None else "with the limits of your clients"
        raise UsageError(
            f"this recording draws completions {way}; {option} {wanted:g} would mix them with others.",
            hint=f"Leave {option} out to continue, or record into another migration (--migration NAME). To begin again, "
            f"and pay again, remove {recording.path}.",
        )


def _notes_of_begun(settings: Settings, wish: RecordWish, recording: Recording) -> list[str]:
    """What a wish changes of a recording that was begun, and what it cannot change."""
    total, notes = len(recording.items), []
    if wish.items:
        notes.append("The items of this recording are already chosen, so --items is ignored.")
    if settings.limit is not None:
        notes.append(f"Only the first {settings.limit:,} of the recording's {total:,} items are requested (--limit).")
    elif wish.limit not in (ITEMS, total):
        notes.append(f"The items of this recording are already chosen: {total:,}. A larger --limit adds none.")
    if recording.drawn > settings.samples:
        drawn = f"{recording.drawn} further completions of an item are already recorded"
        notes.append(f"{drawn}; no more than {settings.samples} are requested for the others (--samples).")
    return notes


def _paid_for(recording: Recording, settings: Settings) -> list[RecordingRequest]:
    """The requests that earlier batches may hold: those of more items and samples too, if these were wanted before."""
    widest = settings.model_copy(update={"samples": recording.most_samples, "limit": None})
    return requests_of(recording.items, widest, recording.samples)


def _chosen(migration: Migration, inventory: Inventory, model: TunedModel, name: str, wish: RecordWish) -> Chosen:
    jobs = [job for id in model.chain or ((model.job,) if model.job else ()) if (job := inventory.job(id)) is not None]
    job_record = inventory.job(model.job) if model.job is not None else None
    validation = (
        local_file(migration, job_record.validation_file)
        if job_record is not None and job_record.validation_file
        else None
    )
    training = [path for job in jobs if job.training_file and (path := local_file(migration, job.training_file))]
    chosen = choose(
        validation=validation,
        stored=stored_completions(migration, name),
        training=training,
        file=wish.items,
        limit=wish.limit,
    )
    notes = list(chosen.notes)
    if job_record is not None and job_record.validation_file and validation is None and wish.items is None:
        notes.append(f"The validation file {job_record.validation_file} is not downloaded: ftbridge migrate download")
    return chosen.model_copy(update={"notes": notes})


def _warnings(inventory: Inventory, model: TunedModel, estimate: Forecast) -> list[str]:
    left = hours_left(inventory, model)
    warnings = []
    if left is not None and left <= 0:
        warnings.append(f"{model.id} should have stopped on {model.shutdown}; checking whether it is still available.")
    elif left is not None and estimate.hours > left:
        warnings.append(
            f"This takes up to {estimate.hours:.0f} hours, and the model stops in {left:.0f}: record fewer items (--limit)."
        )
    elif not model.listed:
        warnings.append(
            f"{model.id} is not in the service's list of models: it may have stopped, or belong to another key."
        )
    if not estimate.limits_known:
        warnings.append("The account's limits are not known; the time is an estimate for a new account.")
    return warnings


@dataclass
class _Work:
    """One process's part in a recording."""

    at: Connection
    recording: Recording
    settings: Settings
    wish: RecordWish
    prices: PriceList
    limit: RateLimit | None
    left: float | None
    progress: Progress
    tell: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)
    _said: float = 0.0
    _first: int = 0
    _counted: int = 0
    _usd: float | None = 0.0

    def forecast(self, requests: Sequence[RecordingRequest]) -> Forecast:
        """The figures of what is missing."""
        return forecast(
            requests,
            self.settings.model,
            prices=self.prices,
            limit=self.limit,
            hours_left=self.left,
            way=self.wish.way,
        )

    def run(self, paid_for: Sequence[RecordingRequest]) -> None:
        """Ask for what is missing, until nothing is or a round brings nothing; first, what batches may hold already."""
        self._first = len(self.recording.samples)
        self._batched("batch").collect(paid_for)
        for _ in range(_ROUNDS):
            missing = self.recording.missing()
            if not missing:
                return
            before = len(self.recording.samples)
            if self.forecast(missing).way == "batch":
                self._batched("batch").ask(missing)
            else:
                self._live().ask(missing)
            left = self.recording.missing()
            if any(len(request.samples) > 1 for request in left) and self.settings.takes_n:
                self.settings = self.settings.model_copy(update={"takes_n": False})
                self.recording.begin([], self.settings)
            elif len(self.recording.samples) == before:
                return

    def _live(self) -> Live:
        return Live(
            at=self.at,
            recording=self.recording,
            settings=self.settings,
            limits=RateLimits(),
            store=self.wish.store,
            afford=self._afford("live"),
            on_progress=self._heard,
        )

    def _batched(self, way: str) -> Batched:
        queue = self.limit.batch_queue_tokens if self.limit is not None else None
        return Batched(
            at=self.at,
            recording=self.recording,
            settings=self.settings,
            queue=queue,
            afford=self._afford(way),
            on_progress=self._heard,
            tell=self.tell,
        )

    def _afford(self, way: str) -> Callable[[int, int], None]:
        def check(read: int, written: int) -> None:
            if self.wish.max_usd is None:
                return
            spent = self._spent() or 0.0
            more = self.prices.completions_usd(self.settings.model, read, written, batch=way == "batch") or 0.0
            if spent + more > self.wish.max_usd:
                so_far = self.recording.so_far()
                raise GateNotMet(
                    f"the budget of ${self.wish.max_usd:g} is used up: ${spent:.2f} spent, and the next request costs about "
                    f"${more:.4f}; {so_far.complete} of {so_far.items} items are recorded.",
                    hint="Everything recorded is saved; run the same command with a larger --max-usd to continue.",
                )

        return check

    def _spent(self) -> float | None:
        """US dollars of everything recorded; only what is new since the last call is added up."""
        usage = self.recording.usage()
        new = spent_usd(usage[self._counted :], self.settings.model, self.prices)
        self._counted, self._usd = len(usage), None if new is None or self._usd is None else self._usd + new
        return self._usd

    def _heard(self) -> None:
        now = time.monotonic()
        if now - self._said < _SECONDS_BETWEEN_NEWS:
            return
        self._said = now
        so_far = self.recording.so_far()
        done = len(self.recording.samples) - self._first
        left = sum(len(request.samples) for request in self.recording.missing())
        seconds = (now - self._began) / done * left if done else None
        self.progress(so_far.complete, so_far.items, self._spent(), seconds)


class KeyOf(Connection):
    """A connection with the key in an environment variable of the migration's choice."""

    def __init__(self, request: OpenAIRequest, base_url: str, *, variable: str) -> None:
        super().__init__(request, base_url)
        object.__setattr__(self, "variable", variable)

    variable: str

    @cached_property
    def target(self) -> Target:
        """OpenAI, with that variable as the place of its key."""
        return replace(TARGETS["openai"], keys=(self.variable,))


def _request(model: str) -> OpenAIRequest:
    return OpenAIRequest(
        target="openai", base_url=None, organization=None, project=None, api_version=None, deployment=None,
        batch=False, max_usd=None, n_epochs=1, body={"model": model}, extra={},
    )  # fmt: skip
