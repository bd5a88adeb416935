"""What training takes, from a model's config alone: one arithmetic for `ftbridge plan` and for the worker's passes. No torch.

    weights      as load.py holds them: linear layers in the quantization; embeddings, head and norms in the compute type
    copy         16-bit numbers of nf4 layers, where `keep_dequantized` holds them
    trained      parameters that learn, their gradients, AdamW's moments
    pass         tokens x what a token keeps until the backward pass reaches it; checkpointing keeps one vector a block
    head         chunks of logits (loss.py), never the whole; models whose head is their own pay for all of it

Bytes a parameter: nf4 with double quantisation 0.516 (4 bits, an 8-bit constant for 64 weights, a 32-bit one for 256 of those;
Dettmers et al. 2023, arXiv:2305.14314, section 3), int8 1, 16-bit 2. What a token keeps is counted from fused.py and from
transformers' decoder blocks, tensor by tensor, in the manner of Korthikanti et al. 2022 (arXiv:2205.05198).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.errors import UsageError

Kind = Literal["cuda", "mps", "cpu"]
CHUNK = 64 << 20
"""Bytes of one chunk of float32 logits; loss.py's `CHUNK_BYTES`."""
WEIGHT_BYTES = {"nf4": 0.516, "int8": 1.0, "none": 2.0}
SHORT = 192
"""Up to here CPUs write attention out, scores and all (attention.py)."""
_OWN_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


class Shape(BaseModel):
    """A decoder's sizes, as its config tells them."""

    model_config = ConfigDict(frozen=True, strict=True)

    hidden: int = Field(gt=0, le=1 << 20)
    layers: int = Field(gt=0, le=10_000)
    heads: int = Field(gt=0, le=10_000)
    kv_heads: int = Field(gt=0, le=10_000)
    head_dim: int = Field(gt=0, le=1 << 16)
    intermediate: int = Field(gt=0, le=1 << 24)
    vocabulary: int = Field(gt=0, le=1 << 24)
    tied: bool
    experts: int = Field(default=1, gt=0, le=10_000)
    positions: int | None = Field(default=None, description="Most tokens of one example, where the config tells.")
    own_head: bool = Field(default=False, description="The head scales or caps its logits, so it cannot run in chunks.")

    @property
    def named(self) -> list[tuple[str, int, int]]:
        """Name, inputs and outputs of one layer's linear modules."""
        attention, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        own = [
            ("q_proj", self.hidden, attention),
            ("k_proj", self.hidden, keys),
            ("v_proj", self.hidden, keys),
            ("o_proj", attention, self.hidden),
        ]
        mlp = [("gate_proj", self.hidden, self.intermediate), ("up_proj", self.hidden, self.intermediate)]
        return own + [*mlp, ("down_proj", self.intermediate, self.hidden)] * self.experts

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear layers, the head aside."""
        return self.layers * sum(inputs * outputs for _, inputs, outputs in self.named)

    @property
    def other_parameters(self) -> int:
        """Embeddings, head and norms."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, r: int, modules: str | list[str] = "all-linear") -> int:
        """Of a LoRA adapter of rank r on the named modules of every layer; "all-linear" is every one but the head."""
        adapted = [one for one in self.named if modules == "all-linear" or one[0] in modules]
        return self.layers * sum(r * (inputs + outputs) for _, inputs, outputs in adapted)


class Job(BaseModel):
    """What of a job decides its memory. `compute`: bytes of the compute type, 2 or 4."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    compute: int
    tuning: Literal["lora", "full"]
    quantization: Literal["nf4", "int8", "none"]
    r: int = 16
    modules: str | list[str] = "all-linear"
    dropout: float = 0.05
    dora: bool = False
    optimizer: str = "auto"

    @property
    def moments(self) -> int:
        """Bytes of AdamW's two moments for one parameter: 2 where optim.py takes 8-bit ones."""
        saves = self.kind == "cuda" and (self.quantization != "none" or self.tuning == "full")
        return 2 if self.optimizer.endswith("8bit") or (self.optimizer == "auto" and saves) else 8


def weight_bytes(shape: Shape, job: Job) -> int:
    """The base model as it is loaded; full tuning holds float32."""
    if job.tuning == "full":
        return 4 * shape.parameters
    each = job.compute if job.quantization == "none" else WEIGHT_BYTES[job.quantization]
    return round(each * shape.linear_parameters) + job.compute * shape.other_parameters


def copy_bytes(shape: Shape, job: Job) -> int:
    """The copy that `keep_dequantized` holds; 0 where nothing is in nf4."""
    return job.compute * shape.linear_parameters if job.quantization == "nf4" and job.tuning == "lora" else 0


