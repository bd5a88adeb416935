"""The job spec: what the user wrote, validated.

A spec is YAML, TOML, JSON or a plain `JobSpec(...)`. Validation is strict: unknown keys are refused with the nearest known
key, types are not coerced. "auto" stays "auto" here; it is settled by written rules in `ftbridge.resolve`. The sections are in
`ftbridge.spec_sections`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeGuard, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from ftbridge.errors import SpecError, UsageError
from ftbridge.grader_schema import Grader
from ftbridge.redaction import without_secrets
from ftbridge.spec_sections import (
    BudgetSpec,
    DataSpec,
    DpoSpec,
    EvaluationSpec,
    Hyperparameters,
    LocalSpec,
    Method,
    ModelSpec,
    OpenAISpec,
    PlanSpec,
    ReinforcementSpec,
)
from ftbridge.spec_sections import SpecModel as SpecModel


class JobSpec(SpecModel):
    """One fine-tuning job, for either provider."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Short name; run ids begin with it.")
    method: Method = Field(default="supervised", description="As OpenAI names them.")
    data: DataSpec = Field(description="Examples to train, validate and test on.")
    model: ModelSpec = Field(description="Base model on each side.")
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters, description="OpenAI's names and bounds.")
    seed: int = Field(
        default=42, ge=0, le=2147483647, description="Fixes splits, data order and initial adapter weights."
    )
    suffix: str | None = Field(
        default=None, min_length=1, max_length=64, description="Goes into the tuned model's name."
    )
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=16, description="Up to 16 pairs of text kept with the job."
    )
    openai: OpenAISpec = Field(default_factory=OpenAISpec, description="Settings of the managed side.")
    local: LocalSpec = Field(default_factory=LocalSpec, description="Settings of training on this machine.")
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, description="How answers are judged.")
    budget: BudgetSpec = Field(default_factory=BudgetSpec, description="Limits that stop a run.")
    plan: PlanSpec = Field(default_factory=PlanSpec, description="Figures and limits for `ftbridge plan`.")
    fallback: str | None = Field(
        default=None,
        description="The provider to train with when the first refuses or fails for good: openai, local or an installed one.",
    )

    @model_validator(mode="after")
    def _fields_suit_the_method(self) -> JobSpec:
        only = {"beta": "dpo", "compute_multiplier": "reinforcement", "eval_interval": "reinforcement"}
        only |= {"eval_samples": "reinforcement", "reasoning_effort": "reinforcement"}
        for field, method in only.items():
            if getattr(self.hyperparameters, field) is not None and self.method != method:
                raise ValueError(f"hyperparameters.{field} belongs to method {method}, but method is {self.method}")
        if self.local.early_stopping is not None and self.data.validation is None:
            raise ValueError("local.early_stopping needs data.validation (a path or a fraction such as 0.1)")
        if self.method != "dpo" and self.local.dpo != DpoSpec():
            raise ValueError(f"local.dpo belongs to method dpo, but method is {self.method}")
        if self.method != "reinforcement" and self.local.reinforcement != ReinforcementSpec():
            raise ValueError(f"local.reinforcement belongs to method reinforcement, but method is {self.method}")
        if self.local.tuning == "full" and self.local.lora.continue_from is not None:
            raise ValueError("local.lora.continue_from names an adapter, but local.tuning is full")
        if self.local.tuning == "full" and self.local.quantization in ("nf4", "int8"):
            raise ValueError(
                f"local.tuning full cannot train {self.local.quantization} weights; set local.quantization: none"
            )
        return self

    @property
    def reward_grader(self) -> Grader | None:
        """The grader of `evaluation.graders` that rewards samples in reinforcement; None where it is not clear which."""
        graders = {grader.name: grader for grader in self.evaluation.graders}
        if self.openai.grader is not None:
            return graders.get(self.openai.grader)
        return next(iter(graders.values())) if len(graders) == 1 else None

    @classmethod
    def from_dict(cls, document: object, *, where: str = "spec") -> JobSpec:
        """Validate a parsed document. Raises `SpecError` with every problem, each naming its field."""
        if not isinstance(document, dict):
            raise SpecError(f"{where}: a job spec is a mapping of keys to values, not {type(document).__name__}.")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise SpecError("\n".join(_problems(error, where))) from None


