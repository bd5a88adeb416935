"""The books of jobs: how a job's object, events, checkpoints, figures and model come to be. Both engines write through this."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from openai.types import Model
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from ftbridge.server.api import files
from ftbridge.server.http.errors import not_found
from ftbridge.server.requests.job import CreateJob
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
CSV_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""The header of OpenAI's result files. Its names are not those of events: accuracy is `train_accuracy` here."""


@dataclass(frozen=True)
class Figures:
    """One step. Losses in nats per trained token, accuracies in 0..1; None where nothing was measured."""

    step: int
    total_steps: int | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    valid_loss: float | None = None
    valid_accuracy: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)
    """A method's own figures by their names, such as `train_mean_reward`."""

    def event_data(self) -> dict[str, Any]:
        """As a metrics event carries them."""
        data = {
            "step": self.step,
            "total_steps": self.total_steps,
            "train_loss": self.train_loss,
            "train_mean_token_accuracy": self.train_accuracy,
            "valid_loss": self.valid_loss,
            "valid_mean_token_accuracy": self.valid_accuracy,
            "full_valid_loss": self.valid_loss,  # validation reads the whole file, every time
            "full_valid_mean_token_accuracy": self.valid_accuracy,
            **{name: value for name, value in self.more.items() if "/" not in name},
            **_nested(self.more),
        }
        return {name: value for name, value in data.items() if value is not None}


def _nested(more: Mapping[str, float]) -> dict[str, Any]:
    """The figures of graders as events of reinforcement hold them: `scores.graders[]` and `errors.graders[]`.

    Their names in result files are `scores/graders/TYPE/NAME/FIGURE` and `errors/graders/TYPE/NAME/errors/FIGURE`.
    """
    graders: dict[str, dict[tuple[str, str], dict[str, Any]]] = {"scores": {}, "errors": {}}
    for path, value in more.items():
        kind, *parts = path.split("/")
        if kind in graders:
            grader, name = parts[1], "/".join(parts[2 : -1 if kind == "scores" else -2])
            entry = graders[kind].setdefault((grader, name), {"name": name, "type": grader})
            entry[parts[-1]] = value
    nested: dict[str, Any] = {kind: {"graders": list(entries.values())} for kind, entries in graders.items() if entries}
    for name, figure in (("train_reward_mean", "train_mean_reward"), ("valid_reward_mean", "full_valid_mean_reward")):
        if "scores" in nested and figure in more:
            nested["scores"][name] = more[figure]
    steps = {name.removesuffix("_duration"): more[name] for name in more if name.endswith("_duration")}
    return nested | ({"timing": {"step": steps}} if steps else {})


def open_job(service: Service, create_job: CreateJob, extra: Mapping[str, Any] | None = None) -> StoredObject:
    """Put a new job in the books, as `validating_files`."""
    name = service.new_id("ftjob-")
    settings = create_job.settings.model_dump(exclude_none=True)
    common = {key: settings["hyperparameters"][key] for key in ("batch_size", "learning_rate_multiplier", "n_epochs")}
    seed = (
        create_job.seed
        if create_job.seed is not None
        else int(service.new_id("")[:6].encode().hex(), 16) % 2_147_483_647
    )
    shown: dict[str, Any] = FineTuningJob(
        object="fine_tuning.job",
        id=name,
        model=create_job.model,
        created_at=service.now(),
        finished_at=None,
        estimated_finish=None,
        fine_tuned_model=None,
        organization_id=service.organization,
        result_files=[],
        status="validating_files",
        training_file=create_job.training_file,
        validation_file=create_job.validation_file,
        hyperparameters=cast(Any, common),
        method=cast(Any, {"type": create_job.kind, create_job.kind: settings}),
        trained_tokens=None,
        error=None,
        seed=seed,
        integrations=[],
        metadata=create_job.metadata,
    ).to_dict(exclude_unset=False, exclude_none=False)
    shown["method"] = {"type": create_job.kind, create_job.kind: settings}
    shown["integrations"] = [part.model_dump(exclude_none=True) for part in create_job.integrations or []]
    shown["user_provided_suffix"] = create_job.suffix
    job = StoredObject("job", name, shown, dict(extra or {}))
    with service.store.change():
        service.store.add(job)
        add_event(service, name, f"Created fine-tuning job: {name}")
        add_event(service, name, f"Validating training file: {create_job.training_file}")
    return job


def find_job(service: Service, name: str) -> StoredObject:
    """A job by id. Raises 404."""
    job = service.store.get("job", name)
    if job is None:
        raise not_found("fine-tuning job", name, "fine_tuning_job_id")
    return job


def is_over(service: Service, name: str) -> bool:
    """Whether a job has ended. An end is final: what comes after it changes nothing."""
    return find_job(service, name).document["status"] in TERMINAL


def change(service: Service, name: str, extra: Mapping[str, Any] | None = None, **fields: Any) -> StoredObject:
    """Set fields of a job's object, and what only the server knows of it."""
    return service.store.update(
        "job",
        name,
        lambda job: replace(job, document={**job.document, **fields}, extra={**job.extra, **(extra or {})}),
    )


