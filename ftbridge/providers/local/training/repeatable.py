"""A training pass that draws nothing: policy and reference are compared, and noise is not a difference.

    dropout layers              p = 0
    whatever else draws         its class runs in evaluation mode from then on: the random generators are watched in a pass over
                                the user's own first example, again and again until none of them moves
    what nobody can see         three passes must give the same: two in training mode under other seeds, one in evaluation mode

Names do not say what draws. transformers 5 has a dozen names for dropout, and some layers read theirs from the config at each
call (Falcon); OPT skips layers; Mixtral and DBRX multiply their router's input by noise; PhiMoE samples experts without a
setting that says so, and its `router_jitter_noise` counts in evaluation mode too: with 0 it would be another model.

Nor can the whole model be put in evaluation mode: transformers recomputes activations in training mode alone, xLSTM has no
gradient in evaluation mode beyond 16,384 tokens, and int8 layers compute otherwise there on a CPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.proof import PIECE


@dataclass(frozen=True)
class Rounding:
    """How far two passes over the same tokens may be apart though the model is the same, in nats: the log-probability of a
    token differs by `token` (standard deviation, independent between tokens) and by `bias`, which does not average out.
    """

    token: float
    bias: float


ROUNDING = {
    torch.float32: Rounding(1e-4, 1e-5),
    torch.bfloat16: Rounding(0.05, 1e-3),
    torch.float16: Rounding(0.0065, 1.3e-4),
}
"""By compute type. Measured in bf16 on 656 tokens of 12 completions by SmolLM2-135M (30 layers, on a CPU): 0.047 where the
micro-batch takes another attention kernel, 0.054 padded instead of packed; sums over a completion are apart by 0.04 to 0.05
times the root of its tokens, so tokens differ independently; bias 3e-4 to 6e-4. The same kernels give the same numbers in
micro-batches of any shape there. Two-layer models of seven families: 0.001 to 0.007. float16 has 3 bits more; float32: 2e-6."""
INT8 = Rounding(0.25, 0.03)
"""Of int8 layers, which choose the columns that they keep in 16 bits by what else is in the micro-batch. Measured on the same
completions: 0.21 and 0.014 in other micro-batches, 0.23 and 0.023 against a CPU's way of training, which quantises no input."""


def rounding(forward: Forward) -> Rounding:
    """How far two training passes over the same tokens may be apart, in other micro-batches."""
    return ROUNDING[forward.device.compute] if forward.device.kind == "cpu" else _of_any_mode(forward)


def silence_dropout(model: nn.Module) -> None:
    """Set every dropout layer of a model to 0. What else draws is found in a pass: `make_repeatable`."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0


def make_repeatable(forward: Forward, examples: Sequence[Encoded]) -> None:
    """Put what draws random numbers in a training pass in evaluation mode. Leaves the model in train mode.

    Several workers that share a model call this together. Raises `ModelUnavailable` where passes over the first example still
    differ, and names what draws.
    """
    first = next((example for example in examples if len(example) > 1), None)
    if first is None:
        return
    size = min(PIECE, len(first))
    piece = replace(first, input_ids=first.input_ids[:size], loss_mask=(True,) * size)
    forward.model.train()
    silence_dropout(forward.model)
    drawing = _drawing(forward, piece)
    while kinds := {type(module) for module in drawing if not _is_quiet(module)}:
        quiet = {kind: _quiet(kind) for kind in kinds}
        for module in forward.model.modules():
            if type(module) in quiet:
                module.__class__ = quiet[type(module)]
        drawing = _drawing(forward, piece)
    _require_agreement(forward, piece, drawing)


def _quiet(kind: type[Any]) -> type[Any]:
    """The same class with a forward in evaluation mode, for the module itself alone.

    A class and no hook, since a layer of transformers looks at its mode twice: whether to recompute its activations, which
    stays as it was (its `__init_subclass__` wraps this forward, as it does that of a sharded layer), and within.
    """
    run: Callable[..., Any] = kind.forward

    @wraps(run)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        mode, self.training = self.training, False
        try:
            return run(self, *args, **kwargs)
        finally:
            self.training = mode

    names = {"forward": forward, "draws_nothing": True, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), names)


def _is_quiet(module: nn.Module) -> bool:
    return getattr(type(module), "draws_nothing", False)


def _drawing(forward: Forward, example: Encoded) -> list[nn.Module]:
    """The modules within which a generator of random numbers moves in a training pass, and in none of their children."""
    drawing: dict[int, nn.Module] = {}
    with torch.no_grad(), _watched(forward.device.kind, drawing):
        forward.log_probabilities([example], seed=1)
    return list(drawing.values())


@contextmanager
def _watched(kind: str, drawing: dict[int, nn.Module]) -> Iterator[None]:
    """Add the innermost module that runs whenever a generator moves."""
    running: list[nn.Module] = []
    state = _generators(kind)

    def look() -> None:
        nonlocal state
        if (now := _generators(kind)) != state:
            state = now
            if running:
                drawing[id(running[-1])] = running[-1]

    def enter(module: nn.Module, _inputs: Any) -> None:
        look()
        running.append(module)

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        look()
        running.pop()

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _generators(kind: str) -> tuple[Any, ...]:
    """Where every generator stands that a model may draw from: torch's on the CPU and the device, Python's, numpy's."""
    states = [torch.get_rng_state(), *([] if kind == "cpu" else [torch.get_device_module(kind).get_rng_state()])]
    other = np.random.get_state(legacy=False)["state"]
    return *(one.numpy().tobytes() for one in states), random.getstate(), other["key"].tobytes(), other["pos"]


def _require_agreement(forward: Forward, example: Encoded, drawing: Sequence[nn.Module]) -> None:
    """Raise `ModelUnavailable` unless a training pass repeats itself, and is the pass in evaluation mode."""
    model = forward.model
    with torch.no_grad():
        first, other = (forward.log_probabilities([example], seed=seed) for seed in (1, 2))
        model.eval()
        evaluated = forward.log_probabilities([example])
        model.train()
    apart = _apart(first, other), _apart(first, evaluated)
    if apart[0] <= ROUNDING[forward.device.compute].token and apart[1] <= 4 * _of_any_mode(forward).token:
        return
    names = [name.replace("base_model.model.", "") for name, one in model.named_modules() if one in set(drawing)]
    which = f" Random numbers are drawn in {', '.join(names[:3])}{' …' if len(names) > 3 else ''}." if names else ""
    raise ModelUnavailable(
        f"two training passes over the same example differ by {apart[0]:.2g} nats a token, and one in evaluation mode by "
        f"{apart[1]:.2g}: this model cannot be compared with its reference, or learn from its own completions.{which}",
        hint="Use another base model, or method: supervised, which compares nothing.",
    )


def _of_any_mode(forward: Forward) -> Rounding:
    """The rounding of two passes in whatever mode."""
    layers = forward.model.modules()
    return INT8 if any(type(one).__name__ == "Linear8bitLt" for one in layers) else ROUNDING[forward.device.compute]


def _apart(one: Tensor, other: Tensor) -> float:
    """The root of the mean squared difference."""
    return float((one - other).square().mean().sqrt())
