"""Read job specs: YAML, TOML, JSON or a plain mapping, with `key.path=value` overrides, and relative paths made absolute."""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ftbridge import strict_json
from ftbridge.errors import FormerName, SpecError, UsageError
from ftbridge.spec.job import JobSpec
from ftbridge.spec.problems import first_problem
from ftbridge.spec.sections import RENAMED, SpecModel, former_names_in


@dataclass(frozen=True)
class SpecFile:
    """A validated spec, its text as written, the suffix of its format, and the folder its paths are relative to."""

    spec: JobSpec
    text: str
    suffix: str
    base: Path

    @classmethod
    def of(cls, source: JobSpec | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> SpecFile:
        """From a spec file, a plain mapping, or a `JobSpec`; relative paths are relative to the file, or the folder now."""
        if isinstance(source, (str, Path)):
            spec, text = load(source, overrides)
            suffix = Path(source).suffix
            if overrides:
                text, suffix = _as_json(spec), ".json"
            base = Path(source).resolve().parent
            return cls(_anchored(spec, base), text, suffix, base)
        if overrides:
            raise UsageError("overrides apply to spec files; change the JobSpec instead.")
        if not isinstance(source, JobSpec):
            _note_former_names(source, "spec")
        spec = source if isinstance(source, JobSpec) else JobSpec.from_dict(dict(source))
        return cls(_anchored(spec, Path.cwd()), _as_json(spec), ".json", Path.cwd())


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
    _note_former_names(document, str(path))
    return JobSpec.from_dict(document, where=str(path)), text


S = TypeVar("S", bound=SpecModel)


def override_section(section: S, name: str, overrides: Sequence[str]) -> S:
    """A section with `NAME.key=value` overrides applied. Raises `UsageError` for other keys, `SpecError` for bad values."""
    document: dict[str, Any] = {name: section.model_dump(mode="json", exclude_unset=True)}
    for override in overrides:
        if not override.startswith(f"{name}."):
            raise UsageError(f"--set {override}: only {name}.* can be changed here; any other change needs a new run.")
        _apply(document, override)
    try:
        return type(section).model_validate(document[name])
    except ValidationError as error:
        raise SpecError(f"{first_problem(error, name)}.") from None


def parse(text: str, suffix: str, where: str) -> dict[str, Any]:
    """Parse spec text by its file suffix into a plain mapping. Raises `SpecError`."""
    try:
        if suffix == ".json":
            document = strict_json.loads(text)
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


def _kind(value: object) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), type(value).__name__)


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {override}: write it as key.path=value, such as hyperparameters.n_epochs=2.")
    *parents, last = key.split(".")
    last = RENAMED.get(key, last)
    node = document
    for parent in parents:
        inner = node.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {override}: {parent} is not a mapping in this spec.")
        node = inner
    for former, present in former_names_in(".".join(parents)).items():
        if present == last:
            node.pop(former, None)
    try:
        node[last] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        node[last] = value


def _note_former_names(document: Mapping[str, Any], where: str) -> None:
    """Warn, as `FormerName`, of each field that a spec calls by its former name."""
    for path, present in RENAMED.items():
        section, _, former = path.partition(".")
        if isinstance(document.get(section), Mapping) and former in document[section]:
            note = f"{where}: {path} is now {section}.{present}; the former name will be removed in version 0.3."
            warnings.warn(FormerName(note), stacklevel=4)


def _anchored(spec: JobSpec, base: Path) -> JobSpec:
    """The spec with paths that are relative to it made absolute; a model's name that is not a path stays as it is."""
    if (local := spec.model.local) is not None and (base / local).exists():
        model = spec.model.model_copy(update={"local": str((base / local).resolve())})
        spec = spec.model_copy(update={"model": model})
    if (adapter := spec.local.lora.continue_from) is not None:
        lora = spec.local.lora.model_copy(update={"continue_from": str((base / adapter).resolve())})
        spec = spec.model_copy(update={"local": spec.local.model_copy(update={"lora": lora})})
    evaluation = spec.evaluation
    if evaluation.documents is not None:
        evaluation = evaluation.model_copy(update={"documents": str((base / evaluation.documents).resolve())})
    if (retention := evaluation.retention) is not None and retention.canaries is not None:
        retention = retention.model_copy(update={"canaries": str((base / retention.canaries).resolve())})
        evaluation = evaluation.model_copy(update={"retention": retention})
    return spec if evaluation is spec.evaluation else spec.model_copy(update={"evaluation": evaluation})


def _as_json(spec: JobSpec) -> str:
    return json.dumps(spec.model_dump(mode="json", exclude_unset=True), indent=2, ensure_ascii=False) + "\n"
