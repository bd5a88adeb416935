"""What an account holds, as the inventory found it: frozen shapes over the service's raw objects.

Old objects differ from new ones: before December 2024 a job's hyperparameters stood at its top level and it had no method;
"auto" became numbers when a job was done; `error` is null, {} or an object of nulls while nothing is wrong.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.errors import UsageError

Method = Literal["supervised", "dpo", "reinforcement"]
METHODS: tuple[Method, ...] = ("supervised", "dpo", "reinforcement")


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Source(_Shape):
    """A key, by its fingerprint. `variable` is the environment variable that holds it."""

    id: str
    variable: str
    kind: Literal["project", "admin"] = "project"
    organization: str | None = None
    project: str | None = None

    @property
    def place(self) -> str:
        """The project in messages: its id, or the variable of the key where the service did not name it."""
        return self.project or self.variable


class Job(_Shape):
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
    def of(cls, document: Mapping[str, Any], source: Source) -> Job:
        """A job from the service's object, whichever year it is from. Fields that make no sense are left at their defaults."""
        method, settings, old = _method(document)
        tuned = _text(document.get("fine_tuned_model"))
        metadata = _object(document.get("metadata"))
        return cls(
            id=str(document.get("id")),
            source=source.id,
            organization=_text(document.get("organization_id")) or source.organization,
            project=source.project,
            status=_text(document.get("status")) or "unknown",
            base=_text(document.get("model")) or "",
            tuned=tuned,
            method=method,
            hyperparameters=settings,
            old_shape=old,
            training_file=_text(document.get("training_file")),
            validation_file=_text(document.get("validation_file")),
            result_files=tuple(str(name) for name in document.get("result_files") or () if name),
            created=_number(document.get("created_at")),
            finished=_number(document.get("finished_at")),
            trained_tokens=_whole(document.get("trained_tokens")),
            seed=_whole(document.get("seed")),
            suffix=suffix_of(tuned) or _text(document.get("user_provided_suffix")),
            metadata={str(name): str(value) for name, value in metadata.items()},
            integrations=tuple(one for one in document.get("integrations") or () if isinstance(one, dict)),
            error=_text(_object(document.get("error")).get("message"))
            or _text(_object(document.get("error")).get("code")),
            raw=dict(document),
        )


class Checkpoint(_Shape):
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
            for name, value in _object(document.get("metrics")).items()
            if (figure := _number(value)) is not None
        }
        return cls(
            id=str(document.get("id")),
            job=_text(document.get("fine_tuning_job_id")) or job,
            model=_text(document.get("fine_tuned_model_checkpoint")) or "",
            step=_whole(document.get("step_number")) or 0,
            metrics=metrics,
            created=_number(document.get("created_at")),
        )


class FileObject(_Shape):
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
    def of(cls, document: Mapping[str, Any], source: Source) -> FileObject:
        """A file from the service's object."""
        return cls(
            id=str(document.get("id")),
            source=source.id,
            filename=_text(document.get("filename")) or "",
            bytes=_whole(document.get("bytes")),
            purpose=_text(document.get("purpose")) or "",
            created=_number(document.get("created_at")),
            expires=_number(document.get("expires_at")),
            status=_text(document.get("status")),
            raw=dict(document),
        )


class StoredCompletion(_Shape):
    """A completion that a client stored (`store=true`), with its input where that was downloaded.

    `request` holds the settings it was made with, as the service kept them; `messages` is None where the input was not
    downloaded, and `missing` says why an input cannot be used, such as an image that the service did not keep.
    """

    id: str
    source: str = ""
    model: str = ""
    created: float | None = None
    request: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    completion: dict[str, Any] = {}
    finish_reason: str | None = None
    usage: dict[str, Any] = {}
    messages: tuple[dict[str, Any], ...] | None = None
    missing: str | None = None
    logprobs: dict[str, Any] | None = None
    raw: dict[str, Any] = {}

    @classmethod
    def of(
        cls, document: Mapping[str, Any], source: str, messages: tuple[dict[str, Any], ...] | None = None
    ) -> StoredCompletion:
        """A stored completion from the service's object and, if there are any, the messages of its input."""
        choice = next((one for one in document.get("choices") or () if isinstance(one, dict)), {})
        settings = {name: document[name] for name in _SETTINGS if document.get(name) is not None}
        plain = tuple(_message(message) for message in messages) if messages is not None else None
        return cls(
            id=str(document.get("id")),
            source=source,
            model=_text(document.get("model")) or "",
            created=_number(document.get("created")),
            request=settings,
            metadata={str(name): str(value) for name, value in _object(document.get("metadata")).items()},
            completion=_object(choice.get("message")),
            finish_reason=_text(choice.get("finish_reason")),
            usage=_object(document.get("usage")),
            messages=plain,
            missing=_missing(plain) if plain is not None else None,
            logprobs=_object(choice.get("logprobs")) or None,
            raw=dict(document),
        )


