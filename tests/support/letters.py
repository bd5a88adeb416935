"""A small real tokenizer, a tiny random model of its tokens, and an engine of both."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ftbridge.providers.local.inference.engine import Engine
from ftbridge.providers.local.models.device import Device

CPU = Device(torch.device("cpu"), torch.float32)
VOCABULARY = 260
"""Bytes, and room for a few tokens with a meaning."""


def letters() -> PreTrainedTokenizerFast:
    """A real tokenizer whose tokens are bytes, and an end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def llama(*, seed: int = 0, layers: int = 2) -> Any:
    """A model that reads up to 8,192 of these tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=8192, eos_token_id=256,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)  # logits apart, as a trained model's are
    return model.requires_grad_(False)


def engine(model: Any, **options: Any) -> Engine:
    """An engine on the CPU, in fp32."""
    return Engine(model, letters(), device=CPU, **options)
