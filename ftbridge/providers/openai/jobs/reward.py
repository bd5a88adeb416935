"""The grader that rewards samples, as a service takes it: what it would refuse is refused before anything is uploaded.

Sources: OpenAI's graders guide and `openai.types.graders` (types, keys, what multi may hold), its API schema (output_json needs
a response format), Azure's fine-tuning documentation (templates).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ftbridge.graders import templates, variables
from ftbridge.providers.openai.targets import Target
from ftbridge.spec import JobSpec
from ftbridge.spec.graders import Grader, MultiGrader
from ftbridge.spec.lowering import Outcome

REWARDS = ("string_check", "text_similarity", "score_model", "python", "multi")
_IN_MULTI = ("string_check", "text_similarity", "score_model", "label_model", "python")
_OURS = ("base_url", "timeout_seconds")
"""Keys of the model graders that are ours."""


def note(spec: JobSpec, target: Target) -> tuple[Outcome, Any, str]:
    """The field mapping of `openai.grader`: the outcome, the grader's name, and how it is sent or why not."""
    names = ", ".join(grader.name for grader in spec.evaluation.graders)
    grader = spec.reward_grader
    if grader is None and spec.openai.grader is None:
        return "refused", None, f"several graders: name the one that rewards samples ({names})"
    if grader is None:
        return "refused", None, f"there is no grader {spec.openai.grader!r} in evaluation.graders ({names})"
    if problem := next(_problems(grader, spec, target), None):
        return "refused", None, problem
    changes = list(_changes(grader, target))
    how = f"sent as method.reinforcement.grader: the {grader.type} of evaluation.graders"
    return "translated", grader.name, f"{how}; without {', '.join(changes)}" if changes else f"{how}, whole"


def reward(spec: JobSpec, target: Target) -> dict[str, Any] | None:
    """The grader in OpenAI's schema, as `note` tells it; None where it was refused."""
    grader = spec.reward_grader
    if grader is None:
        return None
    document = _openai_only(grader.model_dump(mode="json", exclude_none=True))
    return _without_spaces(document) if target.name == "azure" else document


def _problems(grader: Grader, spec: JobSpec, target: Target) -> Iterator[str]:
    """Why the service would refuse it, or reward by something else."""
    if grader.type not in REWARDS:
        yield f"{grader.type} is not one of OpenAI's rewards ({', '.join(REWARDS)})"
    for key, part in grader.graders.items() if isinstance(grader, MultiGrader) else [("", grader)]:
        at = f"graders.{key}: " if key else ""
        if key and part.type not in _IN_MULTI:
            yield f"{at}{part.type} is not one of OpenAI's graders; a multi holds {', '.join(_IN_MULTI)}"
        if part.type == "text_similarity" and part.evaluation_metric == "cosine":
            yield f"{at}cosine is for evaluations only; take another evaluation_metric"
        if part.type == "text_similarity" and part.tokenizer is not None:
            yield f"{at}tokenizer is ours; the service's rouge sees a-z and 0-9 alone"
        if part.type == "label_model" and part.sampling_params is not None:
            yield f"{at}OpenAI's label_model takes no sampling_params; take score_model, or leave them out"
        elsewhere = part.base_url if part.type in ("score_model", "label_model") else None
        if elsewhere is not None and not _is_service(elsewhere, spec, target):
            yield f"{at}the service asks its own models only, not {urlsplit(elsewhere).netloc}; leave base_url out"
    read = variables(grader)
    if spec.openai.response_format is None and any(name.startswith("sample.output_json") for name in read):
        yield "its templates read sample.output_json, which is there only with openai.response_format"
    if target.name == "azure" and (indexed := sorted(name for name in read if "[" in name)):
        yield f"Azure's templates take no places in lists: {indexed[0]}"


def _is_service(address: str, spec: JobSpec, target: Target) -> bool:
    base_url = spec.openai.base_url or target.base_url or ""
    return urlsplit(address).netloc == urlsplit(base_url).netloc


def _changes(grader: Grader, target: Target) -> Iterator[str]:
    """What is not sent, and is ours, or is written in another way."""
    parts = grader.graders if isinstance(grader, MultiGrader) else {"": grader}
    if isinstance(grader, MultiGrader) and grader.pass_threshold is not None:
        yield "pass_threshold, which a multi has only here"
    for key, part in parts.items():
        for name in _OURS:
            if getattr(part, name, None) is not None:
                yield f"{f'graders.{key}.' if key else ''}{name}, which is ours"
    if target.name == "azure" and any(re.search(r"\{\{\s|\s\}\}", text) for text in templates(grader)):
        yield "the spaces inside the braces of its templates, which Azure does not take"


def _openai_only(document: dict[str, Any]) -> dict[str, Any]:
    ours = {"pass_threshold"} if document.get("type") == "multi" else set(_OURS)
    plain = {key: value for key, value in document.items() if key not in ours}
    if document.get("type") == "multi":
        plain["graders"] = {key: _openai_only(part) for key, part in document["graders"].items()}
    return plain


def _without_spaces(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: part if key == "source" else _without_spaces(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_spaces(part) for part in value]
    return re.sub(r"\{\{\s*(.*?)\s*\}\}", r"{{\1}}", value) if isinstance(value, str) else value
