"""Figures of training by step, as a run's journal holds them: what reports, advice, plans and budgets read.

job_event  metrics: {step, train_loss, …, more: {train_mean_reward, …}}  ──▶  Metrics  ──▶  curve: (step, value), …
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from ftbridge.runs.journal import Event
from ftbridge.runs.records import Record

Point = tuple[int, float]
"""Optimizer step, and a figure: a loss is in nats per loss token, a reward in the grader's own scale."""


class Metrics(Record):
    """One step's figures. Losses are mean nats per trained token; accuracies and their like are in 0..1.

    `gradient_norm` is the L2 norm over all trained parameters, before it is clipped.
    `more` holds a method's own figures by name, such as train_reward_accuracy or valid_chosen_logp of preference tuning.
    `device` is what the step was computed on, where the job knows it: cpu, cuda, mps. `workers` is how many processes computed
    it, each on a device of its own; None is one. `trained_tokens` counts from the start.
    """

    step: int
    total_steps: int | None = None
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    memory_gb: float | None = None
    seconds_left: float | None = None
    device: str | None = None
    trained_tokens: int | None = None
    workers: int | None = None
    more: dict[str, float] = Field(default={})

    def by_name(self) -> dict[str, Any]:
        """Each figure that was measured by its name, a method's own among them."""
        return {**self.model_dump(exclude={"more"}, exclude_none=True), **self.more}

    def after(self, earlier: Metrics | None) -> Metrics:
        """The latest value of each figure: this step's, and the earlier ones that it did not measure."""
        if earlier is None:
            return self
        measured = self.model_dump(exclude={"more"}, exclude_none=True)
        return earlier.model_copy(update={**measured, "more": {**earlier.more, **self.more}})


def metrics_of(event: Event) -> Metrics | None:
    """The figures that a job's event reports; None for any other event."""
    metrics = event.data.get("metrics") if event.type == "job_event" else None
    return Metrics.model_validate(metrics) if metrics else None


def curves(events: Iterable[Event], *names: str) -> list[tuple[Point, ...]]:
    """A curve for each name, by step. A step that was trained again after a crash counts once, as it was last."""
    values: list[dict[int, float]] = [{} for _ in names]
    for event in events:
        if (metrics := metrics_of(event)) is None:
            continue
        figures = metrics.by_name()
        for by_step, name in zip(values, names, strict=True):
            if name in figures:
                by_step[metrics.step] = float(figures[name])
    return [tuple(sorted(by_step.items())) for by_step in values]
