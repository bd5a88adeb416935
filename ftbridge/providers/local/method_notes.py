"""The mapping of fields that a training method gives another meaning: preference tuning and reinforcement on this machine."""

from __future__ import annotations

from ftbridge.graders import judges_of
from ftbridge.providers.local.request import LocalRequest
from ftbridge.spec import JobSpec
from ftbridge.spec.graders import PairwiseGrader, TextSimilarityGrader, parts_of
from ftbridge.spec.lowering import Note, fields

GROUP = 8
"""Completions of a prompt at compute_multiplier 1: TRL's default; OpenAI publishes none."""
MOST_COMPLETIONS = 64


def preference_notes(spec: JobSpec, request: LocalRequest) -> dict[str, Note]:
    """What is different about fields in preference tuning, and that its own section is unused elsewhere."""
    if request.dpo is None:
        return {field: ("unused", None, "for method dpo") for field, _ in fields(spec.local.dpo, "local.dpo.")}
    settings, given_beta, beta = spec.local.dpo, request.dpo, spec.hyperparameters.beta
    notes: dict[str, Note] = {
        "hyperparameters.batch_size": ("exact", request.batch_size, "pairs per step"),
        "local.lora.dropout": (
            "approximated"
            if "dropout" in spec.local.lora.model_fields_set and spec.local.lora.dropout
            else "translated",
            0.0,
            "off in preference tuning: the tuned and the reference model are compared, and noise is not a difference",
        ),
        "local.dpo.beta": ("exact", given_beta.beta, "the scale of this loss" if settings.beta == "auto" else ""),
    }
    if beta is None or beta == "auto":
        how = f"auto: {given_beta.beta:g}, what most trainers take; OpenAI does not publish its own"
        notes["hyperparameters.beta"] = ("exact", given_beta.beta, how)
    elif settings.loss != "sigmoid" or settings.beta != "auto":
        how = "OpenAI's beta belongs to the sigmoid loss; give either it or local.dpo.beta, on the scale of the loss"
        notes["hyperparameters.beta"] = ("refused", None, how)
    if spec.local.overlength == "truncate":
        how = "a pair is compared whole: set drop or refuse"
        notes["local.overlength"] = ("refused", None, how)
    if request.continue_from is not None:
        notes["local.lora.continue_from"] = ("exact", request.continue_from, "it is the reference model too")
    return notes


def reinforcement_notes(spec: JobSpec, request: LocalRequest) -> dict[str, Note]:
    """What is different about fields in reinforcement, and that its own section is unused elsewhere."""
    if spec.method != "reinforcement":
        settings = fields(spec.local.reinforcement, "local.reinforcement.")
        return {field: ("unused", None, "for method reinforcement") for field, _ in settings}
    hyper, local = spec.hyperparameters, spec.local
    lengths = "evaluation.max_completion_tokens, unless local.reinforcement.max_completion_tokens is given"
    rollouts = request.reinforcement
    notes: dict[str, Note] = {
        "openai.grader": _grader_note(spec),
        "hyperparameters.batch_size": ("exact", request.batch_size, "prompts per step"),
        "hyperparameters.compute_multiplier": _group_note(spec),
        "hyperparameters.eval_interval": (
            "exact",
            hyper.eval_interval or "auto",
            "" if isinstance(hyper.eval_interval, int) else "auto: a tenth of all steps, at least one",
        ),
        "hyperparameters.eval_samples": (
            "approximated",
            rollouts.eval_samples if rollouts else None,
            "completions of each validation prompt at temperature 1; OpenAI does not say if its figure is for each or in all",
        ),
        "local.lr_schedule": (
            "exact" if "lr_schedule" in local.model_fields_set else "translated",
            request.lr_schedule,
            "" if "lr_schedule" in local.model_fields_set else "constant in reinforcement unless given",
        ),
        "local.lora.dropout": (
            "approximated" if "dropout" in local.lora.model_fields_set and local.lora.dropout else "translated",
            0.0,
            "off in reinforcement: the model that is updated must be the one that completions were drawn from",
        ),
        "local.reinforcement.max_completion_tokens": (
            "exact",
            rollouts.max_completion_tokens if rollouts else None,
            lengths,
        ),
        "local.evals_per_epoch": ("unused", None, "hyperparameters.eval_interval says when to validate"),
    }
    return notes | _reinforcement_limits(spec, request)


def _reinforcement_limits(spec: JobSpec, request: LocalRequest) -> dict[str, Note]:
    """Fields that reinforcement needs, cannot have, or gives another meaning."""
    local, rollouts = spec.local, request.reinforcement
    notes: dict[str, Note] = {}
    if spec.data.validation is None:
        how = "reinforcement needs held-out prompts: a path, or a fraction such as 0.1"
        notes["data.validation"] = ("refused", None, how)
    if spec.openai.response_format is not None:
        how = (
            "not enforced while completions are drawn, which would change what is learnt from; the grader sees "
            "completions that break it"
        )
        notes["openai.response_format"] = ("approximated", spec.openai.response_format, how)
    if local.overlength == "truncate":
        notes["local.overlength"] = ("refused", None, "a prompt is never cut: set drop or refuse")
    if local.reinforcement.kl and local.tuning == "full":
        notes["local.reinforcement.kl"] = (
            "refused",
            None,
            "needs a second copy of every weight in full tuning; set it to 0",
        )
    if rollouts is not None and judges_of([rollouts.grader]):
        how = "judges are counted; training pauses before the step that would exceed it"
        notes["budget.max_usd"] = ("exact", spec.budget.max_usd, how)
    if request.continue_from is not None and local.reinforcement.kl:
        how = "it is the model that the KL penalty refers to"
        notes["local.lora.continue_from"] = ("exact", request.continue_from, how)
    return notes


def _grader_note(spec: JobSpec) -> Note:
    """Which grader rewards completions, or why none can."""
    grader, names = spec.reward_grader, ", ".join(one.name for one in spec.evaluation.graders)
    if grader is None and spec.openai.grader is None:
        return "refused", None, f"several graders: name the one that rewards completions ({names})"
    if grader is None:
        return "refused", None, f"there is no grader {spec.openai.grader!r} in evaluation.graders ({names})"
    for part in parts_of(grader):
        if isinstance(part, PairwiseGrader):
            return "refused", None, f"{part.name} compares two completions, but a reward is for one: use score_model"
        if isinstance(part, TextSimilarityGrader) and part.evaluation_metric == "cosine":
            return "refused", None, f"{part.name}: cosine needs OpenAI's embeddings; use another evaluation_metric"
    return "exact", grader.name, f"rewards completions: the {grader.type} of evaluation.graders"


def _group_note(spec: JobSpec) -> Note:
    """How many completions of each prompt a step draws."""
    multiplier, size = spec.hyperparameters.compute_multiplier, completions_of_a_prompt(spec)
    if size < 2:
        how = (
            f"{GROUP} x {multiplier:g} is {size} completions of a prompt, but a group needs at least 2 to compare: at "
            f"least {2 / GROUP:g}"
        )
        return "refused", None, how
    bounds = f", at most {MOST_COMPLETIONS}" if size == MOST_COMPLETIONS else ""
    how = f"{size} completions of a prompt in a step: {GROUP} x the multiplier{bounds}; OpenAI does not publish its own"
    return "approximated", size, how


def completions_of_a_prompt(spec: JobSpec) -> int:
    multiplier = spec.hyperparameters.compute_multiplier
    return GROUP if multiplier in (None, "auto") else min(MOST_COMPLETIONS, round(GROUP * float(multiplier)))
