"""An OpenAI fine-tuning job object as a `JobSpec`, with a report on each of its fields.

    job object ─▶ JobReader ─┬─▶ its values ─┐
                             │  the caller's ┴─▶ JobSpec ─┐
                             └─▶ JobField for every leaf ─┴─▶ the same, checked against the spec

    kept            the spec has the same value
    translated      the spec says the same in its own terms
    not_portable    it has no meaning elsewhere, or is a record of the old job; the reason says which

The server reads jobs of its own clients through the same function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.spec import JobSpec
from ftbridge.spec.job_object import JobField, JobReader


class JobImport(BaseModel):
    """What a job object becomes."""

    model_config = ConfigDict(frozen=True)

    spec: JobSpec
    fields: list[JobField] = Field(description="One entry for each leaf of the job object, in its order.")


def spec_from_job(
    job: Mapping[str, Any],
    *,
    train: str | Sequence[str],
    validation: str | None = None,
    test: str | None = None,
    local: str | None = None,
    hosted: str | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    keeps_multiplier: bool = False,
) -> JobImport:
    """The spec of a job, and a report on each of its fields.

    `train`, `validation` and `test` are paths: a job object holds only file ids. `local` and `hosted` are the base models to
    train; `hosted` defaults to the job's own. `settings` is the spec's `local` section, `evaluation` its section of that name;
    both win over what the job says. With `keeps_multiplier` the learning rate multiplier is meant for the same base rate, as
    that of a job which is created here; else it is the old service's own and left at "auto".
    Raises `SpecError` when the job names no method that the spec knows, or when the outcome is not a valid spec.
    """
    reader = JobReader(job, keeps_multiplier)
    reader.read(train=train, validation=validation)
    spec = dict(reader.spec)
    data: dict[str, Any] = {"train": train if isinstance(train, str) else list(train), "format": "jsonl"}
    data |= {split: path for split, path in (("validation", validation), ("test", test)) if path is not None}
    model = {"openai": hosted or str(job.get("model") or "") or None, "local": local}
    spec["name"] = name or _name(job, spec.get("suffix"))
    spec["data"] = data
    spec["model"] = {side: value for side, value in model.items() if value is not None}
    spec["local"] = {**spec.get("local", {}), **(settings or {})}
    if evaluation:
        spec["evaluation"] = {**spec.get("evaluation", {}), **evaluation}
    created = JobSpec.from_dict(spec, where=str(job.get("id") or "the job"))
    document = created.model_dump(mode="json", exclude_unset=True)
    fields = [_checked(entry, reader.spec, spec, document) for entry in reader.fields]
    return JobImport(spec=created, fields=fields)


def fields_after(
    fields: Sequence[JobField], before: JobSpec, after: JobSpec, *, why: Mapping[str, str] | None = None
) -> list[JobField]:
    """The report once a spec was changed: a value that is no longer there is reported as not portable.

    `before` is the spec that `fields` report on, `after` the changed one. `why` gives reasons by the path that the spec
    lacks now.
    """
    documents = [spec.model_dump(mode="json", exclude_unset=True) for spec in (before, after)]
    changed = []
    for entry in fields:
        earlier, now = (_at(document, entry.spec or "") for document in documents)
        if entry.spec is not None and (now is _ABSENT or now != earlier):
            entry = _lost(entry, now, (why or {}).get(entry.spec) if now is _ABSENT else None)
        changed.append(entry)
    return changed


def _checked(
    entry: JobField, read: Mapping[str, Any], merged: Mapping[str, Any], document: Mapping[str, Any]
) -> JobField:
    """An entry of the report, held against the spec that was made: what is not there was not carried over.

    `read` is what the job says in the spec's terms, `merged` that with the caller's own settings, which win, `document` the
    spec.
    """
    if entry.spec is None:
        return entry
    now = _at(document, entry.spec)
    source, written = _at(read, entry.spec), _at(merged, entry.spec)
    is_replaced = source is not _ABSENT and source != written
    is_other = entry.outcome == "kept" and written is not _ABSENT and written != entry.value
    return _lost(entry, now) if now is _ABSENT or is_replaced or is_other else entry


def _lost(entry: JobField, now: Any, why: str | None = None) -> JobField:
    """An entry whose value is not in the spec. `now` is what the spec has at its path."""
    if why is None:
        why = "the spec leaves it at its default" if now is _ABSENT else f"the spec has {_brief(now)} instead"
    return entry.model_copy(update={"outcome": "not_portable", "spec": None, "reason": why})


_ABSENT = object()
"""What a document has at a path that it lacks."""


def _at(document: Any, path: str) -> Any:
    """The value at a dotted path, or `_ABSENT`; keys may have dots in them, as those of metadata do."""
    if not isinstance(document, Mapping):
        return _ABSENT
    if path in document:
        return document[path]
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        inner = document.get(".".join(parts[:count]), _ABSENT)
        if inner is not _ABSENT and (value := _at(inner, ".".join(parts[count:]))) is not _ABSENT:
            return value
    return _ABSENT


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


_SHOWN = 60
"""Characters of a value that a reason shows."""


def _name(job: Mapping[str, Any], suffix: str | None) -> str:
    """A name for runs of this spec: the suffix, else the job's id, in the characters that names have."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", suffix or str(job.get("id") or "")).strip("-._")[:64]
    return text or "migrated"
