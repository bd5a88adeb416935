"""Plan against what happened: `plan.json` beside the journal, figure by figure.

A figure is met when it lies in the planned range; tokens and steps must be equal. Early stopping, a pause or other data on the
local side explain what is not, and are told.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from ftbridge.planning.plan import Local, Managed, Plan
from ftbridge.runs.run import Run, RunState
from ftbridge.spending import Spent, spent, trained_tokens


class Compared(BaseModel):
    """One figure; `met` is None where there is nothing to hold against it."""

    model_config = ConfigDict(frozen=True)

    what: str
    planned: str
    actual: str
    met: bool | None


def compared(run: Run) -> list[Compared]:
    """Every figure that was planned and is known now; empty for a run without a plan, or one that trained nothing yet."""
    try:
        plan = Plan.model_validate_json(run.plan_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    state = run.state()
    if not state.metrics:
        return []
    used = spent(run)
    figures = [_steps(plan, state), *_tokens(plan, run, state)]
    if state.provider == "local" and plan.local is not None:
        figures += _local(plan.local, state, used)
    elif plan.openai is not None:
        figures += _managed(plan.openai, used)
    return figures


def _steps(plan: Plan, state: RunState) -> Compared:
    return Compared(
        what="optimizer steps", planned=f"{plan.steps:,}", actual=f"{state.step:,}", met=plan.steps == state.step
    )


def _tokens(plan: Plan, run: Run, state: RunState) -> Iterator[Compared]:
    """Tokens that the loss fell on here; at a service, those that it bills."""
    if state.provider == "local":
        own = plan.local.tokens if plan.local else None
        what, planned, actual = (
            "trained tokens",
            own["train"].trained if own else None,
            state.metrics.get("trained_tokens"),
        )
    else:
        what, planned, actual = "billed tokens", plan.splits["train"].tokens, trained_tokens(run.journal.read())
    if planned is not None and actual is not None:
        planned *= plan.epochs
        yield Compared(what=what, planned=f"{planned:,}", actual=f"{actual:,}", met=planned == actual)


def _local(plan: Local, state: RunState, used: Spent) -> Iterator[Compared]:
    if (hours := plan.pace.hours) is not None:
        yield _between("hours of training", hours, used.hours, "{:.2f}")
    else:
        yield Compared(what="hours of training", planned="not known", actual=f"{used.hours:.2f}", met=None)
    peak = state.metrics.get("memory_gb")
    on_cpu = state.metrics.get("device") == "cpu"
    told = plan.processor_memory if on_cpu else plan.memory
    if peak is not None and told is not None:
        low, high = 0.85 * told.total / 1e9, 1.15 * told.total / 1e9
        yield _between("memory, GB", (low, high), float(peak), "{:.1f}")
    if plan.usd is not None:
        yield _between("dollars of this machine", plan.usd, used.usd.machine, "{:.2f}")


def _managed(plan: Managed, used: Spent) -> Iterator[Compared]:
    if plan.money.training is not None:
        low = high = plan.money.training
        yield _between("dollars of training", (0.99 * low, 1.01 * high), used.usd.training, "{:.2f}")
    if plan.money.evaluation is not None:
        yield _between(
            "dollars of answers and judges", plan.money.evaluation, used.usd.answers + used.usd.judges, "{:.2f}"
        )


def _between(what: str, planned: tuple[float, float], actual: float, shape: str) -> Compared:
    low, high = (shape.format(end) for end in planned)
    told = low if low == high else f"{low} to {high}"
    return Compared(what=what, planned=told, actual=shape.format(actual), met=planned[0] <= actual <= planned[1])
