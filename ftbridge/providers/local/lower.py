"""How each field of a spec fares on this machine. Pure; the table in the docs is made from it."""

from __future__ import annotations

from typing import Any

from ftbridge.lowering import FieldReport, Lowering, Outcome, fields
from ftbridge.providers.local.request import DpoRequest, LocalRequest
from ftbridge.providers.local.vllm import refusal
from ftbridge.resolve import ResolvedSpec
from ftbridge.spec import JobSpec
from ftbridge.spec_sections import LocalSpec, Quantization

BASE_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
"""What the multiplier multiplies. LoRA: QLoRA's rate for 7B and 13B (Dettmers et al. 2023, arXiv:2305.14314, table 9).
Full: ten times less, the ratio measured in "LoRA Without Regret" (Schulman et al. 2025)."""
PREFERENCE_LEARNING_RATE = {"lora": 5e-6, "full": 5e-7}
"""The same for preference tuning. LoRA: zephyr's QLoRA recipe (alignment-handbook), TRL's table of rates. Full: as above."""
_PREFERENCE_BETA = {"sigmoid": 0.1, "ipo": 0.1, "length_normalised": 1.0}
"""What beta "auto" is. sigmoid: the default of TRL, OpenRLHF and tinker-cookbook, and the example of OpenAI's guide, which does
not publish its own. ipo: TRL's. length_normalised: ten times sigmoid's, since a mean over tokens is that much smaller."""


def lower(resolved: ResolvedSpec) -> Lowering:
    """The local request, and an entry for every field of the spec."""
    spec = resolved.spec
    request = _request(spec)
    told = _notes(spec, request)
    reports = []
    for field, asked in fields(spec):
        outcome, given, how = told.get(field) or _by_section(field, asked)
        reports.append(FieldReport(field=field, outcome=outcome, asked=_plain(asked), given=_plain(given), how=how))
    return Lowering(provider="local", request=request.model_dump(mode="json"), fields=reports).complete(spec)


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
        lr_schedule=local.lr_schedule,
        warmup_ratio=local.warmup_ratio,
        weight_decay=local.weight_decay,
        max_grad_norm=local.max_grad_norm,
        optimizer=local.optimizer,
        tuning=local.tuning,
        quantization=quantization(spec.local),
        lora_r=local.lora.r,
        lora_alpha=local.lora.alpha,
        lora_dropout=0.0 if spec.method == "dpo" else local.lora.dropout,
        target_modules=local.lora.target_modules,
        use_rslora=local.lora.use_rslora,
        use_dora=local.lora.use_dora,
        max_length=local.max_length,
        too_long=local.too_long,
        packing=local.packing,
        tokens_per_pass=local.tokens_per_pass,
        patience=local.early_stopping.patience if local.early_stopping else None,
        min_delta=local.early_stopping.min_delta if local.early_stopping else 0.0,
        gradient_checkpointing=local.gradient_checkpointing,
        precision=local.precision,
        device=local.device,
        keep_dequantized=local.keep_dequantized,
        evals_per_epoch=local.evals_per_epoch,
        keep_checkpoints=local.keep_checkpoints,
        checkpoint_minutes=local.checkpoint_minutes,
        trust_remote_code=local.trust_remote_code,
        engine=local.engine,
        thinking=local.thinking,
        method="dpo" if spec.method == "dpo" else "supervised",
        dpo=_preference(spec) if spec.method == "dpo" else None,
        continue_from=local.lora.continue_from if local.tuning == "lora" else None,
    )


def _preference(spec: JobSpec) -> DpoRequest:
    own, beta = spec.local.dpo, spec.hyperparameters.beta
    scale = _PREFERENCE_BETA[own.loss] if own.beta == "auto" else own.beta
    if own.loss == "sigmoid" and own.beta == "auto" and isinstance(beta, float | int):
        scale = float(beta)
    return DpoRequest(loss=own.loss, beta=scale, label_smoothing=own.label_smoothing, nll_weight=own.nll_weight)


_THINKING = {
    "auto": "as the training data have it",
    "on": "prompts ask for reasoning; reasoning in the data is trained",
    "off": "prompts hold the template's empty block of reasoning, where it has one; reasoning in the data is not trained",
}

_Note = tuple[Outcome, Any, str]


