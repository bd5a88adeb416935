"""A model's sizes from its config alone, by the building plans of transformers' classes. No torch.

Families that are read: the usual decoder (Llama, Mistral, Qwen, Gemma, Phi-3 and 4, SmolLM, Granite, OLMo 2), mixtures of
experts (Mixtral, Qwen MoE, OLMoE, gpt-oss, GLM 4.5) and latent attention with shared experts (DeepSeek V2 and V3). A config
that names a part which none of these has is refused: a plan that leaves it out is wrong by a multiple.
Sources: transformers 5, models/*/modeling_*.py and configuration_*.py; the tests build its classes without weights and compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ftbridge.errors import UsageError
from ftbridge.providers.local.models.footprint import ModelShape
from ftbridge.spec.problems import problems

_OWN_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Family:
    """How a model type differs from Llama. `tied`: what its config class takes where the config leaves it out."""

    tied: bool = False
    norms: int = 2
    qkv_bias: bool = False
    qk_norm: str = ""
    fused: bool = False
    experts: bool = False
    shared_gate: bool = False
    sinks: bool = False
    latent: bool = False
    expert_bias: bool = False


_FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "ministral": Family(),
    "granite": Family(),
    "seed_oss": Family(),
    "smollm3": Family(tied=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm="head"),
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, norms=4),
    "gemma3_text": Family(tied=True, norms=4, qk_norm="head"),
    "phi3": Family(fused=True),
    "olmo2": Family(qk_norm="all"),
    "cohere": Family(tied=True, norms=1),
    "cohere2": Family(tied=True, norms=1),
    "mixtral": Family(experts=True),
    "qwen2_moe": Family(qkv_bias=True, experts=True, shared_gate=True),
    "qwen3_moe": Family(qk_norm="head", experts=True),
    "olmoe": Family(qk_norm="all", experts=True),
    "gpt_oss": Family(experts=True, sinks=True, expert_bias=True),
    "glm4_moe": Family(experts=True),
    "deepseek_v2": Family(experts=True, latent=True),
    "deepseek_v3": Family(experts=True, latent=True),
}
_UNREAD = (
    "expert", "moe", "lora_rank", "mamba", "ssm", "linear_attn", "linear_num", "per_layer", "altup", "laurel", "block_configs",
    "attn_layer", "conv_", "recurrent", "parallel_attn", "multi_query", "n_embd", "type_vocab", "quant_lora",
)  # fmt: skip
"""In names of fields of parts that the usual decoder does not have."""
_NOT_GATED = {
    "apertus", "arcee", "aria_text", "biogpt", "ernie4_5_moe", "fuyu", "gpt_neox", "hrm_text", "jais2", "nanochat", "nemotron",
    "persimmon", "phi", "phi4_multimodal", "recurrent_gemma", "starcoder2",
}  # fmt: skip
"""Types whose fields look usual and whose layers are not, most for an MLP of two matrices instead of three."""
_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


def shape_of(config: Mapping[str, Any], where: str = "config.json") -> ModelShape:
    """The sizes in a config. Raises `UsageError` for one that is not a decoder that is read here, or whose sizes cannot be."""
    try:
        _require_decoder(config, where)
        text = config.get("text_config") or config
        kind = str(text.get("model_type") or config.get("model_type") or "llama")
        family = _family(kind, text, where)
        return _shape(config, text, kind, family)
    except ValidationError as error:
        raise UsageError("\n".join(problems(error, ModelShape, where))) from None
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UsageError(f"{where} does not give {error}, so its memory cannot be estimated.") from None


def _family(kind: str, text: Mapping[str, Any], where: str) -> Family:
    family = _FAMILIES.get(kind)
    if family is not None and (family.experts or not _has_experts(text)):
        unread = [] if family.experts else _unread(text)
    else:
        family, unread = family or Family(), _unread(text)
        if kind in _NOT_GATED:
            unread = [f"model_type {kind}"]
    if unread:
        raise UsageError(
            f"{where}: the memory of a {kind} model cannot be planned: {', '.join(unread[:4])} "
            f"{'stands' if len(unread) == 1 else 'stand'} for parts that this version does not support.",
            hint="Families that are counted: " + ", ".join(sorted(_FAMILIES)) + ".",
        )
    return family


def _has_experts(text: Mapping[str, Any]) -> bool:
    counts = [name for name in text if "experts" in name and ("num" in name or "routed" in name) and "per_" not in name]
    return any(_number(text[name]) > 1 for name in counts)


def _unread(text: Mapping[str, Any]) -> list[str]:
    """Fields of parts that the usual decoder does not have; a field that is null, false or 0 is not in use."""
    fields = [name for name, value in text.items() if value not in (None, False, 0, [], {}) and _stands_for_more(name)]
    odd = set(map(str, text.get("layer_types") or ())) - _LAYER_TYPES
    fields += [f"layer_types {kind}" for kind in sorted(odd)]
    # Dense models of a family with experts keep their fields, with no experts in them.
    mixed = _has_experts(text)
    return [name for name in fields if mixed or not any(word in name for word in ("expert", "moe", "router"))]


def _stands_for_more(name: str) -> bool:
    return any(part in name for part in _UNREAD)


def _shape(config: Mapping[str, Any], text: Mapping[str, Any], kind: str, family: Family) -> ModelShape:
    hidden, heads, layers = text["hidden_size"], text["num_attention_heads"], text["num_hidden_layers"]
    kv_heads = _given(text.get("num_key_value_heads"), heads)
    head_dim = _given(text.get("head_dim"), hidden // heads)
    positions = text.get("max_position_embeddings")
    attention, small = _attention(text, family, hidden, heads, kv_heads, head_dim)
    if family.latent:
        head_dim, kv_heads = text["qk_nope_head_dim"] + text["qk_rope_head_dim"], heads
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", family.tied))
    fields: dict[str, Any] = {
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": text["intermediate_size"],
        "vocabulary": text["vocab_size"],
        "tied": bool(config.get("tie_word_embeddings", tied)),
        "attention": attention,
        "gate": ("gate_up_proj",) if family.fused else ("gate_proj", "up_proj"),
        "positions": positions if isinstance(positions, int) and positions > 0 else None,
        "own_head": any(text.get(name) not in (None, 0, 1, 1.0) for name in _OWN_HEAD),
    }
    mixed = _experts(text, kind, family, layers) if family.experts else {}
    fields |= mixed
    if mixed:
        small += _routers(hidden, kind, family, mixed)
    if text.get("mlp_bias"):
        small += layers * (2 * text["intermediate_size"] + hidden)
    return ModelShape(**fields, small=small + hidden)


def _attention(
    text: Mapping[str, Any], family: Family, hidden: int, heads: int, kv_heads: int, head_dim: int
) -> tuple[tuple[tuple[str, int, int], ...], int]:
    """A layer's linear modules of attention, and the parameters of its norms, biases and sinks in all layers."""
    layers, queries, keys = text["num_hidden_layers"], heads * head_dim, kv_heads * head_dim
    small = family.norms * hidden
    modules: list[tuple[str, int, int]]
    if family.latent:
        modules, norms = _latent(text, hidden, heads)
        small += norms
        biased = [outputs for name, _, outputs in modules if name in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj")]
    elif family.fused:
        modules = [("qkv_proj", hidden, queries + 2 * keys), ("o_proj", queries, hidden)]
        biased = [outputs for _, _, outputs in modules]
    else:
        modules = [
            ("q_proj", hidden, queries),
            ("k_proj", hidden, keys),
            ("v_proj", hidden, keys),
            ("o_proj", queries, hidden),
        ]
        biased = [outputs for _, _, outputs in modules]
    if family.qkv_bias:
        small += queries + 2 * keys
    elif text.get("attention_bias"):
        small += sum(biased) - (hidden if text.get("model_type") == "glm4_moe" else 0)
    if family.qk_norm or text.get("use_qk_norm"):
        small += queries + keys if family.qk_norm == "all" or text.get("model_type") in ("cohere",) else 2 * head_dim
    return tuple(modules), layers * (small + (heads if family.sinks else 0))


def _latent(text: Mapping[str, Any], hidden: int, heads: int) -> tuple[list[tuple[str, int, int]], int]:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1): modules, and the parameters of its norms."""
    rank, rope, nope = text["kv_lora_rank"], text["qk_rope_head_dim"], text["qk_nope_head_dim"]
    value, narrow = text["v_head_dim"], text.get("q_lora_rank")
    queries = heads * (nope + rope)
    first = [("q_proj", hidden, queries)]
    if narrow:
        first = [("q_a_proj", hidden, narrow), ("q_b_proj", narrow, queries)]
    rest = [
        ("kv_a_proj_with_mqa", hidden, rank + rope),
        ("kv_b_proj", rank, heads * (nope + value)),
        ("o_proj", heads * value, hidden),
    ]
    return first + rest, rank + (narrow or 0)


def _experts(text: Mapping[str, Any], kind: str, family: Family, layers: int) -> dict[str, int]:
    """Numbers and widths of a mixture of experts; nothing where the config has one expert or none."""
    count = next(
        (_number(text[name]) for name in ("num_local_experts", "num_experts", "n_routed_experts") if text.get(name)), 0
    )
    if count <= 1:
        return {}
    width = _given(text.get("moe_intermediate_size"), text["intermediate_size"])
    if kind in ("deepseek_v2", "deepseek_v3", "glm4_moe"):
        mixed = max(0, layers - _given(text.get("first_k_dense_replace"), 0))
        shared = _given(text.get("n_shared_experts"), 0) * width
    else:
        every, dense = _given(text.get("decoder_sparse_step"), 1), set(text.get("mlp_only_layers") or ())
        mixed = sum(index not in dense and (index + 1) % every == 0 for index in range(layers))
        shared = _given(text.get("shared_expert_intermediate_size"), 0) if family.shared_gate else 0
    return {
        "experts": count,
        "expert_layers": mixed,
        "expert_width": width,
        "active_experts": _given(text.get("num_experts_per_tok"), 1),
        "shared_width": shared,
    }


def _routers(hidden: int, kind: str, family: Family, mixed: Mapping[str, int]) -> int:
    """Parameters of routers, of the gate of shared experts, and of experts' biases."""
    each = hidden * mixed["experts"]
    if family.shared_gate:
        each += hidden
    if family.expert_bias:
        each += mixed["experts"] * (1 + 2 * mixed["expert_width"] + hidden)
    return mixed["expert_layers"] * each


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _require_decoder(config: Mapping[str, Any], where: str) -> None:
    named = next(iter(config.get("architectures") or []), None)
    if config.get("is_encoder_decoder") or (isinstance(named, str) and not named.endswith(_CAUSAL)):
        raise UsageError(
            f"{where}: {named or 'an encoder-decoder'} does not continue text, so it cannot be tuned to complete prompts.",
            hint="Use the text-only instruct model of the family; its architecture ends in ForCausalLM.",
        )
