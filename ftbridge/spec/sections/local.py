"""The section `local`: how a GPU of your own trains, with the adapter, the losses of each method, memory and precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ftbridge.spec.sections.base import Auto, SpecModel, former_names_in

Quantization = Literal["nf4", "int8", "none"]


class LoraSpec(SpecModel):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), in peft's names."""

    r: int = Field(default=16, ge=1, le=1024, description="Rank.")
    alpha: float = Field(default=32, gt=0, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: str | list[str] = Field(
        default="all-linear",
        description='Module names to adapt, or "all-linear" (every linear layer but the output head).',
    )
    use_rslora: bool = Field(
        default=False, description="Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732)."
    )
    use_dora: bool = Field(
        default=False, description="Split magnitude from direction (Liu et al. 2024, arXiv:2402.09353)."
    )
    continue_from: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of an adapter to train further, such as RUN/adapter: it gives r, alpha and target_modules. In "
        "preference tuning it is the reference model too.",
    )


class DpoSpec(SpecModel):
    """Preference tuning on this machine beyond what OpenAI's method has: other losses, label smoothing, an NLL term."""

    loss: Literal["sigmoid", "ipo", "length_normalised"] = Field(
        default="sigmoid",
        description="sigmoid: DPO (Rafailov et al. 2023, arXiv:2305.18290). ipo: a squared distance, over means of tokens "
        "(Azar et al. 2023, arXiv:2310.12036). length_normalised: sigmoid of means of tokens, against length bias.",
    )
    beta: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto",
        description="Weight of the reference model on the scale of this loss. auto: hyperparameters.beta for sigmoid "
        "(itself 0.1 when auto), 0.1 for ipo, 1.0 for length_normalised.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Assumed share of pairs that are labelled the wrong way round (conservative DPO). Not for ipo.",
    )
    nll_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the preferred completion's own loss per token, which keeps it from becoming less likely.",
    )

    @model_validator(mode="after")
    def _smoothing_has_a_meaning(self) -> DpoSpec:
        if self.label_smoothing and self.loss == "ipo":
            raise ValueError("label_smoothing has no meaning for loss ipo, which is bounded already; set it to 0")
        return self


class ReinforcementSpec(SpecModel):
    """Reinforcement on this machine beyond what OpenAI's method has: the length of completions, and how they count."""

    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Longest completion while training, in tokens; evaluation.max_completion_tokens by default.",
    )
    kl: float = Field(
        default=0.0,
        ge=0,
        le=0.1,
        description="Weight, per token, of the KL divergence (Schulman's k3) from the model that training starts from.",
    )
    mask_truncated: bool = Field(
        default=False,
        description="Leave completions that reach the token limit out of the update; they are still graded.",
    )


class EarlyStopping(SpecModel):
    """Stop when validation loss no longer falls."""

    patience: int = Field(default=2, ge=1, description="Validations without improvement before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest fall in validation loss, in nats, that counts.")


class LocalSpec(SpecModel):
    """How to train on this machine."""

    former_names: ClassVar[Mapping[str, str]] = former_names_in("local")

    tuning: Literal["lora", "full"] = Field(default="lora", description="Train an adapter, or every weight.")
    quantization: Quantization | Auto = Field(
        default="auto",
        description="Base weights: nf4 (double quantisation, bf16 compute), int8, none; auto is nf4 for lora, none for full.",
    )
    lora: LoraSpec = Field(default_factory=LoraSpec, description="The adapter.")
    dpo: DpoSpec = Field(default_factory=DpoSpec, description="Preference tuning here (method dpo).")
    reinforcement: ReinforcementSpec = Field(
        default_factory=ReinforcementSpec, description="Reinforcement here (method reinforcement)."
    )
    thinking: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether prompts ask for reasoning, and reasoning in the data is trained on; auto is on when trained "
        "completions have reasoning or reasoning_effort is set, and off otherwise.",
    )
    max_length: int = Field(default=2048, ge=8, description="Longest example, in tokens of the model's tokenizer.")
    overlength: Literal["refuse", "truncate", "drop"] = Field(
        default="refuse",
        description="What to do with examples longer than max_length; refuse lists their line numbers.",
    )
    packing: bool = Field(
        default=True, description="Put examples end to end instead of padding them; they do not attend to each other."
    )
    max_tokens_per_microbatch: Auto | Annotated[int, Field(ge=8)] = Field(
        default="auto",
        description="Token budget of a micro-batch (one forward and backward pass); a batch is split into as many as it "
        "needs. It changes speed and memory, not the result.",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Off by default; needs validation data.")
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="auto",
        description="auto: paged_adamw_8bit on CUDA when quantized, adamw_8bit for full tuning on CUDA, else adamw.",
    )
    base_learning_rate: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto",
        description="What learning_rate_multiplier multiplies; auto follows the model's width in supervised tuning "
        "(5e-4 x (2000 / width)^0.781 for lora, a tenth for full); 5e-6 and 5e-7 for dpo; "
        "1e-5 and 1e-6 for reinforcement.",
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Shape after warm-up; constant by default in reinforcement."
    )
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="Share of all steps spent on linear warm-up.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (AdamW).")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this global L2 norm.")
    gradient_checkpointing: Auto | bool = Field(
        default="auto",
        description="Recompute activations in the backward pass; auto turns it on when memory is short.",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="Compute type; auto is the best that the device supports."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="auto: cuda, then mps, then cpu.")
    cache_dequantized_weights: Auto | bool = Field(
        default="auto",
        description="Hold a 16-bit copy of the nf4 weights: same numbers, faster steps; auto when memory is ample.",
    )
    checkpoint_minutes: float = Field(default=10, gt=0, description="Minutes between checkpoints, at most.")
    evals_per_epoch: int = Field(
        default=2, ge=1, le=100, description="Validations per epoch; each also saves a checkpoint."
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="Number of newest checkpoints to keep; the best one is always kept."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that comes with a hub model. Turn on only if you trust it."
    )
    workers: Auto | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto",
        description="Processes that train, and that complete in an evaluation, one for each GPU; auto is every GPU that is "
        "visible, and 1 on a CPU. The batch is the same with any number, and so is the result.",
    )
    sharding: Literal["auto", "ddp", "fsdp2"] = Field(
        default="auto",
        description="How several workers hold the model: ddp, a complete copy each; fsdp2, a part each. auto is ddp if the "
        "model fits one GPU.",
    )
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description=(
            "Inference engine for test items: transformers in a child process, or vLLM on a CUDA GPU (installed "
            "separately)."
        ),
    )
