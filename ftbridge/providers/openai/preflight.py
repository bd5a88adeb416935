"""Everything that can be found wrong before a byte is uploaded: key, model, dates, sizes, money."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Callable
from pathlib import Path

from ftbridge.data.manifest import load_manifest
from ftbridge.errors import DataError, FtbridgeError, GateNotMet, ModelUnavailable, ProviderRefused
from ftbridge.prices import load_prices
from ftbridge.providers.base import Submission
from ftbridge.providers.openai import calendar
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import fault_of, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.probe import check_lists
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.retry import read

_SOON = datetime.timedelta(days=60)
_LOCAL = "Train on your own machine instead: ftbridge run SPEC --provider local"


def check(
    at: Connection,
    submission: Submission,
    progress: Callable[[str], None],
    today: datetime.date,
    *,
    own_calendar: bool = True,
) -> None:
    """Raise when the job cannot work; `progress` hears what is worth knowing. Cheap checks go first.

    `own_calendar` holds `today` against OpenAI's dates, which a gateway or a server of one's own does not keep; the date that
    the service itself tells of the model counts everywhere.
    """
    check_sizes(at, submission)
    check_budget(at, submission.train.parent)
    if own_calendar and at.target.name == "openai":
        check_calendar(at.request, today, progress)
    shutdown_date = check_model(at, progress)
    if shutdown_date is not None:
        check_shutdown(at.request, shutdown_date, today, progress)
    if (why := check_lists(at, Ledger(submission.folder))) is not None:
        progress(
            f"{at.service} does not allow jobs to be listed ({why}), so a job whose creation gets no response cannot "
            "be found"
        )


def check_sizes(at: Connection, submission: Submission) -> None:
    """Raise `DataError` for a file larger than the service takes."""
    limit = at.target.largest_file
    for path in (submission.train, submission.validation):
        if path is not None and limit is not None and (size := path.stat().st_size) > limit:
            raise DataError(
                f"{path.name} has {size / 1e9:.2f} GB; {at.service} accepts files up to {limit / 1e9:g} GB.",
                hint="Use fewer examples.",
            )


def check_budget(at: Connection, data: Path) -> None:
    """Raise `GateNotMet` when the training costs more than `budget.max_usd`, or its price is not known."""
    limit = at.request.max_usd
    if limit is None:
        return
    tokens, prices = load_manifest(data).splits["train"].tokens, load_prices()
    is_priced = prices.holds_at(at.request.model, at.target.name)
    usd = prices.training_usd(at.request.model, tokens, at.request.n_epochs) if is_priced else None
    if usd is None:
        raise GateNotMet(
            (
                f"budget.max_usd = {limit:g} cannot be enforced: the price of training {at.request.model} is not known "
                "here."
            ),
            hint=f"Add the price of {at.service} to your own price list (FTBRIDGE_PRICES), or leave budget.max_usd out.",
        )
    if usd > limit:
        estimate = (
            ", an estimate of what the service chooses" if at.request.hyperparameters.get("n_epochs") == "auto" else ""
        )
        raise GateNotMet(
            f"training would cost about ${usd:.2f} ({tokens:,} tokens x {at.request.n_epochs} epochs{estimate}, prices of "
            f"{prices.date_of(at.request.model)}); budget.max_usd is {limit:g}.",
            hint="Use fewer examples or epochs, a smaller model, or a larger budget.",
        )


def check_calendar(request: OpenAIRequest, today: datetime.date, progress: Callable[[str], None]) -> None:
    """Raise `ProviderRefused` after the days on which OpenAI closes; tell of them when they are near."""
    if today >= calendar.NO_NEW_JOBS:
        raise ProviderRefused(f"OpenAI has accepted no new fine-tuning jobs since {calendar.NO_NEW_JOBS}.", hint=_LOCAL)
    if (day := calendar.shutdown(request.model)) is not None:
        check_shutdown(request, day, today, progress)


def check_shutdown(
    request: OpenAIRequest, day: datetime.date, today: datetime.date, progress: Callable[[str], None]
) -> None:
    """Raise `ProviderRefused` when the model, and what is tuned from it, has stopped; tell when it soon will.

    Raises `GateNotMet` when it would not live as long as the spec asks (`plan.min_life_days`).
    """
    model, left = request.model, (day - today).days
    if left <= 0:
        raise ProviderRefused(f"{model} was shut down on {day}, together with the models tuned from it.", hint=_LOCAL)
    if request.min_life_days is not None and left < request.min_life_days:
        raise GateNotMet(
            f"{model} and models tuned from it stop on {day}, in {left} days; plan.min_life_days is "
            f"{request.min_life_days}.",
            hint=f"{_LOCAL}; or lower plan.min_life_days.",
        )
    if day - today <= _SOON:
        progress(f"{model} and models tuned from it stop on {day}, in {left} days")


def check_model(at: Connection, progress: Callable[[str], None]) -> datetime.date | None:
    """Ask for the model, which also tries key, address and proxy; returns the service's own shutdown date for it.

    Raises `ModelUnavailable` with the nearest names, `ProviderRefused` for a key that is not accepted. A service without a
    list of models, or a key that may not read it, is no reason to stop.
    """
    model = at.request.model

    def ask() -> object:
        try:
            return require_fields(at.client.models.retrieve(model), "id")
        except Exception as error:
            fault = fault_of(error)
            if fault.status in (403, 404, 405) and fault.kind != "foreign":
                return fault
            raise

    model_object = read(ask, "looking for the model", at.service)
    status = getattr(model_object, "status", None)
    if status is None:
        return _date(getattr(model_object, "shutdown_date", None))
    names = _names(at) if status == 404 else None
    if names:
        close = difflib.get_close_matches(model, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"It lists {len(names)} others."
        raise ModelUnavailable(f"{at.service} has no model {model!r}.", hint=hint)
    if status == 404 and at.target.name == "openai":
        raise ModelUnavailable(f"{at.service} has no model {model!r}.", hint="Check model.openai.")
    progress(f"{at.service} does not allow this key to see its models; {model} was not checked")
    return None


def _names(at: Connection) -> list[str] | None:
    try:
        listed = read(
            lambda: [m.id for m in require_fields(at.client.models.list(), "data")], "listing models", at.service
        )
    except FtbridgeError:
        return None
    return [str(name) for name in listed]


def _date(value: object) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(str(value)[:10])
    except ValueError:
        return None
