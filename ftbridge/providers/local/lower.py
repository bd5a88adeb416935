"""How each field of a spec fares on this machine. Pure; the table in the docs is made from it."""

from __future__ import annotations

from typing import Any, Literal

from ftbridge.providers.local.defaults import RATES, REFERENCE_WIDTH
from ftbridge.providers.local.method_notes import (
    completions_of_a_prompt,
    preference_notes,
    reinforcement_notes,
)
from ftbridge.providers.local.request import DpoRequest, LocalRequest, ReinforcementRequest
from ftbridge.providers.local.vllm import refusal
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering, Note, field_reports, fields
from ftbridge.spec.resolve import ResolvedSpec
from ftbridge.spec.sections import LocalSpec, Quantization

_PREFERENCE_BETA = {"sigmoid": 0.1, "ipo": 0.1, "length_normalised": 1.0}
"""What beta "auto" is. sigmoid: the default of TRL, OpenRLHF and tinker-cookbook, and the example of OpenAI's guide, which does
not publish its own. ipo: TRL's. length_normalised: ten times sigmoid's, since a mean over tokens is that much smaller."""


_BY_WIDTH = f" x ({REFERENCE_WIDTH} / width)^0.781"
_EVALUATED = {
    "auto": "completions are computed in local.precision",
    "fp32": "the same weights, multiplied in fp32: a completion does not depend on what is computed beside it",
    "bf16": "completions are computed in bf16",
}
_WAIVABLE = frozenset({"hyperparameters.beta", "local.overlength"})
"""Fields that a job goes on without where they are refused: local.dpo.beta holds, and nothing is cut. Others contradict what
the rest of the spec says, and their reasons name the settings that do not.
"""


def lower(resolved: ResolvedSpec) -> Lowering:
    """The local request, and an entry for every field of the spec."""
    spec = resolved.spec
    request = _request(spec)
    notes = _notes(spec, request)
    reports = field_reports(
        spec, lambda field, value: notes.get(field) or _by_section(field, value), _WAIVABLE.__contains__
    )
    return Lowering(provider="local", request=request, fields=reports).complete(spec)


def _request(spec: JobSpec) -> LocalRequest:
    local, hyper = spec.local, spec.hyperparameters
    assert hyper.n_epochs != "auto"
    assert hyper.batch_size != "auto"
    return LocalRequest(
        name=spec.suffix or spec.name,
        model=spec.model.local or "",
        seed=spec.seed,
        n_epochs=hyper.n_epochs,
        batch_size=hyper.batch_size,
        learning_rate=_multiplier(spec) * _base_rate(spec),
        rate_by_width=_is_by_width(spec),
        lr_schedule=_schedule(spec),
        warmup_ratio=local.warmup_ratio,
        weight_decay=local.weight_decay,
        max_grad_norm=local.max_grad_norm,
        optimizer=local.optimizer,
        tuning=local.tuning,
        quantization=quantization(spec.local),
        lora_r=local.lora.r,
        lora_alpha=local.lora.alpha,
        lora_dropout=local.lora.dropout if spec.method == "supervised" else 0.0,
        target_modules=local.lora.target_modules,
        use_rslora=local.lora.use_rslora,
        use_dora=local.lora.use_dora,
        max_length=local.max_length,
        overlength=local.overlength,
        packing=local.packing,
        max_tokens_per_microbatch=local.max_tokens_per_microbatch,
        patience=local.early_stopping.patience if local.early_stopping else None,
        min_delta=local.early_stopping.min_delta if local.early_stopping else 0.0,
        gradient_checkpointing=local.gradient_checkpointing,
        precision=local.precision,
        device=local.device,
        cache_dequantized_weights=local.cache_dequantized_weights,
        evals_per_epoch=local.evals_per_epoch,
        keep_checkpoints=local.keep_checkpoints,
        checkpoint_minutes=local.checkpoint_minutes,
        trust_remote_code=local.trust_remote_code,
        workers=local.workers,
        sharding=local.sharding,
        engine=local.engine,
        thinking=local.thinking,
        method=spec.method,
        dpo=_preference(spec) if spec.method == "dpo" else None,
        reinforcement=_reinforcement(spec) if spec.method == "reinforcement" else None,
        continue_from=local.lora.continue_from if local.tuning == "lora" else None,
        evaluation_precision=spec.evaluation.precision,
        replay_share=spec.data.replay.share if spec.data.replay is not None else 0.0,
    )


def _preference(spec: JobSpec) -> DpoRequest:
    settings, beta = spec.local.dpo, spec.hyperparameters.beta
    scale = _PREFERENCE_BETA[settings.loss] if settings.beta == "auto" else settings.beta
    if settings.loss == "sigmoid" and settings.beta == "auto" and isinstance(beta, float | int):
        scale = float(beta)
    return DpoRequest(
        loss=settings.loss, beta=scale, label_smoothing=settings.label_smoothing, nll_weight=settings.nll_weight
    )


