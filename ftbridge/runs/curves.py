"""Figures of training by step, as a run's journal holds them: what reports, advice, plans and budgets read.

job_event  metrics: {step, train_loss, …, more: {train_mean_reward, …}}  ──▶  {name: value}  ──▶  curve: (step, value), …
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ftbridge.runs.journal import Event

Point = tuple[int, float]
"""Optimizer step, and a figure: a loss is in nats per loss token, a reward in the grader's own scale."""


def figures_of(event: Event) -> dict[str, Any]:
    """The figures that a job's event reports, by name, a method's own among them; none for any other event."""
    metrics = event.data.get("metrics") if event.type == "job_event" else None
    if not metrics:
        return {}
    named = {**metrics, **(metrics.get("more") or {})}
    return {name: value for name, value in named.items() if value is not None and name != "more"}


def curves(events: Iterable[Event], *names: str) -> list[tuple[Point, ...]]:
    """A curve for each name, by step. A step that was trained again after a crash counts once, as it was last."""
    values: list[dict[int, float]] = [{} for _ in names]
    for event in events:
        figures = figures_of(event)
        for by_step, name in zip(values, names, strict=True):
            if name in figures:
                by_step[int(figures["step"])] = float(figures[name])
    return [tuple(sorted(by_step.items())) for by_step in values]
