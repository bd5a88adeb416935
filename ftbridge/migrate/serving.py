"""What `ftbridge migrate serve` needs to know: which run stands for which model, and what clients asked those models for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ftbridge import files
from ftbridge.errors import RunNotFound, UsageError
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.loading import stored_completions
from ftbridge.runs import store

MOST_LOOKED_AT = 500
"""Newest stored requests of each model that are looked at."""


def accepted(migration: Migration) -> dict[str, str]:
    """The run that stands for each model: that of its newest proof, where the proof was met."""
    newest = {str(event.data["model"]): event.data for event in migration.of("proved")}
    return {model: str(data["run"]) for model, data in newest.items() if data["ok"]}


def chosen(migration: Migration, models: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Names and runs to serve: those that are named, else every model with a proof that was met; and notes on them.

    Raises `UsageError` where nothing is named and nothing is proven.
    """
    proven = accepted(migration)
    if not models and not proven:
        raise UsageError(
            f"no model of the migration {migration.name!r} has a replacement whose proof was met.",
            hint="Prove one: ftbridge migrate prove MODEL RUN; or name it yourself: --map 'ft:…=RUN'.",
        )
    served = dict(models) or proven
    notes = [
        f"{name} has no proof that {run} is not worse."
        for name, run in served.items()
        if proven.get(name) != run_id(run)
    ]
    return served, notes + _unmapped_checkpoints(migration, served)


def run_id(text: str) -> str:
    """The id of the run that `text` names: an id, the beginning of one, or latest; `text` itself where it names none.

    A checkpoint (`RUN@STEP`) is not a run: what was proven of the run's model was not proven of it.
    """
    name = text.removeprefix("run:")
    try:
        return store.find(files.home(), name).id
    except RunNotFound:
        return name


def client_requests(migration: Migration, models: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Requests of clients to these models, newest first, as bodies: stored completions with what is known of their inputs."""
    for name in models:
        for index, completion in enumerate(stored_completions(migration, name)):
            if index == MOST_LOOKED_AT:
                break
            messages = list(completion.messages or ()) or [{"role": "user", "content": "(not downloaded)"}]
            body = {**completion.request, "model": name, "messages": messages}
            choices = completion.raw.get("choices")
            if isinstance(choices, list) and len(choices) > 1:
                body["n"] = len(choices)
            if completion.logprobs is not None:
                body["logprobs"] = True
            yield body


def _unmapped_checkpoints(migration: Migration, served: Mapping[str, str]) -> list[str]:
    """Checkpoints that clients used, of models that are served under their last name only."""
    used = {completion.model for completion in stored_completions(migration)}
    mapped = {name.split(":ckpt-step-")[0] for name in served}
    missing = sorted(
        name for name in used if ":ckpt-step-" in name and name not in served and name.split(":ckpt-step-")[0] in mapped
    )
    return [f"Clients used {name}, which is not served: add --map '{name}=RUN'." for name in missing]