def _notes(spec: JobSpec, request: LocalRequest) -> dict[str, _Note]:
    """Fields whose story is more than "done as asked"."""
    base, multiplier = _base_rate(spec), _multiplier(spec)
    notes: dict[str, _Note] = {
        "hyperparameters.learning_rate_multiplier": (
            "translated",
            request.learning_rate,
            f"learning rate = multiplier x base = {multiplier:g} x {base:g} = {request.learning_rate:g}",
        ),
        "local.base_learning_rate": (
            "exact",
            base,
            f"base rate of {spec.local.tuning} tuning{' by preferences' if spec.method == 'dpo' else ''}",
        ),
        "local.quantization": ("exact", request.quantization, _quantization_reason(spec)),
        "data.format": (
            "exact",
            spec.data.format,
            "seen from each file's first character" * (spec.data.format == "auto"),
        ),
        "model.openai": ("unused", None, "the local provider trains model.local"),
        "suffix": ("exact", spec.suffix, "named in the model card"),
        "metadata": ("exact", spec.metadata, "kept in the run folder"),
        "budget.max_usd": ("exact", spec.budget.max_usd, "training here spends no money with a service"),
        "budget.max_hours": ("exact", spec.budget.max_hours, "training pauses at a checkpoint when the hours are used"),
        "fallback": ("unused", None, "the first provider is already local"),
        "local.thinking": ("exact", spec.local.thinking, _THINKING[spec.local.thinking]),
        "local.engine": ("exact", spec.local.engine, "answers the test items; training is the same"),
        "evaluation.margin": ("exact", spec.evaluation.margin, "kept for compare"),
    }
    effort = spec.hyperparameters.reasoning_effort
    if effort is not None:
        how = f"reasoning_effort {effort} is local.thinking {spec.local.thinking}; there are no degrees of it here"
        notes["hyperparameters.reasoning_effort"] = ("translated", spec.local.thinking, how)
    if spec.fallback == "openai":
        how = "another run of the same bytes at the service, if training here fails"
        notes["fallback"] = ("exact", spec.fallback, how)
    if spec.method == "reinforcement":
        notes["method"] = ("refused", None, "the local provider trains supervised and dpo, not reinforcement")
    notes |= _preference_notes(spec, request)
    if request.continue_from is not None:
        for name in ("r", "alpha", "target_modules", "use_rslora", "use_dora"):
            notes[f"local.lora.{name}"] = ("unused", None, "the adapter that training continues from has its own")
    if spec.model.local is None:
        notes["model.local"] = ("refused", None, "name a base model, such as smollm2-135m-instruct")
    if request.engine == "vllm" and (why := refusal(request)) is not None:
        notes["local.engine"] = ("refused", None, why)
    if spec.local.tuning == "full":
        for field, _ in fields(spec.local.lora, "local.lora."):
            notes[field] = ("unused", None, "full tuning has no adapter")
    if request.quantization != "nf4":
        notes["local.keep_dequantized"] = ("unused", None, "only nf4 weights are dequantised")
    return notes


def _preference_notes(spec: JobSpec, request: LocalRequest) -> dict[str, _Note]:
    """What is different about fields in preference tuning, and that its own section is unused elsewhere."""
    if request.dpo is None:
        return {field: ("unused", None, "for method dpo") for field, _ in fields(spec.local.dpo, "local.dpo.")}
    own, given, beta = spec.local.dpo, request.dpo, spec.hyperparameters.beta
    notes: dict[str, _Note] = {
        "hyperparameters.batch_size": ("exact", request.batch_size, "pairs in a step"),
        "local.lora.dropout": (
            "approximated"
            if "dropout" in spec.local.lora.model_fields_set and spec.local.lora.dropout
            else "translated",
            0.0,
            "off in preference tuning: the tuned and the reference model are compared, and noise is not a difference",
        ),
        "local.dpo.beta": ("exact", given.beta, "the scale of this loss" if own.beta == "auto" else ""),
    }
    if beta is None or beta == "auto":
        how = f"auto: {given.beta:g}, what most trainers take; OpenAI does not publish its own"
        notes["hyperparameters.beta"] = ("exact", given.beta, how)
    elif own.loss != "sigmoid" or own.beta != "auto":
        how = "OpenAI's beta belongs to the sigmoid loss; give either it or local.dpo.beta, on the scale of the loss"
        notes["hyperparameters.beta"] = ("refused", None, how)
    if spec.local.too_long == "truncate":
        how = "a pair is compared whole: set drop or refuse"
        notes["local.too_long"] = ("refused", None, how)
    if request.continue_from is not None:
        notes["local.lora.continue_from"] = ("exact", request.continue_from, "it is the reference model too")
    return notes


def _by_section(field: str, asked: Any) -> _Note:
    if field.startswith("openai."):
        return "unused", None, "concerns the managed side"
    if asked is None:
        return "unused", None, "not given"
    if asked == "auto":
        return "exact", "auto", "settled by the device when training starts" if field.startswith("local.") else ""
    return "exact", asked, ""


def _multiplier(spec: JobSpec) -> float:
    value = spec.hyperparameters.learning_rate_multiplier
    return 1.0 if value == "auto" else float(value)


def _base_rate(spec: JobSpec) -> float:
    rate = spec.local.base_learning_rate
    return usual_learning_rate(spec) if rate == "auto" else rate


def usual_learning_rate(spec: JobSpec) -> float:
    """What `local.base_learning_rate: auto` comes to for the spec's method and tuning."""
    return (PREFERENCE_LEARNING_RATE if spec.method == "dpo" else BASE_LEARNING_RATE)[spec.local.tuning]


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


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