def load(path: str | Path, overrides: Sequence[str] = ()) -> tuple[JobSpec, str]:
    """Read a spec file (.yaml, .yml, .toml, .json) and apply `key.path=value` overrides.

    Returns the spec and its text as given. Raises `SpecError` (with the file and line where it can) or `UsageError`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such job spec.") from None
    except (IsADirectoryError, UnicodeDecodeError, PermissionError) as error:
        raise UsageError(f"{path}: cannot be read as a job spec ({error}).") from None
    document = parse(text, path.suffix.lower(), str(path))
    for override in overrides:
        _apply(document, override)
    return JobSpec.from_dict(document, where=str(path)), text


S = TypeVar("S", bound=SpecModel)


def override_section(section: S, name: str, overrides: Sequence[str]) -> S:
    """A section with `NAME.key=value` overrides applied. Raises `UsageError` for other keys, `SpecError` for bad values."""
    document: dict[str, Any] = {name: section.model_dump(mode="json", exclude_unset=True)}
    for override in overrides:
        if not override.startswith(f"{name}."):
            raise UsageError(f"--set {override}: only {name}.* can be changed here; anything else is another run.")
        _apply(document, override)
    try:
        return type(section).model_validate(document[name])
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join([name, *map(str, problem["loc"])])
        raise SpecError(
            f"{field}: {problem['msg'].removeprefix('Input ')}, not {without_secrets(repr(problem['input']))}."
        ) from None


def parse(text: str, suffix: str, where: str) -> dict[str, Any]:
    """Parse spec text by its file suffix into a plain mapping. Raises `SpecError`."""
    try:
        if suffix == ".json":
            document = json.loads(text, object_pairs_hook=_no_key_twice)
        elif suffix == ".toml":
            document = _toml(text)
        else:
            document = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{where}{line}: not valid YAML: {error.problem}.") from None
    except RecursionError:
        raise SpecError(f"{where}: nested too deeply for a job spec.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise SpecError(f"{where}: not valid {suffix.lstrip('.').upper() or 'YAML'}: {error}.") from None
    if not isinstance(document, dict):
        raise SpecError(f"{where}: a job spec is a mapping of keys to values; this file holds {_kind(document)}.")
    return document


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a job spec, for editors and other programs."""
    schema = JobSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _toml(text: str) -> Any:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    return importlib.import_module(name).loads(text)


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 2e-4 is a number (as in YAML 1.2), and no key may come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} comes twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return document


def _kind(value: object) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), type(value).__name__)


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {override}: write it as key.path=value, such as hyperparameters.n_epochs=2.")
    *parents, last = key.split(".")
    place = document
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {override}: {parent} is not a mapping in this spec.")
        place = inner
    try:
        place[last] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        place[last] = value


def _problems(error: ValidationError, where: str) -> list[str]:
    """One sentence for each problem; the branches of a union that fail together are told as one."""
    told: dict[str, list[str]] = {}
    for problem in error.errors():
        field = _field(problem["loc"])
        kind = problem["type"]
        if kind == "extra_forbidden":
            text = f"unknown key{_nearest(problem['loc'])}."
        elif kind == "missing":
            text = "is missing."
        elif kind == "value_error":
            text = f"{problem['ctx']['error']}."
        elif kind == "union_tag_not_found":
            field, text = f"{field}.type", "is missing."
        elif kind == "union_tag_invalid":
            known = problem["ctx"]["expected_tags"].replace("'", "")
            field, text = f"{field}.type", f"there is no type {problem['ctx']['tag']}; known types: {known}."
        else:
            text = f"{problem['msg'].removeprefix('Input ')}, not {without_secrets(repr(problem['input']))}."
        told.setdefault(field, []).append(text)
    return [
        f"{where}: {f'{field}: ' if field else ''}{texts[0] if len(texts) == 1 else ' Or: '.join(texts)}"
        for field, texts in told.items()
    ]


def _field(loc: tuple[int | str, ...]) -> str:
    """Dotted path of the user's keys: pydantic's names of union branches are left out."""
    return ".".join(_walk(loc)[0]).replace(".[", "[")


def _walk(loc: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """The user's keys on the way that pydantic tells, and the annotation it ends at."""
    keys: list[str] = []
    here: Any = JobSpec
    for part in loc:
        branches = _branches(here)
        only = branches[0] if len(branches) == 1 else None
        if isinstance(part, int):
            keys.append(f"[{part}]")
            here = next((get_args(branch)[0] for branch in branches if get_origin(branch) is list), None)
        elif part == "[key]":
            continue
        elif len(branches) > 1:
            here = next((branch for branch in branches if _is_called(branch, part)), None)
        elif get_origin(only) is dict:
            keys.append(part)
            here = get_args(only)[1]
        elif _is_model(only):
            keys.append(part)
            here = only.model_fields[part].annotation if part in only.model_fields else None
    return keys, here


def _branches(annotation: Any) -> list[Any]:
    """What an annotation can hold, beside None: the branches of unions, without their marks."""
    if get_origin(annotation) is Annotated:
        return _branches(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [branch for inner in get_args(annotation) for branch in _branches(inner)]
    return [] if annotation in (None, type(None)) else [annotation]


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_called(branch: Any, label: str) -> bool:
    """Whether pydantic calls this branch of a union so: a list by its type, a model by its class or its `type`."""
    if not _is_model(branch):
        return get_origin(branch) is list and "list[" in label
    tag = branch.model_fields.get("type")
    return label == branch.__name__ or (tag is not None and label in get_args(tag.annotation))


def _nearest(loc: tuple[int | str, ...]) -> str:
    """What to say of an unknown key: the nearest known one, or all of them."""
    models = [branch for branch in _branches(_walk(loc[:-1])[1]) if _is_model(branch)]
    if len(models) != 1:
        return ""
    known = list(models[0].model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known keys: {', '.join(known)}"
