"""The parts of a transformers model that training reaches for, inside peft's wrapper or without it."""

from __future__ import annotations

import inspect
from typing import Any, Literal


def causal(model: Any) -> Any:
    """The transformers model inside peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> Any:
    """The part of the model that makes hidden states from tokens."""
    return causal(model).get_decoder()


def own_attention(architecture: type) -> Literal["sdpa", "eager"]:
    """The attention implementation that a class of transformers takes: sdpa, or written out where it has no other."""
    return "sdpa" if getattr(architecture, "_supports_sdpa", False) else "eager"


def use_attention(model: Any, name: str) -> None:
    """Set the attention implementation of every part of the model."""
    causal(model).set_attn_implementation(name)


def use_own_attention(model: Any) -> None:
    """Set the attention that the model's class takes."""
    use_attention(model, own_attention(type(causal(model))))


def keeps_logits(model: Any) -> bool:
    """Whether the model's forward makes the logits of chosen positions only."""
    return "logits_to_keep" in inspect.signature(causal(model).forward).parameters


def recompute_activations(model: Any) -> None:
    """Compute activations again in the backward pass, where they are not kept.

    transformers has two names for it: `gradient_checkpointing_enable` goes with version 6.
    """
    options = {"use_reentrant": False}
    if hasattr(causal(model), "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def recomputes_activations(model: Any) -> bool:
    """Whether any layer's activations are computed again."""
    return any(getattr(module, "gradient_checkpointing", False) for module in causal(model).modules())