class Use(_Shape):
    """How much a model was used in the days that the usage report covers."""

    requests: int = 0
    batch_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    first: datetime.date | None = None
    last: datetime.date | None = None
    projects: dict[str, int] = {}
    days: int = 0


class RateLimit(_Shape):
    """What the service lets a project do with a model; None for what it does not state."""

    model: str
    project: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    batch_queue_tokens: int | None = None


class Features(_Shape):
    """What clients use, as stored completions show; `seen` is how many were looked at, 0 for not known."""

    seen: int = 0
    tools: bool = False
    json_schema: bool = False
    json_object: bool = False
    images: bool = False
    logprobs: bool = False
    several_choices: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The features in use, in words."""
        words = {
            "tools": "tools",
            "json_schema": "JSON schema",
            "json_object": "JSON object",
            "images": "images",
            "logprobs": "logprobs",
            "several_choices": "n > 1",
        }
        return tuple(word for name, word in words.items() if getattr(self, name))


class FileNeed(_Shape):
    """A file that a model came from, and where it is: at the service, in the folder, gone, refused or not known."""

    id: str
    role: Literal["training", "validation", "result"]
    job: str
    state: Literal["there", "downloaded", "gone", "refused", "unknown"] = "unknown"
    bytes: int | None = None
    note: str | None = None


class TunedModel(_Shape):
    """A tuned model. `base` is the first base model of its chain, `chain` the jobs that made it, oldest first.

    `shutdown` is the day it stops, as the service states it or, where it does not, OpenAI's calendar; `listed` is whether
    `GET /models` shows it.
    """

    id: str
    base: str = ""
    continues: str | None = None
    method: Method = "supervised"
    job: str | None = None
    chain: tuple[str, ...] = ()
    organization: str | None = None
    project: str | None = None
    suffix: str | None = None
    sources: tuple[str, ...] = ()
    created: float | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    shutdown: datetime.date | None = None
    listed: bool = False
    use: Use | None = None
    shared_with: tuple[str, ...] = ()
    features: Features = Features()
    files: tuple[FileNeed, ...] = ()

    def days_left(self, today: datetime.date) -> int | None:
        """Days until it stops: 0 on the day itself, negative afterwards; None where no date is known."""
        return None if self.shutdown is None else (self.shutdown - today).days

    def answers(self, today: datetime.date) -> bool:
        """Whether it can still be sampled: it is listed, and its last day has not come."""
        days = self.days_left(today)
        return self.listed and (days is None or days > 0)


class Unseen(_Shape):
    """Something that the inventory could not see, why, and the scope or key that would show it."""

    what: str
    why: str
    scope: str | None = None
    source: str | None = None
    place: str | None = None


class Inventory(_Shape):
    """Everything that was found, merged over the keys of one organization or several; models come in the order of their use."""

    migration: str
    service: str
    taken: float
    clock_skew: float = 0.0
    today: datetime.date
    sources: tuple[Source, ...] = ()
    models: tuple[TunedModel, ...] = ()
    jobs: tuple[Job, ...] = ()
    files: dict[str, FileObject] = {}
    limits: tuple[RateLimit, ...] = ()
    projects: dict[str, str] = {}
    unseen: tuple[Unseen, ...] = ()
    complete: bool = True

    def model(self, name: str) -> TunedModel:
        """The model of this name, checkpoint name or suffix, or the only one whose name holds it. Raises `UsageError`."""
        exact = [one for one in self.models if name == one.id or any(name == point.model for point in one.checkpoints)]
        matches = (
            exact
            or [one for one in self.models if one.suffix == name]
            or [one for one in self.models if name and name in one.id]
        )
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = "\n".join(f"  {one.id}" for one in matches[:10])
            raise UsageError(f"{name!r} may be any of {len(matches)} models:\n{listed}", hint="Give the whole name.")
        close = difflib.get_close_matches(name, [one.id for one in self.models], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(close)}?" if close else "List them with: ftbridge migrate inventory"
        raise UsageError(f"no tuned model {name!r} in the inventory of {self.migration!r}.", hint=hint)

    def job(self, id: str) -> Job | None:
        """The job with this id."""
        return next((job for job in self.jobs if job.id == id), None)

    def limit(self, model: str, project: str | None = None) -> RateLimit | None:
        """The limits of a model in a project; those of its base where the service states none for the tuned name."""
        base = model.removeprefix("ft:").split(":")[0]
        for name in (model, base, _undated(base)):
            for limit in self.limits:
                if limit.model == name and project in (None, limit.project):
                    return limit
        return None


def suffix_of(tuned: str | None) -> str | None:
    """The suffix in `ft:BASE:ORGANIZATION:SUFFIX:ID`; None where it is empty or the name has another form."""
    parts = (tuned or "").split(":")
    return parts[3] or None if len(parts) >= 5 and parts[0] == "ft" else None


def features_of(completions: list[StoredCompletion]) -> Features:
    """What the clients that made these completions use."""
    formats = {str(_object(one.request.get("response_format")).get("type")) for one in completions}
    parts = [part for one in completions for message in one.messages or () for part in _parts(message)]
    return Features(
        seen=len(completions),
        tools=any(one.request.get("tools") or one.completion.get("tool_calls") for one in completions),
        json_schema="json_schema" in formats,
        json_object="json_object" in formats,
        images=any(part.get("type") == "image_url" for part in parts),
        logprobs=any(one.logprobs for one in completions),
        several_choices=any(len(one.raw.get("choices") or ()) > 1 for one in completions),
    )


_SETTINGS = (
    "model", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "tools", "tool_choice",
    "parallel_tool_calls", "response_format", "service_tier", "max_completion_tokens", "stop", "reasoning_effort",
)  # fmt: skip
"""Fields of a stored completion that a client chose."""
_KEPT_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "function_call")


def _message(document: Mapping[str, Any]) -> dict[str, Any]:
    """A stored message as a request takes it: without its id, content parts in the place of the content that they repeat."""
    message = {name: document[name] for name in _KEPT_KEYS if document.get(name) is not None}
    parts = document.get("content_parts")
    if isinstance(parts, list) and parts:
        message["content"] = parts
    if "content" not in message and not message.get("tool_calls") and "content" in document:
        message["content"] = document["content"]
    return message


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _missing(messages: tuple[dict[str, Any], ...]) -> str | None:
    for number, message in enumerate(messages):
        content = message.get("content")
        for part in _parts(message):
            if part.get("type") == "image_url":
                address = part.get("image_url")
                url = address.get("url") if isinstance(address, dict) else address
                if not url:
                    return f"messages[{number}]: the service did not keep the image"
        if content is None and not message.get("tool_calls") and not message.get("refusal"):
            return f"messages[{number}]: the content is null"
    return None if messages else "the service kept no input"


def _method(document: Mapping[str, Any]) -> tuple[Method, dict[str, Any], bool]:
    """The method, its settings, and whether they stood at the top level."""
    wrapped = _object(document.get("method"))
    top = _object(document.get("hyperparameters"))
    name = wrapped.get("type")
    method: Method = next((one for one in METHODS if one == name), "supervised")
    inner = _object(_object(wrapped.get(method)).get("hyperparameters"))
    settings = {**top, **inner}
    for key, value in top.items():  # a number is "auto" resolved, wherever it stands
        if settings.get(key) == "auto" and value != "auto":
            settings[key] = value
    return method, settings, not wrapped


def _undated(base: str) -> str:
    head, _, tail = base.partition("-20")
    return head if tail[:2].isdigit() else base


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or number != number else int(number)
