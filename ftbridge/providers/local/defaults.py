"""What "auto" comes to on this machine: batch size, epochs and the base learning rate, each by a rule with its source.

A hosted service has rules of its own and does not publish them; these are for training here. Supervised tuning:

    batch_size     a 40th of the examples, 8 to 32: LoRA learns best from small batches ("LoRA Without Regret", Schulman et al.
                   2025); on the example 8 were five points better than a 20th, 14 (benchmarks/README.md, "Defaults")
    n_epochs       3, or more for few examples, so that there are about 40 steps, at most 10; at most 25,000 examples in all
    learning rate  5e-4 x (2000 / width)^0.781 for LoRA, (2000 / width)^0.0775 for Qwen's families: the fit of
                   tinker-cookbook (hyperparam_utils, 2025) over models of 1 to 400 billion parameters; `width` is the model's
                   hidden size. Full tuning takes a tenth of it, the ratio that "LoRA Without Regret" measured.

The rate depends on the model, which the field mapping does not read: it shows the formula, and the worker the number.
"""

from __future__ import annotations

from typing import Literal

from ftbridge.spec.sections import Method

Tuning = Literal["lora", "full"]

REFERENCE_WIDTH = 2000
SUPERVISED_RATE: dict[Tuning, float] = {"lora": 5e-4, "full": 5e-5}
"""Base learning rate of supervised tuning for a model of `REFERENCE_WIDTH`."""
PREFERENCE_RATE: dict[Tuning, float] = {"lora": 5e-6, "full": 5e-7}
"""The base rate of preference tuning. LoRA: zephyr's QLoRA recipe (alignment-handbook), TRL's table of rates. Full: a tenth."""
REINFORCEMENT_RATE: dict[Tuning, float] = {"lora": 1e-5, "full": 1e-6}
"""The base rate of reinforcement: TRL's table of rates for GRPO, and the same ratio."""
RATES: dict[Method, dict[Tuning, float]] = {
    "supervised": SUPERVISED_RATE,
    "dpo": PREFERENCE_RATE,
    "reinforcement": REINFORCEMENT_RATE,
}

_EXPONENT, _EXPONENT_OF_QWEN = 0.781, 0.0775
_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_IN_EPOCH = 8, 32, 40
_EPOCHS, _MOST_EPOCHS, _FEWEST_STEPS, _MOST_SEEN = 3, 10, 40, 25_000


def width_factor(width: int | None, model_type: str) -> float:
    """What the base rate of supervised tuning is multiplied by for a model of this hidden size; 1 where it is not known.

    `model_type` is that of the model's config.json, such as llama or qwen3.
    """
    if not width:
        return 1.0
    exponent = _EXPONENT_OF_QWEN if model_type.lower().startswith("qwen") else _EXPONENT
    return float((REFERENCE_WIDTH / width) ** exponent)


def batch_size(examples: int) -> tuple[int, str]:
    """Examples in a step of supervised tuning, and why."""
    size = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, examples // _STEPS_IN_EPOCH), examples)
    return size, f"{examples:,} examples // {_STEPS_IN_EPOCH}, {_SMALLEST_BATCH} to {_LARGEST_BATCH}"


def n_epochs(examples: int, batch: int) -> tuple[int, str]:
    """Passes over the examples of supervised tuning, and why."""
    if examples * _EPOCHS > _MOST_SEEN:
        return max(1, _MOST_SEEN // examples), f"{_MOST_SEEN:,} // {examples:,} examples, at least 1"
    wanted = -(-_FEWEST_STEPS * batch // examples)
    epochs = min(_MOST_EPOCHS, max(_EPOCHS, wanted))
    return (
        epochs,
        f"about {_FEWEST_STEPS} steps of {batch} or more, {_EPOCHS} to {_MOST_EPOCHS} epochs of {examples:,} examples",
    )
