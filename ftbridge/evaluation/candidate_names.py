"""Candidates as they are named on a command line: who answers, before anybody is loaded or asked.

base · zero_shot · few_shot · retrieval     the spec's base model, prompted
run:ID · checkpoint:ID@STEP                 what a run made
openai:MODEL · local:MODEL                  another model of the spec's service, or of this machine
https://HOST/v1#MODEL                       any chat-completions endpoint
NAME=…                                      any of these, under a name of your own
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

from ftbridge.errors import UsageError
from ftbridge.redaction import address_problem, without_secrets

Kind = Literal["base", "zero_shot", "few_shot", "retrieval", "run", "checkpoint", "openai", "local", "endpoint"]
PROMPTED: tuple[Kind, ...] = ("base", "zero_shot", "few_shot", "retrieval")
_MODELS: tuple[Kind, ...] = ("run", "openai", "local")
_FORMS = (
    "base, zero_shot, few_shot, retrieval, run:ID, checkpoint:ID@STEP, openai:MODEL, local:MODEL, "
    "https://HOST/v1#MODEL, or NAME= and one of these"
)


@dataclass(frozen=True)
class RequestedCandidate:
    """One candidate: `name` as given, `target` the run, model or address, `step` of a checkpoint, `model` of an endpoint."""

    name: str
    kind: Kind
    target: str = ""
    step: int = 0
    model: str = ""


_LABELLED = re.compile(r"([A-Za-z][\w.-]{0,39})=(.+)", re.DOTALL)


def parse_candidate(name: str) -> RequestedCandidate:
    """What a name means; `new=https://HOST/v1#MODEL` gives a candidate a name of your own.

    Raises `UsageError` with the forms there are.
    """
    if labelled := _LABELLED.fullmatch(name):
        return dataclasses.replace(parse_candidate(labelled[2]), name=labelled[1])
    if name.startswith(("http://", "https://")):
        address, _, model = name.partition("#")
        if (problem := address_problem(address)) is not None:
            hint = "Write it as https://HOST/v1#MODEL; its key is read from FTBRIDGE_ENDPOINT_API_KEY."
            raise UsageError(f"the address of a candidate {problem}.", hint=hint)
        if not model:
            raise UsageError(f"{name!r} does not name a model.", hint="Write it as https://HOST/v1#MODEL.")
        return RequestedCandidate(name, "endpoint", address.rstrip("/"), model=model)
    for prompted in PROMPTED:
        if name == prompted:
            return RequestedCandidate(name, prompted)
    kind, _, target = name.partition(":")
    for model_kind in _MODELS:
        if kind == model_kind and target:
            return RequestedCandidate(name, model_kind, target)
    if kind == "checkpoint":
        run, _, step = target.rpartition("@")
        if run and step.isdecimal():
            return RequestedCandidate(name, "checkpoint", run, step=int(step))
        raise UsageError(
            f"{name!r} does not name a step.", hint="Write it as checkpoint:ID@STEP, such as checkpoint:latest@40."
        )
    raise UsageError(f"there is no candidate {without_secrets(name)!r}.", hint=f"Candidates: {_FORMS}.")
