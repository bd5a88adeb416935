"""What the local provider is asked to do: the job in its own terms, written to the run folder for the worker to read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftbridge.spec.graders import Grader
from ftbridge.spec.lowering import ProviderRequest
from ftbridge.spec.sections import Method, former_names_in, with_new_names


class DpoRequest(BaseModel):
    """The loss of preference tuning: `beta` on the scale of `loss`; shares and weights as in the spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["sigmoid", "ipo", "length_normalised"] = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_weight: float = 0.0


class ReinforcementRequest(BaseModel):
    """How completions are drawn and rewarded. `group_size`: completions of one prompt in a step; lengths in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grader: Grader
    group_size: int = 8
    eval_interval: Literal["auto"] | int = "auto"
    eval_samples: int = 1
    max_completion_tokens: int = 256
    kl: float = 0.0
    mask_truncated: bool = False
    max_usd: float | None = None


class LocalRequest(ProviderRequest):
    """One training job of a worker, every choice made except those that need the device. Losses in nats, lengths in tokens.

    `launch` is for the cluster that starts the worker, which alone reads it: its own section of the spec. Empty on this
    machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, document: Any) -> Any:
        """A run folder of version 0.1 has the former names of the spec's fields."""
        return with_new_names(document, former_names_in("local"))

    name: str
    model: str
    seed: int
    n_epochs: int
    batch_size: int
    learning_rate: float
    rate_by_width: bool = False
    """Whether `learning_rate` is that of a model of width 2,000 still, to be settled when the model is read."""
    lr_schedule: Literal["cosine", "linear", "constant"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"]
    tuning: Literal["lora", "full"]
    quantization: Literal["nf4", "int8", "none"]
    lora_r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: str | list[str]
    use_rslora: bool
    use_dora: bool
    max_length: int
    overlength: Literal["refuse", "truncate", "drop"]
    packing: bool
    max_tokens_per_microbatch: Literal["auto"] | int
    patience: int | None
    min_delta: float
    gradient_checkpointing: Literal["auto"] | bool
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    cache_dequantized_weights: Literal["auto"] | bool
    evals_per_epoch: int
    keep_checkpoints: int
    checkpoint_minutes: float
    trust_remote_code: bool
    workers: Literal["auto"] | int = 1
    sharding: Literal["auto", "ddp", "fsdp2"] = "auto"
    engine: Literal["transformers", "vllm"] = "transformers"
    thinking: Literal["auto", "on", "off"] = "auto"
    method: Method = "supervised"
    dpo: DpoRequest | None = None
    reinforcement: ReinforcementRequest | None = None
    continue_from: str | None = None
    evaluation_precision: Literal["auto", "fp32", "bf16"] = "auto"
    replay_share: float = 0.0
    launch: dict[str, Any] = Field(default_factory=dict)


class SampleRequest(BaseModel):
    """What a sampling process loads: the base of a request, and the tuned weights on it, if any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: LocalRequest
    tuned: str | None
