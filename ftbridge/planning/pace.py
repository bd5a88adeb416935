"""How long training takes: from this machine's own runs, else a probe of a few steps, else reckoned; a range.

On a CPU it is reckoned from what the processor multiplies in a second (`processor`), elsewhere from published figures.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import providers
from ftbridge.files import write_json
from ftbridge.planning.memory import ModelShape
from ftbridge.runs.metrics import metrics_of
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec

PUBLISHED = (
    (7e9, 2_415, "Llama-2-7B, QLoRA, Hugging Face (LLaMA-Factory's wiki, 2024-04)"),
    (7e9, 3_726, "Llama-2-7B, QLoRA, Unsloth's kernels (the same table)"),
)
"""Parameters, tokens a second on one card of 24 to 40 GB, source."""
SMALLEST = 1e9
"""Smaller models are bound by other things than their size: published figures say nothing of them."""
_AROUND = 1.5
"""Own runs scatter with data and load: the range is a factor of this around their median."""


class Pace(BaseModel):
    """Hours of training, from and to, and what they are drawn from."""

    model_config = ConfigDict(frozen=True)

    hours: tuple[float, float] | None
    tokens_per_second: tuple[float, float] | None
    basis: Literal["own runs", "probe", "measured", "published", "none"] = Field(
        description="measured: calculated from this processor's matrix products and the model's sizes."
    )
    source: str = Field(description="The runs, the probe, what was measured, or the publications.")


class Probe(BaseModel):
    """What a few steps of the real trainer measured; kept in `FTBRIDGE_HOME/probes.json` by what it depends on."""

    model_config = ConfigDict(frozen=True)

    tokens_per_second: float
    memory_gb: float | None
    steps: int
    day: str


def pace(
    tokens: int,
    spec: JobSpec,
    shape: ModelShape | None,
    runs: Iterable[Run],
    probes: Path | None = None,
    reckoned: Callable[[], Reckoned | str] | None = None,
) -> Pace:
    """Hours for so many tokens in all (those of the file times epochs). `probes` is the file of kept probes.

    `reckoned` is asked where neither a run nor a probe tells, on a CPU; it may say why it has none. Published figures, which
    are those of a GPU, stand for models that only a GPU trains in a useful time, unless the spec asks for the CPU.
    """
    model = spec.model.local or ""
    rates = list(itertools.islice(((run.id, rate) for run in runs if (rate := _rate(run, spec)) is not None), 5))
    if rates:
        middle = median(rate for _, rate in rates)
        named = ", ".join(name for name, _ in rates)
        return _pace(tokens, _around(middle), "own runs", f"{len(rates)} of this machine's runs of {model}: {named}")
    if probes is not None and (probe := read_probe(spec, probes)) is not None:
        source_text = (
            f"a probe of {probe.steps} steps here on {probe.day}, {probe.tokens_per_second:.0f} tokens a second"
        )
        return _pace(tokens, _around(probe.tokens_per_second), "probe", source_text)
    computed = reckoned() if reckoned is not None else "no published figure for one of its size"
    if shape is None or shape.parameters < SMALLEST or spec.local.device == "cpu":
        if isinstance(computed, Reckoned):
            return _pace(tokens, _around(computed.tokens_per_second), "measured", computed.source)
        source = f"no run of this model here yet, and {computed}; --probe measures a few steps"
        return Pace(hours=None, tokens_per_second=None, basis="none", source=source)
    scaled = [rate * size / shape.parameters for size, rate, _ in PUBLISHED]
    source = "; ".join(text for _, _, text in PUBLISHED)
    source_text = f"a GPU of 24 to 40 GB, scaled by the number of parameters from: {source}"
    if isinstance(computed, Reckoned):
        hours = tokens / computed.tokens_per_second / 3600
        source_text += f". This machine has none: here about {hours:,.0f} hours, from {computed.source}"
    return _pace(tokens, (min(scaled) / _AROUND, max(scaled)), "published", source_text)


class Reckoned(NamedTuple):
    """Tokens a second that were computed, not seen, and from what."""

    tokens_per_second: float
    source: str


def managed_pace(tokens: int, spec: JobSpec, runs: Iterable[Run]) -> Pace:
    """Hours at a service, from the finished runs of this machine's store that trained the same model there.

    A service tells when it expects to be done once a job runs (`estimated_finish`); before that there is history, or nothing.
    """
    model = spec.model.openai or ""
    rates = list(
        itertools.islice(((run.id, rate) for run in runs if (rate := _managed_rate(run, spec)) is not None), 5)
    )
    if not rates:
        source = (
            f"no finished run of {model} at the service is on this machine; the service reports a time once the job "
            "is running"
        )
        return Pace(hours=None, tokens_per_second=None, basis="none", source=source)
    values = [rate for _, rate in rates]
    span = (min(values) / _AROUND, max(values) * _AROUND)
    named = ", ".join(name for name, _ in rates)
    return _pace(tokens, span, "own runs", f"{len(rates)} runs at the service, from submission to result: {named}")


def _planned_as(run: Run, side: Literal["openai", "local"]) -> bool:
    """Whether this side of a plan describes such a run."""
    provider = providers.find(run.state().provider)
    return provider is not None and provider.capabilities(run.spec()).plan == side


def _managed_rate(run: Run, spec: JobSpec) -> float | None:
    """Billed tokens a second, queueing included, of a run that the same service trained."""
    try:
        state, run_records = run.state(), run.spec()
        same = run_records.model.openai == spec.model.openai and run_records.openai.target == spec.openai.target
        if not same or state.tuned is None or not _planned_as(run, "openai"):
            return None
        events = run.journal.read()
        began = next(event.time for event in events if event.type == "submitted")
        done = next(event for event in events if event.type == "result")
        tokens = done.data.get("trained_tokens")
    except Exception:  # a run that cannot be read is no evidence
        return None
    return tokens / (done.time - began) if tokens and done.time > began else None


def read_probe(spec: JobSpec, path: Path) -> Probe | None:
    """The probe of a job like this one, if there was one."""
    try:
        return Probe.model_validate(json.loads(path.read_text(encoding="utf-8"))[_name(spec)])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_probe(spec: JobSpec, path: Path, probe: Probe) -> None:
    """Keep a probe for later plans. Raises `DiskFull`."""
    try:
        probes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        probes = {}
    write_json(path, {**(probes if isinstance(probes, dict) else {}), _name(spec): probe.model_dump(mode="json")})


def step_rates(run: Run) -> list[float]:
    """Tokens a second of each step but the first, which warms up, where there are others."""
    reported = [metrics_of(event) for event in run.journal.read()]
    rates = [one.tokens_per_second for one in reported if one is not None and one.tokens_per_second]
    return rates[1:] or rates


def _name(spec: JobSpec) -> str:
    """What a rate depends on, of a spec."""
    local = spec.local
    parts = [spec.model.local, local.tuning, local.quantization, local.device, local.precision, local.packing]
    return json.dumps(
        [*parts, local.max_tokens_per_microbatch, local.max_length, local.lora.r, spec.hyperparameters.batch_size]
    )


def _around(middle: float) -> tuple[float, float]:
    return middle / _AROUND, middle * _AROUND


def _pace(
    tokens: int, span: tuple[float, float], basis: Literal["own runs", "probe", "measured", "published"], source: str
) -> Pace:
    hours = (tokens / span[1] / 3600, tokens / span[0] / 3600)
    return Pace(hours=hours, tokens_per_second=span, basis=basis, source=source)


def _rate(run: Run, spec: JobSpec) -> float | None:
    """Tokens a second of a finished local run of this model, tuned the same way: the median of its steps."""
    try:
        state, run_records = run.state(), run.spec()
        same = run_records.model.local == spec.model.local and run_records.local.tuning == spec.local.tuning
        same = same and run_records.method == spec.method
        if not same or state.state != "succeeded" or not _planned_as(run, "local"):
            return None
        rates = step_rates(run)
    except Exception:  # a run that cannot be read is no evidence
        return None
    return median(rates) if rates else None
