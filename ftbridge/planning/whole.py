"""How long a whole run takes on this machine: loading and completing beside training.

    created ── load ── base completes ── load ── train ── load ── tuned completes ── done
               └────────────── most of a small run ──────────────┘

Of this machine's own finished runs that were never stopped, the journal tells the whole, the trainer its steps, and completions
their batches; what is left is loading: libraries, weights, data. Without such a run it is reasoned, from sizes: every span then
runs from a fast machine to a slow one, and says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.generate import read_predictions
from ftbridge.evaluation.spending import spent
from ftbridge.planning.memory import ModelShape
from ftbridge.planning.pace import Pace
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec

Span = tuple[float, float]
_AROUND = 1.5
"""Own runs scatter: a factor of this around their median."""
_LOADS = 3
"""Processes that load the model: for the base's completions, for training, for the tuned model's."""
_START = (4.0, 30.0)
"""Seconds until Python has torch and transformers (measured: 4 to 6 on a quiet machine with 2 cores), and reads data."""
_READ = (2e9, 2e8)
"""Bytes of weights a second, from a warm cache to a plain disk or a network folder."""
_STEPS = {"cuda": (40.0, 8.0), "mps": (20.0, 4.0)}
"""Steps of generation a second, whatever the batch, as transformers makes them."""
_FLOPS = (3e11, 2e10)
"""Of a CPU, in 16 or 32 bits, for generation: 2 a parameter and token. A card reads prompts at a hundred times that."""
_STOPS = frozenset({"paused", "failed", "cancelled", "interrupted", "resume_requested"})


class Whole(BaseModel):
    """Hours of a whole run, from and to, and of its parts beside training; null where training is not known."""

    model_config = ConfigDict(frozen=True)

    hours: Span | None = Field(description="From the command to the verdict; judges at services are not counted.")
    loading: Span = Field(description="Hours of starting processes and loading weights.")
    completing: Span = Field(description="Hours of completing the test items and what retention asks.")
    basis: Literal["own runs", "reasoned"]
    source: str = Field(description="The runs, or what the estimate is based on.")


@dataclass(frozen=True)
class Completions:
    """What a run's models complete: how many prompts, the tokens that are read, and those that are written, from and to."""

    count: int
    read: int
    written: Span


@dataclass(frozen=True)
class Took:
    """Seconds of one run that was never stopped, and the tokens that its completions have."""

    run: str
    total: float
    training: float
    completing: float
    tokens: int

    @property
    def loading(self) -> float:
        """What is neither training nor completing."""
        return max(0.0, self.total - self.training - self.completing)


def plan_run_time(
    pace: Pace, completions: Completions, spec: JobSpec, shape: ModelShape | None, kind: str, runs: Iterable[Run]
) -> Whole | None:
    """Hours of the whole run; None where neither a run nor the model's sizes are known. `kind` is cuda, mps or cpu."""
    took = list(itertools.islice((one for run in runs if (one := took_of(run, spec)) is not None), 5))
    if took:
        load = _around(median(one.loading for one in took))
        rates = [one.tokens / one.completing for one in took if one.completing > 0 and one.tokens]
        rate = median(rates) if rates else None
        complete = (
            (completions.written[0] / rate / _AROUND, completions.written[1] / rate * _AROUND) if rate else (0.0, 0.0)
        )
        names = ", ".join(one.run for one in took)
        return _whole(pace, load, complete, "own runs", f"loading and completing as in {names}")
    if shape is None:
        return None
    size = 2.0 * shape.parameters
    load = (_LOADS * (_START[0] + size / _READ[0]), _LOADS * (_START[1] + size / _READ[1]))
    source = f"loading and completing are estimated from {shape.parameters / 1e9:.2f} billion parameters on {kind}"
    return _whole(pace, load, _reasoned(completions, spec, size, kind), "reasoned", source)


def _reasoned(completions: Completions, spec: JobSpec, flops: float, kind: str) -> Span:
    """Seconds: on a card by steps of whole batches and by reading prompts, on a CPU by all tokens."""
    if kind not in _STEPS:
        low, high = (
            flops * (completions.read + written) / speed
            for written, speed in zip(completions.written, _FLOPS, strict=True)
        )
        return low, high
    batches = -(-completions.count // spec.evaluation.batch_size)
    each = [written / max(1, completions.count) for written in completions.written]
    low, high = (
        batches * length / steps + flops * completions.read / (100 * speed)
        for length, steps, speed in zip(each, _STEPS[kind], _FLOPS, strict=True)
    )
    return low, high


def took_of(run: Run, spec: JobSpec) -> Took | None:
    """What a finished local run of the same model took; None for any other, and for one that was ever stopped."""
    try:
        state, run_records = run.state(), run.spec()
        same = run_records.model.local == spec.model.local and run_records.local.tuning == spec.local.tuning
        if state.state != "succeeded" or not same or run_records.local.device != spec.local.device:
            return None
        return taken_by(run)
    except Exception:  # a run that cannot be read is no evidence
        return None


def taken_by(run: Run) -> Took | None:
    """What a run took from its first event to its last; None for one that was ever stopped, or trained elsewhere."""
    events = run.journal.read()
    if not events or any(event.type in _STOPS for event in events) or not any(e.type == "job_event" for e in events):
        return None
    completing, tokens = 0.0, 0
    for path in sorted((run.path / "predictions").glob("*.jsonl")):
        samples = [one for first in read_predictions(path) for one in first.samples]
        # Each completion tells the seconds of the batch that it came in.
        completing += sum({one.seconds for one in samples if one.seconds is not None})
        tokens += sum(one.completion_tokens for one in samples if one.seconds is not None)
    training = 3600 * spent(run).hours
    return Took(run.id, events[-1].time - events[0].time, training, completing, tokens)


def _whole(pace: Pace, load: Span, complete: Span, basis: Literal["own runs", "reasoned"], source: str) -> Whole:
    loading, completing = ((low / 3600, high / 3600) for low, high in (load, complete))
    hours = None
    if pace.hours is not None:
        hours = (pace.hours[0] + loading[0] + completing[0], pace.hours[1] + loading[1] + completing[1])
    return Whole(hours=hours, loading=loading, completing=completing, basis=basis, source=source)


def _around(middle: float) -> Span:
    return middle / _AROUND, middle * _AROUND
