"""How each field of a spec fares on a service. Pure; the table in the docs is made from it."""

from __future__ import annotations

import re
from typing import Any

from ftbridge.providers.openai.jobs import reward
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.targets import TARGETS, Target
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering, Note, field_reports
from ftbridge.spec.resolve import ResolvedSpec
from ftbridge.spec.sections import DpoSpec

TOKEN_KEY = "ftbridge_run"
"""The key in a job's `metadata` under which its run's token stands."""

_MOST_METADATA = 16
_EVERY_EPOCH = "the service trains every epoch; it keeps checkpoints to choose from"
_OF_METHOD = ("beta", "compute_multiplier", "eval_interval", "eval_samples", "reasoning_effort")
_NEBIUS = {
    "local.lora.r": "lora_r",
    "local.lora.alpha": "lora_alpha",
    "local.lora.dropout": "lora_dropout",
    "local.packing": "packing",
    "local.warmup_ratio": "warmup_ratio",
    "local.weight_decay": "weight_decay",
    "local.max_grad_norm": "max_grad_norm",
    "local.max_length": "context_length",
}
"""Fields of local training that Nebius takes too, under its own names; sent when the spec gives them."""

_NEEDED = frozenset({"method", "model.openai", "openai.grader", "data.test"})
"""Fields that no job can be without where they are refused."""


def lower(resolved: ResolvedSpec) -> Lowering:
    """The service's request, and an entry for every field of the spec."""
    spec = resolved.spec
    target = TARGETS[spec.openai.target]
    why = {entry.field: entry.reason for entry in resolved.settled}
    notes = (
        _method_notes(spec, target)
        | _replay_notes(spec, target)
        | _service_notes(spec, target)
        | _local_notes(spec, target)
        | _run_notes(spec)
    )
    reports = field_reports(
        spec,
        lambda field, value: notes.get(field) or _plainly(field, value, why.get(field, "")),
        lambda field: field not in _NEEDED,
    )
    refused = {report.field for report in reports if report.outcome == "refused"}
    request = _request(spec, target, refused, resolved.planned("n_epochs"))
    return Lowering(provider="openai", request=request, fields=reports).complete(spec)


def suffix_of(suffix: str, target: Target) -> str:
    """A suffix that every host takes: a-z, 0-9 and hyphens, cut to the target's length. May be empty."""
    return re.sub(r"[^a-z0-9]+", "-", suffix.lower()).strip("-")[: target.suffix_length].strip("-")


def _request(spec: JobSpec, target: Target, refused: set[str], planned_epochs: int) -> OpenAIRequest:
    """The request without what was refused: a run that goes on by name goes on without it."""
    hyper = spec.hyperparameters
    body: dict[str, Any] = {"model": spec.model.openai or "", "seed": spec.seed}
    if spec.suffix and suffix_of(spec.suffix, target):
        body["suffix"] = suffix_of(spec.suffix, target)
    if spec.openai.integrations:
        body["integrations"] = [
            _wandb(integration.model_dump(exclude_none=True)) for integration in spec.openai.integrations
        ]
    body["metadata"] = {} if "metadata" in refused else dict(spec.metadata)
    figures: dict[str, Any] = {
        "n_epochs": hyper.n_epochs,
        "batch_size": hyper.batch_size,
        "learning_rate_multiplier": hyper.learning_rate_multiplier,
    }
    figures |= {name: getattr(hyper, name) for name in _OF_METHOD if getattr(hyper, name) is not None}
    if target.hyperparameters == "top":
        body["hyperparameters"] = _nebius(spec, figures, refused)
    else:
        method: dict[str, Any] = {"hyperparameters": figures}
        if spec.method == "reinforcement":
            method["grader"] = reward.reward(spec, target)
            if spec.openai.response_format is not None:
                method["response_format"] = spec.openai.response_format
        body["method"] = {"type": spec.method, spec.method: method}
    typed = spec.openai.training_type if target.name == "azure" else None
    return OpenAIRequest(
        target=target.name,
        base_url=spec.openai.base_url,
        organization=spec.openai.organization,
        project=spec.openai.project,
        api_version=spec.openai.api_version,
        deployment=None if target.serves_tuned else spec.openai.deployment,
        batch=spec.openai.batch and target.batch,
        max_usd=spec.budget.max_usd,
        min_life_days=spec.plan.min_life_days,
        n_epochs=planned_epochs,
        body=body,
        extra={"trainingType": typed} if typed else {},
    )


