"""Runs of this machine served under names of the client's choice: `--map 'ft:gpt-4.1-mini:acme:triage:abc=RUN'`.

A name may be any text, the `ft:` names and checkpoint names of another organization included: clients that change nothing but
the address and the key go on as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai.types import Model

from ftbridge import providers
from ftbridge.errors import RunNotFound, UsageError
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runner.summary import read_lowering
from ftbridge.runs import store
from ftbridge.server.local.sampled import SampledRun
from ftbridge.spec.job_object import tuned_name

_PREFIX = "run:"


@dataclass(frozen=True)
class ServedRun:
    """What a run made, as the engine needs it: `adapter` for LoRA, `weights` for a model that was tuned whole."""

    run: str
    request: LocalRequest
    adapter: str | None
    weights: str | None
    created: int

    def shown(self, name: str) -> dict[str, Any]:
        """The model object under this name. Its owner is the organization in the name, where there is one."""
        parts = tuned_name(name)
        owner = parts.organization if parts is not None else ""
        return Model(id=name, created=self.created, object="model", owned_by=owner or "ftbridge").to_dict()


def served_run(home: Path, value: str) -> ServedRun | SampledRun | None:
    """The run that a mapping names: `run:ID`, or the whole id of a run, with `@STEP` behind it for a checkpoint.

    None for anything else, which is a model. A run of a provider that neither works here nor is hosted is served through that
    provider's sampler. Raises `UsageError` for a run without weights on this machine or without that checkpoint, and
    `RunNotFound` for `run:` and an id that is none.
    """
    text, named = value.removeprefix(_PREFIX), value.startswith(_PREFIX)
    plain, _, step = text.rpartition("@") if "@" in text else (text, "", "")
    if not named and not (home / "runs" / plain / "journal.jsonl").is_file():
        return None
    if not plain or (step and not step.isdecimal()):
        raise RunNotFound(f"{value!r} does not name a run.", hint="Write run:ID, or run:ID@STEP for a checkpoint.")
    run = store.find(home, plain)
    state = run.state()
    if state.tuned is None:
        raise UsageError(f"{run.id} has no tuned model: it is {state.state}.", hint=f"ftbridge resume {run.id}")
    backend, tuned = providers.load(state.provider), state.tuned
    can = backend.capabilities(run.spec())
    if can.hosted:
        raise UsageError(
            f"{run.id} was tuned by the provider {state.provider}, whose models are not served here.",
            hint="Run the same spec with --provider local to have weights of your own.",
        )
    if can.plan != "local":
        if step:
            raise UsageError(
                f"checkpoints of {run.id} are not served: its provider {state.provider} samples by itself."
            )
        return SampledRun(run.id, state.provider, read_lowering(run), tuned, run.path, int(state.created))
    request = LocalRequest.of(read_lowering(run).request)
    folder = tuned.id
    if step:
        steps = backend.checkpoints(tuned, run.path)
        if int(step) not in steps:
            there = ", ".join(str(step_number) for step_number in sorted(steps)) or "none"
            raise UsageError(f"{run.id} has no checkpoint of step {step}.", hint=f"Its checkpoints: {there}.")
        folder = steps[int(step)]
    lora = request.tuning == "lora"
    return ServedRun(run.id, request, folder if lora else None, None if lora else folder, int(state.created))
