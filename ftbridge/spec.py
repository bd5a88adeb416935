"""The job spec: what the user wrote, validated.

A spec is YAML, TOML, JSON or a plain `JobSpec(...)`. Validation is strict: unknown keys are refused with the nearest known
key, types are not coerced, and hyperparameters keep OpenAI's names and bounds
(`openai.types.fine_tuning`: `SupervisedHyperparameters` and the API's published schema). "auto" stays "auto" here; it is
settled by written rules in `ftbridge.resolve`.
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
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ftbridge.errors import SpecError, UsageError
from ftbridge.grader_schema import ANSWER, REFERENCE, Grader, StringCheckGrader

Auto = Literal["auto"]
Method = Literal["supervised", "dpo", "reinforcement"]
Quantization = Literal["nf4", "int8", "none"]


class SpecModel(BaseModel):
    """Strict, frozen, closed: the habits every part of a spec shares."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class DataSpec(SpecModel):
    """Where the examples come from."""

    train: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="Training examples: a path, a glob, an https URL, hf://datasets/OWNER/NAME/FILE.jsonl, or a list of these."
    )
    validation: str | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Validation examples: a path, or the fraction of the training examples to hold out (split by the seed).",
    )
    test: str | None = Field(default=None, description="What the judge uses; never trained on.")
    format: Literal["auto", "jsonl", "json"] = Field(
        default="auto", description="File format; auto looks at the first character."
    )


class ModelSpec(SpecModel):
    """The base model on each side."""

    openai: str | None = Field(
        default=None, min_length=1, description="A model name of the managed service, or an existing ft: model."
    )
    local: str | None = Field(
        default=None,
        min_length=1,
        description="A local directory, a hub id (OWNER/NAME), a GGUF file, or the built-in smollm2-135m-instruct.",
    )

    @model_validator(mode="after")
    def _one_is_needed(self) -> ModelSpec:
        if self.openai is None and self.local is None:
            raise ValueError("name at least one of model.openai and model.local")
        return self


