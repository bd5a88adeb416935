"""Plan against actual: what a run's plan.json foresaw, beside what the run took. Reading never changes a run.

plan.json ──┐
journal, checkpoints, evaluation.json ──┴─▶ compared(run) ─▶ one line a figure: planned, actual, met, why
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ftbridge import providers
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.results import read_evaluation
from ftbridge.evaluation.spending import trained_tokens as billed_tokens
from ftbridge.planning.plan import Plan, read_plan
from ftbridge.planning.whole import taken_by
from ftbridge.runs.run import Run, RunState

Unit = Literal["epochs", "tokens", "steps", "GB", "hours", "USD"]
TOKENIZER_SHARE = 0.10
"""How far a local tokenizer's count may lie from the plan's, where that was made in the hosted model's vocabulary."""
MEMORY_SHARE = 0.15
"""How far the measured peak may lie from the plan's "about"."""


@dataclass(frozen=True)
class Compared:
    """One figure. `planned` is from low to high; `actual` None and `met` None where nothing was measured or promised."""

    what: str
    planned: tuple[float, float] | None
    actual: float | None
    unit: Unit
    met: bool | None
    why: str = ""


class _Checkpoint(BaseModel):
    """What a local run's last checkpoint says of its training; nothing of a run without one."""

    model_config = ConfigDict(frozen=True)
    stopped_early: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class _Took:
    """What a run took: the last checkpoint's figures, where it has one, its state, and the evaluation's."""

    state: RunState
    side: Literal["openai", "local"] | None
    checkpoint: _Checkpoint
    evaluation: Evaluation | None
    trained_tokens: int | None


def compared(run: Run) -> list[Compared]:
    """Tokens, steps, memory, hours, dollars and evaluation tokens, as planned and as they came; [] without a plan.json.

    A plan that another version wrote and this one cannot read is no plan. `met` is whether the actual figure lies within what
    was planned, or below it where less is no broken promise (steps, memory, hours, dollars).
    """
    estimate = read_plan(run)
    if estimate is None:
        return []
    took = _took(run)
    side = {"local": estimate.local, "openai": estimate.openai, None: None}[took.side]
    if side is None:
        return []
    rows = [*_epochs(estimate, took), _tokens(estimate, took), _steps(estimate, took, run)]
    if took.side == "local":
        rows += [*_memory(estimate, took), *_hours(estimate, took), *_whole(estimate, run)]
    return [*rows, *_dollars(estimate, took), *_evaluation_tokens(estimate, took, run)]


def _took(run: Run) -> _Took:
    states = sorted(run.checkpoints.glob("step-*/state.json")) if run.checkpoints.exists() else []
    checkpoint = _Checkpoint.model_validate_json(states[-1].read_bytes()) if states else _Checkpoint()
    evaluation = read_evaluation(run)
    state = run.state()
    reported = state.metrics.trained_tokens if state.metrics is not None else None
    counted = reported or billed_tokens(run.journal.read())
    provider = providers.find(state.provider)
    side = provider.capabilities(run.spec()).plan if provider is not None else None
    return _Took(state, side, checkpoint, evaluation, counted)


def _epochs(estimate: Plan, took: _Took) -> Iterator[Compared]:
    """Only of a job whose epochs were left to the service: planned by an estimate, and then chosen."""
    planned, chosen = estimate.schedule(took.side).epochs, took.state.chosen.get("n_epochs")
    if chosen is not None:
        why = "" if chosen <= planned else "The plan's figure was an estimate."
        yield Compared(
            "epochs", (planned, planned), chosen, "epochs", not why, f"Chosen by the provider. {why}".rstrip()
        )


def _chosen(took: _Took) -> str:
    """What the service chose, as a sentence; empty where nothing was left to it, or it does not tell."""
    named = {"n_epochs": "epochs", "batch_size": "examples a step"}
    parts = [f"{took.state.chosen[name]:g} {words}" for name, words in named.items() if name in took.state.chosen]
    return f"Chosen by the provider: {', '.join(parts)}; the plan's were an estimate." if parts else ""


def _tokens(estimate: Plan, took: _Took) -> Compared:
    """A service counts every token of the file, this machine those that the loss falls on; each times epochs.

    In reinforcement here these are the tokens of completions that were learnt from.
    """
    if took.side == "local" and estimate.local is not None and estimate.local.rollouts is not None:
        drawn = estimate.local.rollouts
        most = drawn.tokens[1] * drawn.steps * drawn.step_completions / drawn.completions
        actual = took.trained_tokens
        met = actual is not None and actual <= most
        why = "" if met else "The run does not report how many tokens it trained on."
        return Compared("trained tokens", (0.0, most), actual, "tokens", None if actual is None else met, why)
    train = estimate.splits["train"]
    local = took.side == "local"
    expected = estimate.local.tokens["train"].trained if local and estimate.local and estimate.local.tokens else None
    planned = (expected or train.trained if local else train.tokens) * estimate.schedule(took.side).epochs
    if not local and estimate.openai is not None and (replay := estimate.openai.replay) is not None:
        planned += replay.training_tokens[1]
    share = TOKENIZER_SHARE if local and expected is None else 0.0
    span, actual = (planned * (1 - share), planned * (1 + share)), took.trained_tokens
    if actual is None:
        return Compared(
            "trained tokens", span, None, "tokens", None, "The run does not report how many tokens it trained on."
        )
    why = ""
    if not span[0] <= actual <= span[1]:
        why = (
            "Training ended before the last planned step."
            if actual < span[0] and _ended_early(estimate, took)
            else "The local tokenizer and chat template give another count than the hosted model's vocabulary."
            if local
            else _chosen(took) or "The service's count differs from the plan's."
        )
    return Compared("trained tokens", span, actual, "tokens", not why, why)


