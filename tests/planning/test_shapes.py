"""Sizes read from configs, against transformers' own classes built without weights, and against published counts."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from ftbridge.errors import UsageError
from ftbridge.planning.memory import memory, published_shape
from ftbridge.providers.local.models.find import BUILT_IN
from ftbridge.providers.local.models.sizes import shape_of
from ftbridge.spec.sections import LocalSpec

PUBLISHED = json.loads(files("ftbridge.planning").joinpath("models.json").read_text("utf-8"))
BILLIONS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8.030,
    "meta-llama/Llama-3.3-70B-Instruct": 70.554,
    "meta-llama/Llama-3.2-1B": 1.236,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "Qwen/Qwen3-4B": 4.022,
    "Qwen/Qwen2.5-Coder-14B-Instruct": 14.770,
    "Qwen/QwQ-32B": 32.764,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.777,
    "meta-llama/Llama-2-13b-hf": 13.016,
    "mistralai/Ministral-8B-Instruct-2410": 8.020,
    "mistralai/Mistral-Large-Instruct-2407": 122.610,
    "unsloth/Llama-3.2-3B-Instruct-bnb-4bit": 3.213,
    "Qwen/Qwen3-30B-A3B": 30.532,
    "mistralai/Mistral-Nemo-Instruct-2407": 12.248,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46.703,
    "google/gemma-2-9b-it": 9.242,
    "google/gemma-3-1b-it": 1.000,
    "microsoft/phi-4": 14.660,
    "openai/gpt-oss-20b": 20.915,
    "deepseek-ai/DeepSeek-V3": 671.026,
    "HuggingFaceTB/SmolLM3-3B": 3.075,
    "allenai/OLMoE-1B-7B-0924": 6.919,
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 128,
}
MIXED = {**SMALL, "num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
VARIANTS: list[dict[str, Any]] = [
    {**SMALL, "model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    {**SMALL, "model_type": "gemma", "head_dim": 24, "num_key_value_heads": 1},
    {**SMALL, "model_type": "cohere2", "num_key_value_heads": 2},
    {**SMALL, "model_type": "smollm3", "num_key_value_heads": 2, "pad_token_id": 0},
    {**MIXED, "model_type": "qwen2_moe", "num_experts": 6, "decoder_sparse_step": 2, "shared_expert_intermediate_size": 56},
    {**MIXED, "model_type": "qwen3_moe", "num_experts": 6, "mlp_only_layers": [0, 3], "head_dim": 16},
    {**MIXED, "model_type": "glm4_moe", "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 16,
     "attention_bias": True, "use_qk_norm": True, "n_group": 1, "topk_group": 1, "pad_token_id": 0},
    {**MIXED, "model_type": "deepseek_v3", "n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 2,
     "q_lora_rank": 24, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
     "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
    {**MIXED, "model_type": "deepseek_v2", "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 0,
     "q_lora_rank": None, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
     "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
]  # fmt: skip


def counted(config: dict[str, Any]) -> tuple[int, int, int]:
    """Parameters of transformers' class for a config, those of its linear layers, and those of three-dimensional ones."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    model.tie_weights()
    linears = [
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    fused = [weights.numel() for weights in model.parameters() if weights.ndim == 3]
    return sum(weights.numel() for weights in model.parameters()), sum(linears), sum(fused)


def shortened(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "num_hidden_layers": 4}


@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: config["model_type"])
def test_parameters_are_those_of_the_class(config):
    parameters, linear, fused = counted(config)
    shape = shape_of(config)
    assert shape.parameters == parameters
    assert shape.linear_parameters == pytest.approx(linear, rel=0.002)  # the gate of shared experts is a row
    assert shape.expert_parameters == fused


@pytest.mark.slow
@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry["ids"][0])
def test_published_configs_are_counted_as_their_classes_are(entry):
    parameters, linear, fused = counted(shortened(entry["config"]))
    shape = shape_of(shortened(entry["config"]))
    assert (shape.parameters, shape.linear_parameters) == (parameters, linear)
    biases = {"gpt_oss": 0}.get(entry["config"]["model_type"])
    assert biases is not None or shape.expert_parameters == fused


@pytest.mark.parametrize(("model", "billions"), BILLIONS.items())
def test_a_hub_id_is_enough_and_its_parameters_are_the_published_ones(model, billions):
    shape = published_shape(model.upper())
    assert shape is not None
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.001)


def test_thirty_open_models_travel_and_each_id_once():
    names = [name.casefold() for entry in PUBLISHED for name in entry["ids"]]
    assert len(PUBLISHED) >= 30
    assert len(set(names)) == len(names)
    assert published_shape("nobody/nothing") is None


def test_the_built_in_models_sizes_travel_in_the_package():
    for name, built_in in BUILT_IN.items():
        assert published_shape(name) == published_shape(built_in.hub_id) is not None


def test_nf4_leaves_fused_experts_in_16_bits_and_an_adapter_has_a_part_for_each():
    mixtral = published_shape("mistralai/Mixtral-8x7B-v0.1")
    assert mixtral is not None
    experts = 32 * 8 * 3 * 4096 * 14336
    assert mixtral.expert_parameters == experts
    weights = memory(mixtral, LocalSpec(), pass_tokens=512).weights
    assert weights == pytest.approx(2 * experts + 0.516 * 32 * 4096 * (2 * 4096 + 2 * 1024) + 2 * 262e6, rel=0.01)
    attention = 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    assert mixtral.adapter_parameters(16, dora=True) == attention
    assert mixtral.adapter_parameters(16) == attention + 32 * 8 * 16 * (4096 + 2 * 14336 + 14336 + 4096)
    assert mixtral.adapter_parameters(16, ["w2"]) == 32 * 8 * 16 * (14336 + 4096)
    dense = published_shape("mistralai/Mistral-7B-v0.1")
    assert dense is not None
    assert memory(dense, LocalSpec(), pass_tokens=512).weights < 0.3 * 2 * dense.parameters


@pytest.mark.parametrize(
    "more",
    [
        {"model_type": "newcomer", "num_local_experts": 8},
        {"model_type": "newcomer", "moe_num_experts": 64, "moe_topk": 6},
        {"model_type": "newcomer", "kv_lora_rank": 512},
        {"model_type": "llama", "num_experts": 4},
        {"model_type": "newcomer", "layer_types": ["linear_attention", "full_attention"]},
        {"model_type": "starcoder2"},
    ],
)
def test_parts_that_are_not_counted_are_refused_by_their_name(more):
    with pytest.raises(UsageError, match="cannot be planned") as refused:
        shape_of({**SMALL, **more})
    assert next(name for name in (*list(more)[1:], "starcoder2") if name in refused.value.message)


def test_a_newcomer_of_the_usual_build_is_counted():
    usual = {**SMALL, "model_type": "newcomer", "num_experts": 0, "layer_types": ["sliding_attention"] * 4}
    assert shape_of(usual).parameters == shape_of({**SMALL, "model_type": "llama"}).parameters


def test_heads_are_tied_where_the_class_ties_them_and_the_config_says_nothing():
    assert shape_of({**SMALL, "model_type": "gemma2"}).tied
    assert not shape_of({**SMALL, "model_type": "llama"}).tied
    assert not shape_of({**SMALL, "model_type": "gemma2", "tie_word_embeddings": False}).tied
