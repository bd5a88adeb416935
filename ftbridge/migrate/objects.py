"""The service's objects as frozen models: keys, jobs, checkpoints and files, whichever year they are from.

Old objects differ from new ones: before December 2024 a job's hyperparameters stood at its top level and it had no method;
"auto" became numbers when a job was done; `error` is null, {} or an object of nulls while nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.spec.job_object import tuned_name

Method = Literal["supervised", "dpo", "reinforcement"]
METHODS: tuple[Method, ...] = ("supervised", "dpo", "reinforcement")


class AccountObject(BaseModel):
    """Frozen: what all that an account holds has in common."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class MigrationKey(AccountObject):
    """A key, by its fingerprint. `variable` is the environment variable that holds it."""

    id: str
    variable: str
    kind: Literal["project", "admin"] = "project"
    organization: str | None = None
    project: str | None = None

    @property
    def label(self) -> str:
        """The project in messages: its id, or the variable of the key where the service did not name it."""
        return self.project or self.variable


class Job(AccountObject):
    """A fine-tuning job. Times are Unix seconds. `old_shape`: its hyperparameters stood at the top level only."""

    id: str
    source: str = ""
    organization: str | None = None
    project: str | None = None
    status: str = "unknown"
    base: str = ""
    tuned: str | None = None
    method: Method = "supervised"
    hyperparameters: dict[str, Any] = {}
    old_shape: bool = False
    training_file: str | None = None
    validation_file: str | None = None
    result_files: tuple[str, ...] = ()
    created: float | None = None
    finished: float | None = None
    trained_tokens: int | None = None
    seed: int | None = None
    suffix: str | None = None
    metadata: dict[str, str] = {}
    integrations: tuple[dict[str, Any], ...] = ()
    error: str | None = None
    raw: dict[str, Any] = {}

    @property
    def continues(self) -> bool:
        """Whether it trained a model that was tuned before."""
        return self.base.startswith("ft:")

    @classmethod
    def of(cls, document: Mapping[str, Any], source: MigrationKey) -> Job:
        """A job from the service's object, whichever year it is from. Fields that make no sense are left at their defaults."""
        method, settings, old = _method(document)
        tuned = text_in(document.get("fine_tuned_model"))
        metadata = object_in(document.get("metadata"))
        return cls(
            id=str(document.get("id")),
            source=source.id,
            organization=text_in(document.get("organization_id")) or source.organization,
            project=source.project,
            status=text_in(document.get("status")) or "unknown",
            base=text_in(document.get("model")) or "",
            tuned=tuned,
            method=method,
            hyperparameters=settings,
            old_shape=old,
            training_file=text_in(document.get("training_file")),
            validation_file=text_in(document.get("validation_file")),
            result_files=tuple(str(name) for name in document.get("result_files") or () if name),
            created=number_in(document.get("created_at")),
            finished=number_in(document.get("finished_at")),
            trained_tokens=integer_in(document.get("trained_tokens")),
            seed=integer_in(document.get("seed")),
            suffix=suffix_of(tuned) or text_in(document.get("user_provided_suffix")),
            metadata={str(name): str(value) for name, value in metadata.items()},
            integrations=tuple(one for one in document.get("integrations") or () if isinstance(one, dict)),
            error=text_in(object_in(document.get("error")).get("message"))
            or text_in(object_in(document.get("error")).get("code")),
            raw=dict(document),
        )


class Checkpoint(AccountObject):
    """A checkpoint of a job; `model` is the name that it answers under."""

    id: str
    job: str
    model: str
    step: int = 0
    metrics: dict[str, float] = {}
    created: float | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any], job: str) -> Checkpoint:
        """A checkpoint from the service's object."""
        metrics = {
            name: figure
            for name, value in object_in(document.get("metrics")).items()
            if (figure := number_in(value)) is not None
        }
        return cls(
            id=str(document.get("id")),
            job=text_in(document.get("fine_tuning_job_id")) or job,
            model=text_in(document.get("fine_tuned_model_checkpoint")) or "",
            step=integer_in(document.get("step_number")) or 0,
            metrics=metrics,
            created=number_in(document.get("created_at")),
        )


class FileObject(AccountObject):
    """A file at the service. `expires` is None for one that stays."""

    id: str
    source: str = ""
    filename: str = ""
    bytes: int | None = None
    purpose: str = ""
    created: float | None = None
    expires: float | None = None
    status: str | None = None
    raw: dict[str, Any] = {}

    @classmethod
    def of(cls, document: Mapping[str, Any], source: MigrationKey) -> FileObject:
        """A file from the service's object."""
        return cls(
            id=str(document.get("id")),
            source=source.id,
            filename=text_in(document.get("filename")) or "",
            bytes=integer_in(document.get("bytes")),
            purpose=text_in(document.get("purpose")) or "",
            created=number_in(document.get("created_at")),
            expires=number_in(document.get("expires_at")),
            status=text_in(document.get("status")),
            raw=dict(document),
        )


def suffix_of(tuned: str | None) -> str | None:
    """The suffix of a tuned model's name; None where it is empty or the name has another form."""
    name = tuned_name(tuned or "")
    return name.suffix if name is not None else None


def _method(document: Mapping[str, Any]) -> tuple[Method, dict[str, Any], bool]:
    """The method, its settings, and whether they stood at the top level."""
    wrapped = object_in(document.get("method"))
    top = object_in(document.get("hyperparameters"))
    name = wrapped.get("type")
    method: Method = next((one for one in METHODS if one == name), "supervised")
    inner = object_in(object_in(wrapped.get(method)).get("hyperparameters"))
    settings = {**top, **inner}
    for key, value in top.items():  # a number is "auto" resolved, wherever it stands
        if settings.get(key) == "auto" and value != "auto":
            settings[key] = value
    return method, settings, not wrapped


def object_in(value: Any) -> dict[str, Any]:
    """An object of the service's reply; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def text_in(value: Any) -> str | None:
    """A text that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None


def number_in(value: Any) -> float | None:
    """A number; None for anything else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def integer_in(value: Any) -> int | None:
    """A number without its fraction; None for anything else."""
    number = number_in(value)
    return None if number is None or number != number else int(number)
