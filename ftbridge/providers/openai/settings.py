"""What a job says it trains with, against what was asked: services have taken other settings without an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(body: dict[str, Any], job: Any, *, validation: bool) -> list[str]:
    """Settings of a job object that are not those of the request, in words; what it does not tell is not held against it.

    `body` is that of the request, `validation` whether a validation file was sent with it.
    """
    return [*_figures(body, job), *_others(body, job, validation)]


def _figures(body: dict[str, Any], job: Any) -> Iterator[str]:
    method = str(_of(body, "method", "type") or "supervised")
    hyperparameters = _of(body, "hyperparameters") or _of(body, "method", method, "hyperparameters") or {}
    for name, wanted in hyperparameters.items():
        actual = _of(job, "method", method, "hyperparameters", name)
        if actual is None:
            actual = _of(job, "hyperparameters", name)
        if _is_number(wanted) and _is_number(actual) and abs(actual - wanted) > 1e-9 * max(1.0, abs(wanted)):
            yield f"{name} {actual:g} instead of {wanted:g}"


def _others(body: dict[str, Any], job: Any, validation: bool) -> Iterator[str]:
    method, actual = _of(body, "method", "type"), _of(job, "method", "type")
    if isinstance(method, str) and isinstance(actual, str) and actual != method:
        yield f"method {actual} instead of {method}"
    if validation and _tells(job, "validation_file") and _of(job, "validation_file") is None:
        yield "no validation file, although one was sent"
    for name, names in (("seed", "seed"), ("suffix", "user_provided_suffix")):
        wanted, actual = body.get(name), _of(job, names)
        if wanted is not None and actual is not None and actual != wanted:
            yield f"{name} {actual} instead of {wanted}"
    wanted, actual = body.get("model"), _of(job, "model")
    if isinstance(wanted, str) and isinstance(actual, str) and not _same_model(wanted, actual):
        yield f"model {actual} instead of {wanted}"


def _same_model(wanted: str, actual: str) -> bool:
    """Whether one name is the other's dated form, or its path's end."""
    ends = wanted.rpartition("/")[2], actual.rpartition("/")[2]
    return any(one == other or one.startswith(f"{other}-20") for one, other in (ends, ends[::-1]))


def _of(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def _tells(job: Any, name: str) -> bool:
    if isinstance(job, dict):
        return name in job
    return name in (getattr(job, "model_fields_set", None) or vars(job))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