def trained_bytes(shape: Shape, job: Job) -> int:
    """Gradients and moments, and an adapter's own parameters, all float32 but 8-bit moments.

    Full tuning also holds autocast's copies of the weights, and the head's gradient once more (loss.py).
    """
    if job.tuning == "lora":
        return shape.adapter_parameters(job.r, job.modules) * (4 + 4 + job.moments)
    casts = job.compute * shape.parameters if job.compute == 2 else 0
    return shape.parameters * (4 + job.moments) + casts + 8 * shape.vocabulary * shape.hidden


def block_bytes(shape: Shape, job: Job, longest: int) -> int:
    """What one token keeps within one block. `longest` tokens in an example: short ones on a CPU keep their scores."""
    c, h, inner = job.compute, shape.hidden, shape.intermediate
    a, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if job.tuning == "full":  # float32 norms and their results, cast for each layer that reads them
        norms, mlp = 2 * 8 * h + 5 * c * h, 4 * c * inner
    else:  # a float32 input and a result for each norm; gate, act(gate), up and their product
        norms, mlp = 2 * (4 + c) * h, 4 * c * inner
    attention = c * (3 * a + 2 * k)  # q, k, v as attention reads them, its result, and that result unpacked
    if job.kind == "cpu" and longest <= SHORT:
        attention += 4 * (a + 2 * k + shape.heads * longest)  # float32 q, k, v and the weights of each head
    unfused = job.tuning == "lora" and (job.quantization == "int8" or job.dora)
    inputs = sum(one for _, one, _ in shape.named[:7])
    mask = (4 if job.kind == "cpu" else 1) * (job.dropout > 0)
    adapter = 7 * c * job.r * (job.tuning == "lora") + (inputs * (c + mask) if unfused else 0)
    return norms + mlp + attention + adapter


def token_bytes(shape: Shape, job: Job, *, checkpointing: bool, longest: int) -> int:
    """What one token of a pass takes at the pass's peak: kept tensors, the gradients of one block, and dropout's masks."""
    block = block_bytes(shape, job, longest)
    stream = 4 if job.tuning == "full" else job.compute
    flowing = job.compute * (3 * shape.intermediate + 4 * shape.hidden)
    kept = stream * shape.hidden * shape.layers + block if checkpointing else block * shape.layers
    pool = job.compute * max(shape.hidden, shape.intermediate) * (job.tuning == "lora" and job.dropout > 0)
    return kept + flowing + pool


def head_bytes(shape: Shape, job: Job, *, tokens: int, trained: int) -> int:
    """Logits of a pass with so many tokens, so many of them trained."""
    hidden = 3 * job.compute * shape.hidden * trained
    if shape.own_head:
        return hidden + shape.vocabulary * (2 * job.compute * tokens + 12 * trained)
    rows = min(trained, max(1, CHUNK // (4 * shape.vocabulary)))
    return hidden + rows * shape.vocabulary * (4 + 2 * job.compute)


def working_bytes(shape: Shape, job: Job, *, copied: bool) -> int:
    """The largest nf4 weight dequantised on the spot, where no copy is kept."""
    if job.quantization != "nf4" or copied:
        return 0
    return 2 * job.compute * max(inputs * outputs for _, inputs, outputs in shape.named)


def shape_of(config: dict[str, Any], where: str = "config.json") -> Shape:
    """The sizes in a config. Raises `UsageError` for one that is no decoder of the usual build, or whose sizes cannot be."""
    try:
        _require_decoder(config, where)
        text = config.get("text_config") or config
        hidden, heads = text["hidden_size"], text["num_attention_heads"]
        positions = text.get("max_position_embeddings")
        return Shape(
            hidden=hidden,
            layers=text["num_hidden_layers"],
            heads=heads,
            kv_heads=_given(text.get("num_key_value_heads"), heads),
            head_dim=_given(text.get("head_dim"), hidden // heads),
            intermediate=_given(text.get("moe_intermediate_size"), text["intermediate_size"]),
            vocabulary=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            experts=_given(text.get("num_local_experts"), _given(text.get("num_experts"), 1)),
            positions=positions if isinstance(positions, int) and positions > 0 else None,
            own_head=any(text.get(name) not in (None, 0, 1, 1.0) for name in _OWN_HEAD),
        )
    except ValidationError as error:
        wrong = "; ".join(f"{one['loc'][0]} is {one['input']!r}" for one in error.errors())
        raise UsageError(f"{where}: sizes that no model has: {wrong}.") from None
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UsageError(f"{where} does not tell {error}; memory cannot be reckoned from it.") from None


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _require_decoder(config: dict[str, Any], where: str) -> None:
    named = next(iter(config.get("architectures") or []), None)
    if config.get("is_encoder_decoder") or (isinstance(named, str) and not named.endswith(_CAUSAL)):
        raise UsageError(
            f"{where}: {named or 'an encoder-decoder'} is no model that continues text, so it cannot be tuned to answer.",
            hint="Take the text-only instruct model of the family; its architecture ends in ForCausalLM.",
        )