class Hyperparameters(SpecModel):
    """OpenAI's names and bounds; "auto" is settled by the rules in `ftbridge.resolve` and recorded with its reason."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = Field(
        default="auto", description="Passes over the data, 1 to 50."
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto", description="Examples per optimizer step, 1 to 256."
    )
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto", description="Factor on the provider's base learning rate, above 0."
    )
    beta: Auto | Annotated[float, Field(gt=0, le=2)] | None = Field(
        default=None, description="DPO only: weight of the penalty against the reference model, above 0, at most 2."
    )
    compute_multiplier: Auto | Annotated[float, Field(gt=0.00001, le=10)] | None = Field(
        default=None, description="Reinforcement only: factor on exploration compute, above 0.00001, at most 10."
    )
    eval_interval: Auto | Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Reinforcement only: steps between evaluations."
    )
    eval_samples: Auto | Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Reinforcement only: samples per evaluation item."
    )
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = Field(
        default=None, description="Reinforcement only."
    )


class WandbIntegration(SpecModel):
    """Weights & Biases, by a key that an administrator keeps with the service."""

    type: Literal["wandb"] = Field(default="wandb", description="wandb.")
    project: str = Field(min_length=1, description="Project that the job's figures go to.")
    name: str | None = Field(default=None, description="Display name of the W&B run; the job's id if absent.")
    entity: str | None = Field(default=None, description="W&B team or user; the key's default if absent.")
    tags: list[str] = Field(default=[], description="Tags of the W&B run.")


class OpenAISpec(SpecModel):
    """Which service, and where. Keys come from the environment, never from here."""

    target: Literal["openai", "azure", "nebius", "custom"] = Field(
        default="openai", description="Which service's dialect."
    )
    base_url: str | None = Field(default=None, description="The service's address; needed for azure and custom.")
    organization: str | None = Field(default=None, description="OpenAI-Organization header.")
    project: str | None = Field(default=None, description="OpenAI-Project header.")
    api_version: str | None = Field(
        default=None, min_length=1, description="Azure's classic address only: its api-version; v1 addresses need none."
    )
    training_type: Literal["standard", "globalStandard", "developerTier"] | None = Field(
        default=None, description="Azure only: where training runs; open models need globalStandard."
    )
    deployment: str | None = Field(
        default=None,
        min_length=1,
        description="Where a tuned model must be deployed before it answers (azure, nebius): the name it is deployed under.",
    )
    integrations: list[WandbIntegration] = Field(
        default=[], max_length=5, description="Where the service reports the job besides; OpenAI knows wandb."
    )
    grader: str | None = Field(
        default=None,
        description="Reinforcement only: which of evaluation.graders rewards samples; may be left out when there is one.",
    )
    response_format: dict[str, Any] | None = Field(
        default=None, description="Reinforcement only: the response format that samples must keep to."
    )
    batch: bool = Field(
        default=False, description="Answer test items through the Batch API: half the price, up to 24 hours."
    )

    @model_validator(mode="after")
    def _some_targets_need_an_address(self) -> OpenAISpec:
        if self.target in ("azure", "custom") and self.base_url is None:
            raise ValueError(f"openai.target {self.target} needs openai.base_url")
        return self


class LoraSpec(SpecModel):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), in peft's names."""

    r: int = Field(default=16, ge=1, le=1024, description="Rank.")
    alpha: float = Field(default=32, gt=0, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: str | list[str] = Field(
        default="all-linear",
        description='Module names to adapt, or "all-linear" (every linear layer but the output head).',
    )
    use_rslora: bool = Field(
        default=False, description="Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732)."
    )
    use_dora: bool = Field(
        default=False, description="Split magnitude from direction (Liu et al. 2024, arXiv:2402.09353)."
    )


class EarlyStopping(SpecModel):
    """Stop when validation loss no longer falls."""

    patience: int = Field(default=2, ge=1, description="Validations without improvement before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest fall in validation loss, in nats, that counts.")


class LocalSpec(SpecModel):
    """How to train on this machine."""

    tuning: Literal["lora", "full"] = Field(default="lora", description="Train an adapter, or every weight.")
    quantization: Quantization | Auto = Field(
        default="auto",
        description="Base weights: nf4 (double quantisation, bf16 compute), int8, none; auto is nf4 for lora, none for full.",
    )
    lora: LoraSpec = Field(default_factory=LoraSpec, description="The adapter.")
    max_length: int = Field(default=2048, ge=8, description="Longest example, in tokens of the model's tokenizer.")
    too_long: Literal["refuse", "truncate", "drop"] = Field(
        default="refuse",
        description="What to do with examples longer than max_length; refuse lists their line numbers.",
    )
    packing: bool = Field(
        default=True, description="Lay examples end to end instead of padding; they never see each other."
    )
    tokens_per_pass: Auto | Annotated[int, Field(ge=8)] = Field(
        default="auto",
        description="Token budget of one forward and backward pass; a batch is cut into as many passes as it needs. "
        "It changes speed and memory, not the result.",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Off unless given; needs validation data.")
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="auto",
        description="auto: paged_adamw_8bit on CUDA when quantized, adamw_8bit for full tuning on CUDA, else adamw.",
    )
    base_learning_rate: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto", description="What learning_rate_multiplier multiplies; auto is 2e-4 for lora, 2e-5 for full."
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="Shape after warm-up.")
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="Share of all steps spent on linear warm-up.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (AdamW).")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this global L2 norm.")
    gradient_checkpointing: Auto | bool = Field(
        default="auto",
        description="Recompute activations in the backward pass; auto turns it on when memory asks for it.",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="Compute type; auto takes the best the device has."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="auto: cuda, then mps, then cpu.")
    keep_dequantized: Auto | bool = Field(
        default="auto",
        description="Hold a 16-bit copy of the nf4 weights: same numbers, faster steps; auto when memory is ample.",
    )
    checkpoint_minutes: float = Field(default=10, gt=0, description="A checkpoint at least this often, in minutes.")
    evals_per_epoch: int = Field(
        default=2, ge=1, le=100, description="Validations in each epoch; each is also a checkpoint."
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest checkpoints kept; the best one is always kept.")
    trust_remote_code: bool = Field(
        default=False, description="Run Python that comes with a hub model. Off unless you trust it."
    )


_DEFAULT_GRADER = StringCheckGrader(
    type="string_check", name="exact", operation="eq", input=ANSWER, reference=REFERENCE
)


class EvaluationSpec(SpecModel):
    """How the judge scores base and tuned answers."""

    graders: list[Grader] = Field(
        default=[_DEFAULT_GRADER],
        min_length=1,
        description="Grader objects in OpenAI's schemas, and three of ours; see the page on graders.",
    )
    baselines: list[Literal["zero_shot", "few_shot"]] = Field(
        default=[], description="More candidates to answer the test items before training, beside base."
    )
    few_shot_examples: int = Field(
        default=4, ge=1, le=64, description="Training examples shown to the few_shot baseline."
    )
    margin: float | None = Field(
        default=None, ge=0, le=1, description="Non-inferiority margin for verdicts of compare."
    )
    max_completion_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    batch_size: int = Field(default=32, ge=1, description="Items answered together.")

    @field_validator("graders")
    @classmethod
    def _names_differ(cls, graders: list[Grader]) -> list[Grader]:
        names = [grader.name for grader in graders]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"grader names must differ; used twice: {', '.join(twice)}")
        return graders


class BudgetSpec(SpecModel):
    """Limits that stop a run instead of letting it spend on."""

    max_usd: float | None = Field(default=None, gt=0, description="Money, in US dollars, over the whole run.")
    max_hours: float | None = Field(default=None, gt=0, description="Wall-clock hours of training.")


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
    fallback: Literal["openai", "local"] | None = Field(
        default=None, description="Where to go when the first provider refuses or fails for good."
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
        if self.local.tuning == "full" and self.local.quantization in ("nf4", "int8"):
            raise ValueError(
                f"local.tuning full cannot train {self.local.quantization} weights; set local.quantization: none"
            )
        return self

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
            text = f"{problem['msg'].removeprefix('Input ')}, not {problem['input']!r}."
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