def _method_notes(spec: JobSpec, target: Target) -> dict[str, Note]:
    """Method, model, hyperparameters and grader."""
    hyper = spec.hyperparameters
    top = target.hyperparameters == "top"
    path = "hyperparameters" if top else f"method.{spec.method}.hyperparameters"
    notes: dict[str, Note] = {}
    if spec.method not in target.methods:
        notes["method"] = ("refused", None, f"{target.title} trains {', '.join(target.methods)} only")
    if spec.model.openai is None:
        notes["model.openai"] = ("refused", None, "name the service's base model, such as gpt-4.1-mini-2025-04-14")
    if hyper.learning_rate_multiplier == "auto":
        how = "left to the service, which reports its choice"
        notes["hyperparameters.learning_rate_multiplier"] = ("exact", "auto", how)
    elif top:
        notes["hyperparameters.learning_rate_multiplier"] = _absolute_rate(spec, target)
    else:
        how = f"{path}: a factor on the service's own base rate, which is not published; 1 here is not 1 on a GPU"
        notes["hyperparameters.learning_rate_multiplier"] = ("exact", hyper.learning_rate_multiplier, how)
    if spec.method == "reinforcement":
        notes["openai.grader"] = reward.note(spec, target)
    elif spec.openai.grader is not None:
        notes["openai.grader"] = ("unused", None, "graders reward samples in reinforcement only")
    if spec.method != "reinforcement" and spec.openai.response_format is not None:
        notes["openai.response_format"] = ("unused", None, "belongs to reinforcement")
    return notes


def _replay_notes(spec: JobSpec, target: Target) -> dict[str, Note]:
    """Replay examples are lines like any other to a service."""
    replay = spec.data.replay
    if replay is None:
        return {}
    how = (
        "lines of the training file, completed by the base model before the upload, for its price; the service weighs tokens, "
        "not examples, and counts them in its figures"
    )
    if spec.method != "supervised":
        how = (
            f"{target.title} accepts no chats in a file for {spec.method}: leave data.replay out, or train on this "
            "machine"
        )
    return {"data.replay.share": ("approximated" if spec.method == "supervised" else "refused", replay.share, how)}


def _absolute_rate(spec: JobSpec, target: Target) -> Note:
    rate, multiplier = spec.local.base_learning_rate, spec.hyperparameters.learning_rate_multiplier
    assert multiplier != "auto"
    if rate == "auto":
        how = f"{target.title} takes an absolute rate: set local.base_learning_rate, or leave the multiplier at auto"
        return "refused", None, how
    value = multiplier * rate
    return "translated", value, f"learning_rate = multiplier x base = {multiplier:g} x {rate:g} = {value:g}"


def _service_notes(spec: JobSpec, target: Target) -> dict[str, Note]:
    """The openai section, and what a target cannot do."""
    settings = spec.openai
    notes: dict[str, Note] = {
        "metadata": ("exact", spec.metadata, f"sent with one more pair, {TOKEN_KEY}, by which the job is found again"),
        "seed": ("exact", spec.seed, "sent to the service, which draws data order and weights in its own way"),
    }
    if len(spec.metadata) >= _MOST_METADATA or TOKEN_KEY in spec.metadata:
        how = f"a job has {_MOST_METADATA} pairs at most, and one, {TOKEN_KEY}, is needed to find it again"
        notes["metadata"] = ("refused", None, how)
    if spec.suffix is not None and (suffix := suffix_of(spec.suffix, target)) != spec.suffix:
        how = f"a-z, 0-9 and hyphens, at most {target.suffix_length}, which every host takes"
        notes["suffix"] = ("translated", suffix, how) if suffix else ("refused", None, f"nothing is left of it: {how}")
    if target.name != "azure":
        for field in ("training_type", "api_version"):
            if getattr(settings, field) is not None:
                notes[f"openai.{field}"] = ("unused", None, "concerns azure")
    if settings.deployment is not None:
        how = "requests go to this name, once the tuned model is deployed under it"
        notes["openai.deployment"] = ("exact", settings.deployment, how)
        if target.serves_tuned:
            notes["openai.deployment"] = ("unused", None, "a tuned model is called by its own name here")
    if settings.batch and not target.batch:
        notes["openai.batch"] = ("refused", None, f"{target.title} has no Batch API")
    if spec.data.test is not None and not target.serves_tuned and settings.deployment is None:
        how = (
            "a tuned model has to be deployed here before it can be called: set openai.deployment, or leave out "
            "data.test"
        )
        notes["data.test"] = ("refused", None, how)
    if spec.budget.max_hours is not None and not target.pause:
        notes["budget.max_hours"] = ("refused", None, f"{target.title} cannot pause a job")
    if not target.checkpoints:
        notes["openai.target"] = ("exact", settings.target, f"{target.title} keeps no checkpoints")
    if not target.keeps_metadata:
        how = (
            f"{target.title} may drop a job's metadata: a job whose creation got no response is found by its file and "
            "settings; if these are not shown, or jobs cannot be listed, a lost response may lead to a second job, "
            "so the run asks for --yes before the upload"
        )
        notes["openai.target"] = ("exact", settings.target, how)
    return notes


