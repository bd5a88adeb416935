"""From a job of a client to a job spec, by the one function that reads job objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ftbridge.errors import ModelUnavailable, UsageError
from ftbridge.providers import map_fields, resolve
from ftbridge.providers.local.models.find import BUILT_IN, find_model
from ftbridge.providers.local.request import LocalRequest
from ftbridge.server.store import StoredObject
from ftbridge.spec import JobSpec
from ftbridge.spec.from_openai import spec_from_job


def spec_of(job: StoredObject, model: str, files: Path, settings: Mapping[str, Any]) -> JobSpec:
    """The run of a job. It is named by the job's id, so that it is found again. `settings` is the spec's `local` section."""
    shown = job.document
    validation = shown["validation_file"]
    return spec_from_job(
        shown,
        train=str(files / shown["training_file"]),
        validation=str(files / validation) if validation else None,
        local=model,
        name=job.id,
        settings=_of_method(settings, shown["method"]["type"]),
        keeps_multiplier=True,
    ).spec


def base_request(model: str, settings: Mapping[str, Any]) -> LocalRequest:
    """How a base model is loaded for answering: as a job with these settings would load it."""
    document = {
        "name": "serve",
        "data": {"train": "unused"},
        "model": {"local": model},
        "local": _of_method(settings, "supervised"),
    }
    resolved = resolve(JobSpec.from_dict(document), 100, "local")
    return LocalRequest.of(map_fields(resolved, "local").lowering.request)


def check_models(models: Iterable[str]) -> None:
    """Raise `UsageError` for a base model that no request could load. Nothing is fetched: a hub id is taken at its word."""
    for name in models:
        path = Path(name).expanduser()
        is_model = (path / "config.json").is_file() or (path.is_file() and path.suffix.lower() == ".gguf")
        if is_model or any(name.lower() in (alias, model.hub_id.lower()) for alias, model in BUILT_IN.items()):
            continue
        if re.fullmatch(_HUB_ID, name) and not name.lower().endswith(".gguf") and not path.exists():
            continue
        try:
            find_model(name)
        except ModelUnavailable as error:
            raise UsageError(
                f"{name!r} cannot be served: {error.message}",
                hint="A model is a folder with config.json, a .gguf file, a hub id (OWNER/NAME), the built-in "
                f"{', '.join(BUILT_IN)}, or a run, with --map NAME=run:ID (`ftbridge list` shows them).",
            ) from None


_HUB_ID = r"\w[\w.-]*/\w[\w.-]*"


def _of_method(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The settings of the server without the sections of other methods: it trains by any."""
    others = {"dpo", "reinforcement"} - {method}
    return {name: value for name, value in settings.items() if name not in others}
