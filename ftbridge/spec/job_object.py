"""What a fine-tuning job object of OpenAI says, field by field, in the spec's terms.

    job object ─▶ method ─▶ hyperparameters ─▶ suffix, seed, metadata ─▶ graders, integrations
                    │ (old: at the top;              │ ("auto", or the number
                    │  new: under method.TYPE)       │  that it was settled to)
                    ▼                                ▼
             JobReader.spec, and JobReader.fields with an entry for every leaf

Sources: the published schema (`FineTuningJob`), `openai.types.fine_tuning`, and fields that real services add.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ftbridge.errors import SpecError
from ftbridge.spec.graders import Grader
from ftbridge.spec.problems import first_problem
from ftbridge.spec.sections import Hyperparameters, LocalSpec, WandbIntegration

Outcome = Literal["kept", "translated", "not_portable"]
RUN_MARK = "ftbridge_run"
"""The metadata key that ftbridge marks the jobs of its own runs with; it names a run, so no other run may carry it."""


class TunedName(NamedTuple):
    """The parts of a tuned model's name, `ft:BASE:ORGANIZATION:SUFFIX:ID` with `:ckpt-step-N` behind it for a checkpoint."""

    base: str
    organization: str
    suffix: str | None
    id: str
    step: int | None


def tuned_name(name: str) -> TunedName | None:
    """The parts of a tuned model's name; None for a text that is none."""
    match = re.fullmatch(r"ft:([^:]+):([^:]*):([^:]*):([^:]+?)(?::ckpt-step-(\d+))?", name)
    if match is None:
        return None
    base, organization, suffix, parts, step = match.groups()
    return TunedName(base, organization, suffix or None, parts, int(step) if step is not None else None)


class JobField(BaseModel):
    """One field of a job object: `field` is its dotted path there, `spec` the path in the spec where its value went."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Dotted path in the job object.")
    outcome: Outcome = Field(description="kept, translated or not_portable.")
    value: Any = Field(description="What the job says.")
    spec: str | None = Field(default=None, description="Where it went in the spec.")
    reason: str = Field(description="Why it is kept, how it was translated, or why it has no place.")


def unknown_fields(fields: Sequence[JobField]) -> list[str]:
    """The paths of job fields that this version does not know."""
    return [entry.field for entry in fields if entry.reason == _UNKNOWN]


_RECORDS = {
    "object": "says what the object is",
    "id": "names the old job; kept as provenance",
    "created_at": "a time of the old job",
    "finished_at": "a time of the old job",
    "estimated_finish": "a time of the old job",
    "status": "the old job's state",
    "error": "the old job's error",
    "organization_id": "names the account",
    "result_files": "the old job's loss curve; `ftbridge migrate download` saves it",
    "fine_tuned_model": "the old model's name; its suffix is read from it, and `ftbridge migrate serve` can answer to it",
    "trained_tokens": "a result of the old job: epochs times the tokens of the training file, which is compared with it",
    "trained_steps": "a result of the old job",
    "total_steps": "a result of the old job",
    "usage_metrics": "a result of the old job",
    "shared_with_openai": "a setting of the account",
    "eval_id": "an evaluation on the service's platform, which is closed",
    "trainingType": "where a service trains; set openai.training_type for Azure",
    "suffix": "the suffix under an older name",
}
"""Fields that describe the old job and train nothing, and why each has no place in a spec."""

_LOCAL_SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "lora": ("tuning", lambda on: "lora" if on else "full"),
    "lora_r": ("lora.r", int),
    "lora_alpha": ("lora.alpha", float),
    "lora_dropout": ("lora.dropout", float),
    "packing": ("packing", bool),
    "warmup_ratio": ("warmup_ratio", float),
    "weight_decay": ("weight_decay", float),
    "max_grad_norm": ("max_grad_norm", float),
    "context_length": ("max_length", int),
    "learning_rate": ("base_learning_rate", float),
}
"""Hyperparameters that OpenAI-compatible services (Nebius Token Factory) add, and where the spec's `local` section has them."""

_METHODS = ("supervised", "dpo", "reinforcement")
_LEFT_AT_AUTO = "a factor on the service's own base rate, which it does not publish; left at auto for the new provider"