def add_event(
    service: Service,
    job: str,
    message: str,
    *,
    level: Literal["info", "warn", "error"] = "info",
    data: Mapping[str, Any] | None = None,
    id: str | None = None,
    at: float | None = None,
) -> None:
    """Add an event; one with figures is of the type metrics. An event whose `id` is there already is not added again."""
    shown: dict[str, Any] = FineTuningJobEvent(
        object="fine_tuning.job.event",
        id=id or service.new_id("ftevent-"),
        created_at=service.now() if at is None else int(at),
        level=level,
        message=message,
        data=dict(data or {}),
        type="metrics" if data else "message",
    ).to_dict()
    service.store.add(StoredObject("event", shown["id"], shown, parent=job))


def set_hyperparameters(service: Service, name: str, **hyperparameters: int | float) -> None:
    """Put numbers in the place of "auto"."""

    def settled(job: StoredObject) -> StoredObject:
        document = dict(job.document)
        kind = document["method"]["type"]
        settings = dict(document["method"][kind])
        settings["hyperparameters"] = {**settings["hyperparameters"], **hyperparameters}
        document["method"] = {"type": kind, kind: settings}
        common = {key: value for key, value in hyperparameters.items() if key in document["hyperparameters"]}
        document["hyperparameters"] = {**document["hyperparameters"], **common}
        return replace(job, document=document)

    service.store.update("job", name, settled)


def model_name(service: Service, job: StoredObject) -> str:
    """`ft:BASE:ORGANISATION:SUFFIX:ID`; the suffix may be empty. A job on a tuned model keeps that one's base."""
    base = job.document["model"]
    base = base.split(":")[1] if base.startswith("ft:") else base
    suffix = re.sub(r"[^a-z0-9-]+", "-", (job.document.get("user_provided_suffix") or "").lower()).strip("-")
    return f"ft:{base}:{service.organization.removeprefix('org-')}:{suffix}:{job.id.removeprefix('ftjob-')[:8]}"


def checkpoint(service: Service, job: StoredObject, figures: Figures, extra: Mapping[str, Any]) -> None:
    """Tell of a checkpoint, once for each step, and let its model be asked."""
    name = f"{model_name(service, job)}:ckpt-step-{figures.step}"
    checkpoint_id = f"ftckpt_{job.id.removeprefix('ftjob-')}-{figures.step}"
    metrics = {key: value for key, value in figures.event_data().items() if key != "total_steps"}
    shown = FineTuningJobCheckpoint(
        id=checkpoint_id,
        created_at=service.now(),
        fine_tuned_model_checkpoint=name,
        fine_tuning_job_id=job.id,
        metrics=cast(Any, metrics),
        object="fine_tuning.job.checkpoint",
        step_number=figures.step,
    ).to_dict()
    with service.store.change():
        if service.store.add(StoredObject("checkpoint", checkpoint_id, shown, parent=job.id)):
            offer(service, name, extra, base=job.document["model"])
            add_event(service, job.id, f"Checkpoint created at step {figures.step}")


def offer(service: Service, name: str, extra: Mapping[str, Any], *, base: str) -> None:
    """Let a tuned model be listed and asked."""
    shown = Model(id=name, created=service.now(), object="model", owned_by=service.organization).to_dict()
    service.store.add(StoredObject("model", name, shown, {**extra, "base": base}))


def succeed(
    service: Service, job: StoredObject, figures: Iterable[Figures], *, trained_tokens: int, extra: Mapping[str, Any]
) -> None:
    """The job is done: its figures as a file, its model offered, its last events, all at once."""
    name = model_name(service, job)
    with service.store.change():
        if is_over(service, job.id):
            return
        content = metrics_csv(list(figures)).encode()
        encoded = bool(extra.get("base64_results"))
        result_file = files.keep_bytes(
            service, content, "step_metrics.csv", "fine-tune-results", {"base64": True} if encoded else None
        )
        offer(service, name, extra, base=job.document["model"])
        add_event(service, job.id, f"New fine-tuned model created: {name}")
        add_event(service, job.id, "The job has successfully completed")
        change(
            service,
            job.id,
            status="succeeded",
            fine_tuned_model=name,
            finished_at=service.now(),
            estimated_finish=None,
            result_files=[result_file.id],
            trained_tokens=trained_tokens,
        )


def fail(service: Service, name: str, code: str, message: str, param: str | None = None) -> None:
    """The job failed. `code` is OpenAI's word where it has one: invalid_training_file, invalid_n_examples, server_error."""
    with service.store.change():
        if is_over(service, name):
            return
        add_event(service, name, f"The job failed: {message}", level="error")
        error = {"code": code, "message": message, "param": param}
        change(service, name, status="failed", error=error, finished_at=service.now(), estimated_finish=None)


def cancelled(service: Service, name: str) -> None:
    """The job was cancelled."""
    with service.store.change():
        if is_over(service, name):
            return
        add_event(service, name, "Fine-tuning job cancelled")
        change(service, name, status="cancelled", finished_at=service.now(), estimated_finish=None)


def metrics_csv(figures: Sequence[Figures]) -> str:
    """A result file: one line a step, blanks where there is no value.

    A method's own figures have columns of their own; where it has no losses (rewards), those columns are left out.
    """
    more = sorted({name for at in figures for name in at.more})
    losses = not figures or any(at.train_loss is not None for at in figures)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*(CSV_COLUMNS if losses else CSV_COLUMNS[:1]), *more))
    for at in figures:
        common = (at.step, at.train_loss, at.train_accuracy, at.valid_loss, at.valid_accuracy)
        row = (*(common if losses else common[:1]), *map(at.more.get, more))
        writer.writerow("" if value is None else value for value in row)
    return out.getvalue()