def _schedule(spec: JobSpec) -> Literal["cosine", "linear", "constant"]:
    """As given; otherwise constant in reinforcement, where there is no end that a schedule could know of."""
    practised = spec.method == "reinforcement" and "lr_schedule" not in spec.local.model_fields_set
    return "constant" if practised else spec.local.lr_schedule


def _reinforcement(spec: JobSpec) -> ReinforcementRequest | None:
    """How completions are drawn and rewarded; None where it is not clear by which grader."""
    settings, hyper, grader = spec.local.reinforcement, spec.hyperparameters, spec.reward_grader
    if grader is None:
        return None
    return ReinforcementRequest(
        grader=grader,
        group_size=max(2, completions_of_a_prompt(spec)),
        eval_interval=hyper.eval_interval or "auto",
        eval_samples=hyper.eval_samples if isinstance(hyper.eval_samples, int) else 1,
        max_completion_tokens=settings.max_completion_tokens or spec.evaluation.max_completion_tokens,
        kl=settings.kl,
        mask_truncated=settings.mask_truncated,
        max_usd=spec.budget.max_usd,
    )


_THINKING = {
    "auto": "as in the training data",
    "on": "prompts ask for reasoning; reasoning in the data is trained",
    "off": "prompts hold the template's empty block of reasoning, where it has one; reasoning in the data is not trained",
}

_BY_METHOD = {"supervised": "", "dpo": " by preferences", "reinforcement": " by reinforcement"}


def _notes(spec: JobSpec, request: LocalRequest) -> dict[str, Note]:
    """Fields whose story is more than "done as asked"."""
    base, multiplier, by_width = _base_rate(spec), _multiplier(spec), _is_by_width(spec)
    result = _BY_WIDTH if by_width else f" = {request.learning_rate:g}"
    notes: dict[str, Note] = {
        "hyperparameters.learning_rate_multiplier": (
            "translated",
            request.learning_rate,
            f"learning rate = multiplier x base = {multiplier:g} x {base:g}{result}",
        ),
        "local.base_learning_rate": (
            "translated" if by_width else "exact",
            f"{base:g}{_BY_WIDTH}" if by_width else base,
            f"base rate of {spec.local.tuning} tuning{_BY_METHOD[spec.method]}"
            + (", resolved when the model is read (tinker-cookbook's fit)" if by_width else ""),
        ),
        "local.quantization": ("exact", request.quantization, _quantization_reason(spec)),
        "data.format": (
            "exact",
            spec.data.format,
            "detected from each file's first character" * (spec.data.format == "auto"),
        ),
        "model.openai": ("unused", None, "the local provider trains model.local"),
        "suffix": ("exact", spec.suffix, "named in the model card"),
        "metadata": ("exact", spec.metadata, "kept in the run folder"),
        "budget.max_usd": ("exact", spec.budget.max_usd, "training here spends no money with a service"),
        "budget.max_hours": (
            "exact",
            spec.budget.max_hours,
            "training pauses at a checkpoint when the hours are used up",
        ),
        "fallback": ("unused", None, "the first provider is already local"),
        "local.thinking": ("exact", spec.local.thinking, _THINKING[spec.local.thinking]),
        "local.engine": ("exact", spec.local.engine, "completes the test items; training is the same"),
        "evaluation.margin": ("exact", spec.evaluation.margin, "kept for compare"),
        "evaluation.precision": ("exact", spec.evaluation.precision, _EVALUATED[spec.evaluation.precision]),
    }
    notes |= _notes_of_choices(spec)
    notes |= preference_notes(spec, request) | reinforcement_notes(spec, request)
    if request.continue_from is not None:
        for name in ("r", "alpha", "target_modules", "use_rslora", "use_dora"):
            notes[f"local.lora.{name}"] = ("unused", None, "given by the adapter that training continues from")
    if spec.model.local is None:
        notes["model.local"] = ("refused", None, "name a base model, such as smollm2-135m-instruct")
    notes |= _sharding_notes(spec, request)
    if request.engine == "vllm" and (why := refusal(request)) is not None:
        notes["local.engine"] = ("refused", None, why)
    if spec.local.tuning == "full":
        for field, _ in fields(spec.local.lora, "local.lora."):
            notes[field] = ("unused", None, "full tuning has no adapter")
    if request.quantization != "nf4":
        notes["local.cache_dequantized_weights"] = ("unused", None, "only nf4 weights are dequantised")
    return notes