class JobReader:
    """Reads one job object: `spec` is what it says in the spec's terms, `fields` reports on each leaf."""

    def __init__(self, job: Mapping[str, Any], keeps_multiplier: bool) -> None:
        self.job, self.keeps_multiplier = job, keeps_multiplier
        self.spec: dict[str, Any] = {}
        self.fields: list[JobField] = []
        self.method = self._method()

    def read(self, *, train: str | Sequence[str], validation: str | None) -> None:
        """Read every field of the job, in its order."""
        self.spec["method"] = self.method
        for name, value in self.job.items():
            if name == "method":
                self._read_method(value)
            elif name == "hyperparameters":
                self._read_old_hyperparameters(value)
            elif name == "training_file":
                self._note(name, "translated", value, "data.train", f"the file's content: {_shown(train)}")
            elif name == "validation_file":
                self._read_validation(value, validation)
            elif name == "model":
                self._read_model(str(value or ""))
            elif name == "seed":
                self._read_seed(value)
            elif name == "metadata":
                self._read_metadata(value)
            elif name == "integrations":
                self._read_integrations(value)
            elif name in ("user_provided_suffix", "suffix"):
                self._note(name, "kept" if value else "not_portable", value, "suffix" if value else None, _SUFFIX)
            else:
                self._record(name, value)
        if (suffix := self._suffix()) is not None:
            self.spec["suffix"] = suffix

    def _method(self) -> Literal["supervised", "dpo", "reinforcement"]:
        method = self.job.get("method")
        kind = method.get("type") if isinstance(method, Mapping) else None
        kind = "supervised" if kind is None else kind  # jobs of before December 2024 have no method
        for known_method in _METHODS:
            if kind == known_method:
                return known_method  # type: ignore[return-value]
        raise SpecError(f"{self.job.get('id')}: there is no method {kind!r}; known methods: {', '.join(_METHODS)}.")

    def _read_model(self, model: str) -> None:
        if model.startswith("ft:"):
            reason = "a tuned model: the job continued an earlier one, whose data come first"
            self._note("model", "translated", model, "model", reason)
        else:
            self._note("model", "kept", model, "model.openai", "the base; a local base is yours to choose")

    def _read_method(self, method: Any) -> None:
        if not isinstance(method, Mapping):
            self._note("method", "not_portable", method, None, "none: a job of the older shape, which is supervised")
            return
        for name, value in method.items():
            if name == "type":
                self._note("method.type", "kept", value, "method", "the spec's methods have OpenAI's names")
            elif name == self.method and isinstance(value, Mapping):
                self._read_settings(f"method.{name}", value)
            else:
                reason = "settings of a method that this job does not use" if name in _METHODS else _UNKNOWN
                self._note(f"method.{name}", "not_portable", value, None, reason)

    def _read_settings(self, path: str, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if name == "hyperparameters" and isinstance(value, Mapping):
                for hyper, number in value.items():
                    self._read_hyperparameter(f"{path}.{name}.{hyper}", hyper, number)
            elif name == "grader" and self.method == "reinforcement":
                self._read_grader(f"{path}.grader", value)
            elif name == "response_format" and self.method == "reinforcement":
                self._read_response_format(f"{path}.response_format", value)
            elif name in Hyperparameters.model_fields:  # Azure's examples have beta here
                self._read_hyperparameter(f"{path}.{name}", name, value)
            else:
                self._note(f"{path}.{name}", "not_portable", value, None, _nothing_or(value, _UNKNOWN))

    def _read_old_hyperparameters(self, hyperparameters: Any) -> None:
        if not isinstance(hyperparameters, Mapping):
            self._note("hyperparameters", "not_portable", hyperparameters, None, "none here: they are under method")
            return
        for name, value in hyperparameters.items():
            path = f"hyperparameters.{name}"
            newer = self._newer(name)
            if not self._is_portable(name, value):
                self._note(path, "not_portable", value, None, _LEFT_AT_AUTO)
            elif newer is not None and (value == "auto" or newer != "auto"):
                was = " (it was auto)" if value == "auto" and newer != "auto" else ""
                reason = f"the older field; method.{self.method} has {newer}{was}"
                self._note(path, "translated", value, f"hyperparameters.{name}", reason)
            else:
                self._read_hyperparameter(path, name, value)

    def _is_portable(self, name: str, value: Any) -> bool:
        """Whether a hyperparameter means the same at another trainer; "auto" does."""
        return name != "learning_rate_multiplier" or self.keeps_multiplier or value in ("auto", None)

    def _newer(self, name: str) -> Any:
        """The same hyperparameter under the job's method, if it is there."""
        node: Any = self.job.get("method")
        for key in (self.method, "hyperparameters", name):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def _read_hyperparameter(self, path: str, name: str, value: Any) -> None:
        if name in _LOCAL_SETTINGS:
            self._read_local_setting(path, name, value)
            return
        if name not in Hyperparameters.model_fields:
            self._note(path, "not_portable", value, None, _nothing_or(value, _UNKNOWN))
            return
        if value is None:
            self._note(path, "not_portable", value, None, _NOT_SET)
            return
        if not self._is_portable(name, value):
            self._note(path, "not_portable", value, None, _LEFT_AT_AUTO)
            return
        older = self.job.get("hyperparameters")
        older = older.get(name) if isinstance(older, Mapping) else None
        if value == "auto" and isinstance(older, (int, float)) and self._is_portable(name, older):
            reason = f"auto here; the older field has {older}, the value that it resolved to"
            self._note(path, "translated", value, f"hyperparameters.{name}", reason)
            return
        number = int(value) if isinstance(value, float) and value.is_integer() and name in _WHOLE else value
        try:
            Hyperparameters.model_validate({name: number})
        except ValidationError as error:
            outside = f"outside the spec's bounds ({first_problem(error)}); left at its default"
            self._note(path, "not_portable", value, None, outside)
            return
        self.spec.setdefault("hyperparameters", {})[name] = number
        settled = value != "auto" and older == "auto"
        reason = "same name and meaning" if not settled else "the number that auto resolved to"
        self._note(path, "kept", value, f"hyperparameters.{name}", reason)

    def _read_local_setting(self, path: str, name: str, value: Any) -> None:
        setting, convert = _LOCAL_SETTINGS[name]
        *sections, last = setting.split(".")
        try:
            converted = convert(value)
            document: Any = {last: converted}
            for section in reversed(sections):
                document = {section: document}
            LocalSpec.model_validate(document)
        except (TypeError, ValueError):
            self._note(path, "not_portable", value, None, _nothing_or(value, "outside the spec's bounds"))
            return
        holder = self.spec.setdefault("local", {})
        for section in sections:
            holder = holder.setdefault(section, {})
        holder[last] = converted
        self._note(
            path,
            "translated",
            value,
            f"local.{setting}",
            "a setting of the service, which the spec sets for each provider",
        )

    def _read_grader(self, path: str, grader: Any) -> None:
        document = _named(grader)
        try:
            parsed = TypeAdapter(Grader).validate_python(document)
        except ValidationError as error:
            self._note(
                path,
                "not_portable",
                grader,
                None,
                f"not a grader that can run here: {first_problem(error, root=Grader)}",
            )
            return
        self.spec.setdefault("evaluation", {})["graders"] = [document]
        self.spec.setdefault("openai", {})["grader"] = parsed.name
        same = document == grader
        reason = "graders have OpenAI's schemas here" if same else "written as the schema has it: every grader named"
        self._note(path, "kept" if same else "translated", grader, "evaluation.graders", reason)

    def _read_response_format(self, path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            self._note(path, "not_portable", value, None, _nothing_or(value, "not a response format"))
            return
        self.spec.setdefault("openai", {})["response_format"] = dict(value)
        self._note(path, "kept", value, "openai.response_format", "sent as it is to services that know it")

    def _read_validation(self, value: Any, validation: str | None) -> None:
        if value is None:
            self._note("validation_file", "not_portable", value, None, "none: the job had no validation file")
        elif validation is None:
            self._note("validation_file", "not_portable", value, None, "its content is not here")
        else:
            reason = f"the file's content: {validation}"
            self._note("validation_file", "translated", value, "data.validation", reason)

    def _read_seed(self, value: Any) -> None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2147483647:
            self.spec["seed"] = value
            self._note("seed", "kept", value, "seed", "fixes splits and data order; another trainer's draws differ")
        else:
            self._note("seed", "not_portable", value, None, _nothing_or(value, "not a seed; the spec's default holds"))

    def _read_metadata(self, value: Any) -> None:
        if not isinstance(value, Mapping) or not value:
            self._note("metadata", "not_portable", value, None, "none")
            return
        pairs: dict[str, str] = {}
        for key, text in value.items():
            path = f"metadata.{key}"
            if key == RUN_MARK:
                self._note(path, "not_portable", text, None, "marks the run that made the old job")
            elif not isinstance(text, str) or len(key) > 64 or len(text) > 512 or len(pairs) == 16:
                self._note(path, "not_portable", text, None, "beyond 16 pairs of text, of 64 and 512 characters")
            else:
                pairs[key] = text
                self._note(path, "kept", text, path, "kept with the run")
        self.spec["metadata"] = pairs

    def _read_integrations(self, value: Any) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self._note("integrations", "not_portable", value, None, "none")
            return
        for index, integration in enumerate(value):
            path = f"integrations[{index}]"
            wandb = integration.get("wandb") if isinstance(integration, Mapping) else None
            flat = {key: inner for key, inner in (wandb or {}).items() if inner is not None}
            earlier = self.spec.get("openai", {}).get("integrations", [])
            try:
                WandbIntegration.model_validate(flat)
            except ValidationError:
                kind = integration.get("type") if isinstance(integration, Mapping) else integration
                self._note(path, "not_portable", integration, None, f"no integration of this kind here: {kind}")
                continue
            if len(earlier) == 5:
                self._note(path, "not_portable", integration, None, "a job has at most five")
                continue
            self.spec.setdefault("openai", {})["integrations"] = [*earlier, flat]
            reason = "the same project, entity, name and tags; its key stays with the service"
            self._note(path, "translated", integration, "openai.integrations", reason)

    def _suffix(self) -> str | None:
        """The suffix that the user gave, or the one in the tuned model's name."""
        for key in ("user_provided_suffix", "suffix"):
            if isinstance(suffix := self.job.get(key), str) and 0 < len(suffix) <= 64:
                return suffix
        parts = tuned_name(str(self.job.get("fine_tuned_model") or ""))
        return parts.suffix[:64] if parts is not None and parts.suffix else None

    def _record(self, name: str, value: Any) -> None:
        reason = _RECORDS.get(name, _UNKNOWN)
        if name == "fine_tuned_model" and (parts := tuned_name(str(value or ""))) is not None and parts.suffix:
            self._note(name, "translated", value, "suffix", f"its suffix is {parts.suffix!r}")
            return
        self._note(name, "not_portable", value, None, reason)

    def _note(self, field: str, outcome: Outcome, value: Any, spec: str | None, reason: str) -> None:
        self.fields.append(JobField(field=field, outcome=outcome, value=value, spec=spec, reason=reason))


_UNKNOWN = "a field that this version does not know; read the service's documentation before you rely on the spec"
_NOT_SET = "not set; the spec's default holds"
_SUFFIX = "goes into the tuned model's name where the service has it"
_WHOLE = frozenset({"n_epochs", "batch_size", "eval_interval", "eval_samples"})


def _nothing_or(value: Any, reason: str) -> str:
    return _NOT_SET if value is None else reason


def _named(grader: Any) -> Any:
    """A grader object as the schema has it: guides leave out names, and write the parts of a multi grader as a list."""
    if not isinstance(grader, Mapping):
        return grader
    document = {key: value for key, value in grader.items() if value is not None}
    document.setdefault("name", "reward")
    if document.get("type") != "multi":
        return document
    parts = document.get("graders")
    document["graders"] = {key: {"name": key, **part} for key, part in _parts(parts)}
    return document


def _parts(parts: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The graders of a multi grader by name. A single grader, as one schema has it, is one under its own name."""
    if isinstance(parts, Mapping) and isinstance(parts.get("type"), str):
        parts = [parts]
    pairs = parts.items() if isinstance(parts, Mapping) else ((None, part) for part in parts or ())
    for index, (key, part) in enumerate(pairs):
        if isinstance(part, Mapping):
            plain = {name: value for name, value in part.items() if value is not None}
            yield str(key or plain.get("name") or f"grader_{index + 1}"), plain


def _shown(paths: str | Sequence[str]) -> str:
    return paths if isinstance(paths, str) else ", ".join(paths)