def _local_notes(spec: JobSpec, target: Target) -> dict[str, Note]:
    """What the settings of local training have as their like on a service."""
    local: dict[str, Note] = {
        "local.packing": ("unused", None, "the service arranges batches in its own way and does not report how"),
        "local.max_length": (
            "unused",
            None,
            "the service cuts examples at the model's limit; the linter warns of them",
        ),
        "local.evals_per_epoch": (
            "unused",
            None,
            "the service decides when to validate; it saves one checkpoint for each epoch",
        ),
        "local.early_stopping.patience": ("unused", None, _EVERY_EPOCH),
        "local.early_stopping.min_delta": ("unused", None, _EVERY_EPOCH),
        "local.lora.r": ("unused", None, "the service chooses its adapter and does not report it"),
        "local.lora.alpha": ("unused", None, "the service chooses its adapter and does not report it"),
        **_preference_notes(spec, target),
        "local.keep_checkpoints": ("unused", None, "OpenAI keeps the checkpoints of the last three epochs"),
    }
    if target.hyperparameters == "top":
        set_fields = _given(spec)
        for field, name in _NEBIUS.items():
            if field in set_fields:
                local[field] = ("translated", set_fields[field], f"hyperparameters.{name}")
        if spec.hyperparameters.learning_rate_multiplier != "auto" and spec.local.base_learning_rate != "auto":
            local["local.base_learning_rate"] = ("translated", spec.local.base_learning_rate, "in learning_rate")
    return local


def _preference_notes(spec: JobSpec, target: Target) -> dict[str, Note]:
    """A service has one loss for preferences: what changes it here cannot be had there."""
    settings, usual = spec.local.dpo, DpoSpec()
    changed = [name for name in DpoSpec.model_fields if getattr(settings, name) != getattr(usual, name)]
    how = f"{target.title} does not let you choose the loss in preference tuning, only beta"
    return {f"local.dpo.{name}": ("refused", None, how) for name in changed}


def _run_notes(spec: JobSpec) -> dict[str, Note]:
    """Judging, budget and fallback."""
    notes: dict[str, Note] = {
        "name": ("exact", spec.name, "names the run; the job is named by suffix"),
        "model.local": ("unused", None, "the service trains model.openai"),
        "evaluation.batch_size": ("translated", spec.evaluation.batch_size, "requests in flight at once, at most"),
        "evaluation.margin": ("exact", spec.evaluation.margin, "kept for compare"),
        "evaluation.precision": ("unused", None, "the service chooses its own arithmetic"),
        "budget.max_gpu_hours": ("unused", None, "the service's GPUs are not counted; budget.max_usd limits its cost"),
    }
    if spec.evaluation.perplexity:
        how = "a service reports no log probabilities of completions that it did not generate"
        notes["evaluation.perplexity"] = ("unused", None, how)
    if spec.budget.max_usd is not None:
        how = (
            "calculated from a dated price list, before the upload, while training and between completions; judges "
            "included"
        )
        notes["budget.max_usd"] = ("approximated", spec.budget.max_usd, how)
        if spec.method == "reinforcement":
            how = "reinforcement is billed by the hour: set budget.max_hours"
            notes["budget.max_usd"] = ("refused", None, how)
    if spec.fallback == "openai":
        notes["fallback"] = ("unused", None, "the first provider is already openai")
    elif spec.fallback is not None:
        how = f"a new run of the same bytes with {spec.fallback}, if the service refuses for good or fails"
        notes["fallback"] = ("exact", spec.fallback, how)
    return notes


def _plainly(field: str, spec_value: Any, why: str) -> Note:
    if field.startswith("local."):
        return "unused", None, "concerns training on this machine"
    if field.startswith(("slurm.", "ray.")):
        return "unused", None, f"for --provider {field.partition('.')[0]}"
    if spec_value is None:
        return "unused", None, "not given"
    return "exact", spec_value, why


def _nebius(spec: JobSpec, figures: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    set_fields = _given(spec)
    multiplier = figures.pop("learning_rate_multiplier")
    if multiplier != "auto" and spec.local.base_learning_rate != "auto":
        figures["learning_rate"] = multiplier * spec.local.base_learning_rate
    elif multiplier == "auto" or "hyperparameters.learning_rate_multiplier" in refused:
        pass  # the service's own rate
    figures |= {name: set_fields[field] for field, name in _NEBIUS.items() if field in set_fields}
    if "tuning" in spec.local.model_fields_set:
        figures["lora"] = spec.local.tuning == "lora"
    return figures


def _given(spec: JobSpec) -> dict[str, Any]:
    """The fields of local training that the spec gives, not those it leaves on their defaults."""
    local = spec.local
    set_fields = {f"local.{name}": getattr(local, name) for name in local.model_fields_set}
    return set_fields | {f"local.lora.{name}": getattr(local.lora, name) for name in local.lora.model_fields_set}


def _wandb(integration: dict[str, Any]) -> dict[str, Any]:
    kind = integration.pop("type")
    return {"type": kind, kind: {key: value for key, value in integration.items() if value != []}}
