"""What the sections of a job spec share: a strict model, the types that several use, and the fields that have a new name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ftbridge.redaction import address_problem

Auto = Literal["auto"]
Method = Literal["supervised", "dpo", "reinforcement"]

RENAMED = {
    "evaluation.few_shot_by": "few_shot_selection",
    "local.keep_dequantized": "cache_dequantized_weights",
    "local.tokens_per_pass": "max_tokens_per_microbatch",
    "local.too_long": "overlength",
}
"""Fields that have a new name, by their former path. The former names are accepted in version 0.2 and gone in 0.3."""


class SpecModel(BaseModel):
    """Strict, frozen, closed: the habits every part of a spec shares."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    former_names: ClassVar[Mapping[str, str]] = {}
    """Names of version 0.1 that are still accepted, and what each is now."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, document: Any) -> Any:
        return with_new_names(document, cls.former_names)


def with_new_names(document: Any, names: Mapping[str, str]) -> Any:
    """A mapping with each former name replaced by the present one; anything else as it is.

    Raises `ValueError` where both names are set.
    """
    if not isinstance(document, Mapping) or not names.keys() & document.keys():
        return document
    for former, present in names.items():
        if former in document and present in document:
            raise ValueError(f"{former} is the former name of {present}: set {present} alone")
    return {names.get(key, key): value for key, value in document.items()}


def former_names_in(section: str) -> dict[str, str]:
    """The former names of one section's fields, and what each is now."""
    return {path.partition(".")[2]: name for path, name in RENAMED.items() if path.partition(".")[0] == section}


def checked_address(address: str | None) -> str | None:
    """The address as it is; raises `ValueError` where it is not a service's, or holds a password."""
    if address is not None and (problem := address_problem(address)) is not None:
        raise ValueError(f"the address {problem}")
    return address
