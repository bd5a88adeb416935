"""The hosted provider's half of a plan: money, days that its models have left, hours from submission to result."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import files
from ftbridge.planning.money import Money, cannot_run, judge_money, managed, when_refused
from ftbridge.planning.pace import Pace, managed_pace
from ftbridge.planning.replay import ReplayPlan
from ftbridge.planning.workload import Workload
from ftbridge.prices import PriceList
from ftbridge.providers.openai import calendar
from ftbridge.providers.openai.targets import TARGETS
from ftbridge.runs import store
from ftbridge.spec.lowering import FieldReport


class Managed(BaseModel):
    """The hosted provider."""

    model_config = ConfigDict(frozen=True)

    model: str
    target: str
    money: Money
    stops: datetime.date | None = Field(description="The day the base model and its tuned models stop, if known.")
    days_left: int | None
    no_new_jobs: datetime.date | None = Field(description="From this day the service takes no new jobs.")
    pace: Pace = Field(description="Hours from submission to result, from finished runs at the service.")
    replay: ReplayPlan | None = Field(
        default=None, description="What data.replay adds, in the money above at its longest; null without it."
    )


def plan_hosted(
    work: Workload, model: str, prices: PriceList, today: datetime.date, refused: Sequence[FieldReport] = ()
) -> Managed:
    """What training `model` and completing with it cost, and until when it answers. Nothing is requested.

    `refused` are the fields that the service refuses, and nobody allowed to go without.
    """
    spec = work.job.spec
    is_openai = spec.openai.target == "openai"
    stops = calendar.shutdown(model) if is_openai else None
    replay = work.replay("openai")
    tokens = work.training_tokens("openai") + (replay.training_tokens[1] if replay else 0)
    money = _money(work, model, prices, today, tokens, replay)
    schedule = work.schedule("openai")
    if schedule.estimated:
        epochs = f"{schedule.epochs} epoch{'' if schedule.epochs == 1 else 's'}"
        note = (
            f"The service chooses what is left at auto: {epochs} and {schedule.steps:,} steps are an estimate, "
            "and so are tokens and cost. The run records what it chose."
        )
        money = money.model_copy(update={"notes": [*money.notes, note]})
    return Managed(
        model=model,
        target=spec.openai.target,
        money=when_refused(money, refused),
        stops=stops,
        days_left=None if stops is None else (stops - today).days,
        no_new_jobs=calendar.NO_NEW_JOBS if is_openai else None,
        pace=managed_pace(tokens, spec, store.runs(files.home())),
        replay=None if cannot_run(refused) else replay,
    )


def _money(
    work: Workload, model: str, prices: PriceList, today: datetime.date, tokens: int, replay: ReplayPlan | None
) -> Money:
    spec, items = work.job.spec, work.job.items
    read, written = (replay.read, replay.written) if replay else (0, (0, 0))
    fewest, most = work.completions(tuned=False)
    longest, target = spec.evaluation.max_completion_tokens, TARGETS[spec.openai.target]
    return managed(
        prices,
        model,
        training_tokens=tokens,
        prompt_count=work.prompts(tuned=False) + read,
        completion_tokens=(fewest + written[0], most + written[1]),
        tuned_asked=work.prompts(tuned=True),
        tuned_answered=work.completions(tuned=True),
        batch=spec.openai.batch and target.batch,
        target=target.name,
        has_batch=target.batch,
        judges=judge_money(prices, spec.evaluation.graders, items, work.completions_per_item, longest, work.encoding),
        today=today,
    )