def _steps(estimate: Plan, took: _Took, run: Run) -> Compared:
    planned, actual = estimate.schedule(took.side).steps, took.state.step
    span = (float(planned), float(planned))
    if actual is None:
        return Compared("steps", span, None, "steps", None, "The run reported no step.")
    why = ""
    if actual < planned:
        stopped = took.checkpoint.stopped_early or run.spec().local.early_stopping is not None
        why = "Early stopping ended the training." if stopped else _chosen(took) or f"The run is {took.state.state}."
    elif actual > planned:
        why = _chosen(took) or "The service or the trainer chose more epochs or a smaller batch size than planned."
    return Compared("steps", span, actual, "steps", actual <= planned, why)


def _ended_early(estimate: Plan, took: _Took) -> bool:
    return took.state.step is not None and took.state.step < estimate.schedule(took.side).steps


def _memory(estimate: Plan, took: _Took) -> Iterator[Compared]:
    """The peak against the plan for what it was trained on: a card's memory, or that of the process."""
    metrics = took.state.metrics
    actual, device = (metrics.memory_gb, metrics.device) if metrics is not None else (None, None)
    if estimate.local is None or estimate.local.memory is None:
        return
    plan = estimate.local.processor_memory if device == "cpu" else estimate.local.memory
    planned = (plan or estimate.local.memory).total / 1e9
    span = (planned * (1 - MEMORY_SHARE), planned * (1 + MEMORY_SHARE))
    if actual is None:
        yield Compared("memory", span, None, "GB", None, "The peak was not measured.")
        return
    why = (
        "" if actual <= span[1] else "Micro-batches may be larger than planned, and allocators hold on to freed memory."
    )
    yield Compared("memory", span, actual, "GB", actual <= span[1], why)


def _hours(estimate: Plan, took: _Took) -> Iterator[Compared]:
    if estimate.local is None:
        return
    seconds = took.checkpoint.seconds
    actual = seconds / 3600 if seconds else None
    span = estimate.local.pace.hours
    if span is None:
        if actual is not None:
            yield Compared("training time", None, actual, "hours", None, f"Not planned: {estimate.local.pace.source}.")
        return
    met = None if actual is None else actual <= span[1]
    why = "The run reported no training time." if actual is None else ""
    if met is False:
        basis = estimate.local.pace.basis
        named = {"published": "published figures", "measured": "this processor's speed", "probe": "a probe"}
        why = f"Slower than planned from {named.get(basis, 'own runs')}."
    yield Compared("training time", span, actual, "hours", met, why)


def _whole(estimate: Plan, run: Run) -> Iterator[Compared]:
    """From the first event to the last, of a run that was never stopped."""
    plan, took = estimate.local.whole if estimate.local else None, taken_by(run)
    if took is None or plan is None:
        return
    actual = took.total / 3600
    if plan.hours is None:
        yield Compared(
            "time of the run", None, actual, "hours", None, "Not planned, because no training time was planned."
        )
        return
    why = "" if actual <= plan.hours[1] else f"Slower than {plan.source}."
    yield Compared("time of the run", plan.hours, actual, "hours", not why, why)


def _dollars(estimate: Plan, took: _Took) -> Iterator[Compared]:
    """Training at the plan's own price: of an hour here, of a token there; with the answers' dollars where they are told."""
    if took.side == "local":
        local = estimate.local
        if local is None or local.usd is None or local.pace.hours is None or not local.pace.hours[1]:
            return
        seconds = took.checkpoint.seconds
        hour = local.usd[1] / local.pace.hours[1]
        actual = seconds / 3600 * hour if seconds else None
        met = None if actual is None else actual <= local.usd[1]
        yield Compared("training cost", local.usd, actual, "USD", met, "At the plan's price per hour.")
        return
    if estimate.openai is None or (money := estimate.openai.money).training is None:
        return
    replay = estimate.openai.replay
    planned = estimate.splits["train"].tokens * estimate.schedule(took.side).epochs + (
        replay.training_tokens[1] if replay is not None else 0
    )
    price = "At the plan's price per token."
    actual = money.training * took.trained_tokens / planned if took.trained_tokens and planned else None
    met = None if actual is None else actual <= money.training * 1.01
    yield Compared("training cost", (money.training, money.training), actual, "USD", met, price)
    usage = took.evaluation.answered.values() if took.evaluation else []
    paid = [usd for one in usage if (usd := one.usd) is not None]
    if money.evaluation is not None and paid:
        cost = sum(paid)
        yield Compared("evaluation cost", money.evaluation, cost, "USD", cost <= money.evaluation[1], price)


def _evaluation_tokens(estimate: Plan, took: _Took, run: Run) -> Iterator[Compared]:
    """Prompts of the test items, and from answers as short as the references to the limit, for candidates asked plainly."""
    test, evaluation = estimate.splits.get("test"), took.evaluation
    if test is None or evaluation is None:
        return
    plain = [one for name, one in evaluation.answered.items() if name in ("base", "tuned")]
    if not plain:
        return
    settings = run.spec().evaluation
    prompts, limit = settings.samples * (test.tokens - test.trained), settings.samples * settings.max_completion_tokens
    share = TOKENIZER_SHARE if took.side == "local" else 0.01
    low = len(plain) * prompts * (1 - share)
    high = len(plain) * (prompts * (1 + share) + test.examples * limit)
    actual = sum(one.prompt_tokens + one.completion_tokens for one in plain)
    why = "" if low <= actual <= high else "The tokenizer or chat template gives another count for every prompt."
    yield Compared("evaluation tokens", (low, high), actual, "tokens", not why, why)