def _notes_of_choices(spec: JobSpec) -> dict[str, Note]:
    """Fields that have a story only where the spec sets them."""
    notes: dict[str, Note] = {}
    if spec.data.replay is not None:
        how = "of each step's examples: its loss is that of the task and that of replay, weighted by their numbers"
        notes["data.replay.share"] = ("exact", spec.data.replay.share, how)
    effort = spec.hyperparameters.reasoning_effort
    if effort is not None:
        how = f"reasoning_effort {effort} is local.thinking {spec.local.thinking}; there are no levels of it here"
        notes["hyperparameters.reasoning_effort"] = ("translated", spec.local.thinking, how)
    if spec.fallback not in (None, "local"):
        how = "a new run there with the same bytes, if training here fails"
        notes["fallback"] = ("exact", spec.fallback, how)
    return notes


def fsdp2_refusals(local: LocalSpec, method: str) -> dict[str, str]:
    """Fields that cannot be combined with `sharding: fsdp2`, and why. What breaks there was reported to other trainers.

    Sources: 8-bit and paged optimizers bitsandbytes#1633, #1403; an 8-bit base bitsandbytes#1709; DoRA is slow and untested in
    peft's guide to FSDP, and its magnitudes are read outside the layer that gathers them.
    """
    refusals = {}
    if "8bit" in local.optimizer:
        refusals["local.optimizer"] = f"{local.optimizer} keeps its moments in blocks that cannot be sharded: set adamw"
    if local.quantization == "int8":
        refusals["local.quantization"] = (
            "bitsandbytes' 8-bit weights cannot be sharded: set nf4 or none, or sharding: ddp"
        )
    if local.tuning == "lora" and local.lora.use_dora:
        refusals["local.lora.use_dora"] = "DoRA needs whole weights at every step: set it to false, or sharding: ddp"
    if local.precision == "fp16":
        refusals["local.precision"] = "fp16 scales gradients by what one worker sees of them: set bf16 or fp32"
    if method == "reinforcement":
        refusals["local.sharding"] = "completions are drawn with the whole model on each GPU: set ddp"
    return refusals


def _sharding_notes(spec: JobSpec, request: LocalRequest) -> dict[str, Note]:
    """How many processes train, and what each of them holds."""
    local = spec.local
    how = (
        "resolved to the number of GPUs that are visible when training starts; 1 on a CPU"
        if request.workers == "auto"
        else ""
    )
    notes: dict[str, Note] = {"local.workers": ("exact", request.workers, how)}
    if local.device == "mps" and request.workers not in ("auto", 1):
        notes["local.workers"] = ("refused", None, "Apple's GPU is one device: set 1")
    if request.workers == 1:
        notes["local.sharding"] = ("unused", None, "one worker holds the whole model")
    elif request.sharding == "fsdp2":
        refusals = fsdp2_refusals(local, spec.method)
        notes |= {field: ("refused", None, why) for field, why in refusals.items()}
    return notes


def _by_section(field: str, spec_value: Any) -> Note:
    if field.startswith("openai."):
        return "unused", None, "belongs to hosted providers"
    if field.startswith(("slurm.", "ray.")):
        return "unused", None, f"for --provider {field.partition('.')[0]}"
    if spec_value is None:
        return "unused", None, "not given"
    if spec_value == "auto":
        return "exact", "auto", "resolved by the device when training starts" if field.startswith("local.") else ""
    return "exact", spec_value, ""


def _multiplier(spec: JobSpec) -> float:
    value = spec.hyperparameters.learning_rate_multiplier
    return 1.0 if value == "auto" else float(value)


def _base_rate(spec: JobSpec) -> float:
    rate = spec.local.base_learning_rate
    return usual_learning_rate(spec) if rate == "auto" else rate


def usual_learning_rate(spec: JobSpec) -> float:
    """What `local.base_learning_rate: auto` comes to for the spec's method and tuning; supervised: at `REFERENCE_WIDTH`."""
    return RATES[spec.method][spec.local.tuning]


def _is_by_width(spec: JobSpec) -> bool:
    return spec.method == "supervised" and spec.local.base_learning_rate == "auto"


def quantization(local: LocalSpec) -> Quantization:
    """What `quantization: auto` comes to: nf4 for lora, none for full, on every machine.

    nf4 is the least that a base model takes, so where it does not fit nothing does: the rule never looks at memory, and one
    spec trains the same weights everywhere. `ftbridge plan` says where it does not fit, and where 16 bits would too.
    """
    if local.quantization != "auto":
        return local.quantization
    return "nf4" if local.tuning == "lora" else "none"


def _quantization_reason(spec: JobSpec) -> str:
    if spec.local.quantization != "auto":
        return "double quantisation, bf16 compute" if spec.local.quantization == "nf4" else ""
    return (
        "auto: nf4 for lora (QLoRA), on every machine" if spec.local.tuning == "lora" else "auto: none for full tuning"
    )
