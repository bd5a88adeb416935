"""The methods that train here, by their names in a spec: how each reads data, and how its objective is made ready.

To add one: an objective (`objective.py`), an encoder of its lines, and an entry in `METHODS`. The loop, checkpoints, early
stopping and resuming are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ftbridge.files import sha256_file
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.data.encode import encode_split
from ftbridge.providers.local.data.encoded import STORED_EXAMPLES, EncodedSplit, StoredForm
from ftbridge.providers.local.data.prompts import (
    STORED_PROMPTS,
    PracticePrompt,
    as_examples,
    as_pairs,
    encode_prompts,
)
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models.find import LocalModel
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training.dpo import Preference
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.loop import Reporter
from ftbridge.providers.local.training.objective import SUPERVISED, Objective, StepSource
from ftbridge.providers.local.training.pairs import STORED_PAIRS, Pair, encode_pairs, shares_prompts
from ftbridge.providers.local.training.parallel import ALONE, Parallel
from ftbridge.providers.local.training.policy_gradient import PolicyGradient, trained_values
from ftbridge.providers.local.training.reference import NAME, ReferenceKey, with_reference
from ftbridge.providers.local.training.reinforcement import Practice
from ftbridge.providers.local.training.repeatable import make_repeatable, silence_dropout


@dataclass(frozen=True)
class Setting:
    """What an objective may need to be made ready: the model as training finds it, before a checkpoint is restored."""

    request: LocalRequest
    base: LocalModel
    tokenizer: Any
    forward: Forward
    folder: Path
    tokens: int
    begun: bool
    reporter: Reporter
    requested: Callable[[], Literal["pause", "cancel"] | None]
    parallel: Parallel = ALONE


class Aim(NamedTuple):
    """What the loop trains with: the objective, the units of both splits, and the source of a step's units if it has one."""

    objective: Objective
    train: Sequence[Any]
    validation: Sequence[Any]
    source: StepSource | None = None


@dataclass(frozen=True)
class TrainingMethod:
    """One training method.

    `encode` turns a canonical split into units, and `stored` is their form in a run's folder; `examples` are the conversations
    in them, for proofs of the forward pass; `quiet` prepares a loaded model; `ready` makes the objective, and the units of both
    splits with all that it needs. `rows`: tokens that attention reads for each of a pass in which shared prompts stand once.
    """

    encode: Callable[[Path, str, Renderer, LocalRequest], EncodedSplit[Any]]
    stored: StoredForm[Any]
    examples: Callable[[Sequence[Any]], list[Encoded]]
    quiet: Callable[[Any], None]
    ready: Callable[[Setting, Sequence[Any], Sequence[Any]], Aim]
    rows: Callable[[Sequence[Any], LocalRequest], float] = lambda _, __: 1.0


def _supervised(setting: Setting, train: Sequence[Encoded], validation: Sequence[Encoded]) -> Aim:
    del setting
    return Aim(SUPERVISED, train, validation)


def _preference(setting: Setting, train: Sequence[Pair], validation: Sequence[Pair]) -> Aim:
    """Switch off what draws, prove that prompts can be shared, and measure or read the reference of every pair."""
    request, forward, say = setting.request, setting.forward, setting.reporter.message
    assert request.dpo is not None
    _make_repeatable(setting, [side for pair in train for side in pair.sides])
    shared = request.packing and shares_prompts(forward, train, lambda text: say(text, "warn"))
    key = ReferenceKey(
        model=setting.base.sha256,
        adapter=_adapter_sha256(request),
        quantization=request.quantization,
        compute=str(forward.device.compute).removeprefix("torch."),
        layout=f"2 {forward.way}{' shared prompts' if shared else ''} on {forward.device.kind}",
    )
    both = with_reference(
        forward,
        [*train, *validation],
        key,
        setting.folder / NAME,
        shared=shared,
        budget=setting.tokens,
        begun=setting.begun,
        say=say,
        requested=setting.requested,
        parallel=setting.parallel,
    )
    return Aim(Preference(request.dpo, shared), both[: len(train)], both[len(train) :])


def _reinforcement(setting: Setting, train: Sequence[PracticePrompt], validation: Sequence[PracticePrompt]) -> Aim:
    """Switch off what draws, measure the base model on the validation prompts, attack the grader, make the source of steps."""
    request, say = setting.request, setting.reporter.message
    assert request.reinforcement is not None
    _make_repeatable(setting, as_examples(train))
    renderer = Renderer(setting.tokenizer, request.thinking)
    practice = Practice(
        setting.forward, renderer, request, train, validation, setting.folder, say, setting.requested, setting.parallel
    )
    shared = request.packing and shares_prompts(setting.forward, as_pairs(train), lambda text: say(text, "warn"))
    kl = request.reinforcement.kl
    objective = PolicyGradient(
        shared, kl, trained_values(setting.forward.model) if kl else {}, on_figures=practice.health.look_at_update
    )
    practice.begin(setting.begun)
    return Aim(objective, train, validation, practice)


def _make_repeatable(setting: Setting, examples: Sequence[Encoded]) -> None:
    setting.parallel.together(partial(make_repeatable, setting.forward, examples))


def _adapter_sha256(request: LocalRequest) -> str | None:
    """What names the adapter that training continues from; None for a fresh one, which adds nothing."""
    return (
        None if request.continue_from is None else sha256_file(Path(request.continue_from, "adapter_model.safetensors"))
    )


def _rows_of_pairs(pairs: Sequence[Pair], request: LocalRequest) -> float:
    """Both conversations of each pair are read whole, and computed with one prompt."""
    del request
    return sum(map(len, pairs)) / max(1, sum(pair.n_shared for pair in pairs))


def _rows_of_groups(prompts: Sequence[PracticePrompt], request: LocalRequest) -> float:
    """Every completion of a group is read behind its prompt; completions are as long as they may be."""
    assert request.reinforcement is not None
    size = request.reinforcement.group_size
    computed = sum(len(one.ids) + size * one.room for one in prompts)
    return size * sum(map(len, prompts)) / max(1, computed)


METHODS: dict[str, TrainingMethod] = {
    "supervised": TrainingMethod(encode_split, STORED_EXAMPLES, list, lambda _: None, _supervised),
    "dpo": TrainingMethod(
        encode_pairs,
        STORED_PAIRS,
        lambda pairs: [side for pair in pairs for side in pair.sides],
        silence_dropout,
        _preference,
        _rows_of_pairs,
    ),
    "reinforcement": TrainingMethod(
        encode_prompts, STORED_PROMPTS, as_examples, silence_dropout, _reinforcement, _rows_of_groups
    ),
}
