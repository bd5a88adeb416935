"""Whether a model's architecture can be trained as asked, from its config alone: built without memory, within seconds."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.models import load, targets
from ftbridge.providers.local.request import LocalRequest


def examine(path: Path, request: LocalRequest) -> tuple[str, ...]:
    """What a user should know of training this model: what stays frozen, and what quantization does not reach.

    Raises `ModelUnavailable` where the class is missing or cannot be built, or where the adapter cannot be put on it.
    """
    model = _without_memory(path, request)
    if model is None:
        return ()
    notes = [*_left_in_16_bits(model, request)]
    if request.tuning == "lora":
        notes += targets.resolve(model, request).notes
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load.add_adapter(model, request.model_copy(update={"continue_from": None}))
    return tuple(notes)


def _without_memory(path: Path, request: LocalRequest) -> Any | None:
    """The model on the meta device, or None where building it needs real numbers."""
    trust = request.trust_remote_code
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust)
        attention = load.attention_for(path, trust_remote_code=trust)
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust, attn_implementation=attention)
    except RuntimeError:  # an initialization that reads its own weights, which says nothing of the model
        return None
    except Exception as error:  # whatever a class of transformers, or one that comes with the model, raises on a config
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelUnavailable(
            f"the model in {path} cannot be built by this release of transformers: {reason[:400]}",
            hint="Use another base model, or install the release that its config.json names.",
        ) from error


def _left_in_16_bits(model: Any, request: LocalRequest) -> list[str]:
    if request.quantization == "none" or request.tuning == "full":
        return []
    experts = sum(parameter.numel() for parameter in targets.fused_experts(model).values())
    if not experts:
        return []
    everything = sum(parameter.numel() for parameter in model.parameters())
    return [
        f"local.quantization {request.quantization} reaches linear layers only: the fused experts, {experts:,} of"
        f" {everything:,} parameters, stay in 16 bits ({2 * experts / 1e9:,.3g} GB)"
    ]
