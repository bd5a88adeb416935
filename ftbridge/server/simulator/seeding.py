"""An account put into a store: jobs, files, checkpoints, events, models and stored completions as the service shows them."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openai.types import Model
from openai.types.fine_tuning import FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.rule import Method
from ftbridge.server.jobs_store import Figures, metrics_csv
from ftbridge.server.simulator.account import Account, AccountJob, AccountStored, job_number, moment
from ftbridge.server.simulator.training import curve
from ftbridge.server.store import StoredObject

if TYPE_CHECKING:
    from ftbridge.server.service import Service

_HOUR = 3600


def seed(service: Service, account: Account, start: float) -> None:
    """Put everything into the service's store, once: what is there already stays as it is."""
    service.files.mkdir(parents=True, exist_ok=True)
    with service.store.change():
        for number in range(account.filler_jobs):
            service.store.add(_filler(account, number, start))
        for job in account.jobs:
            _job(service, account, job, start)
        for index, stored in enumerate(account.stored):
            for stored_object in _stored(account, stored, index, start):
                service.store.add(stored_object)
        for name, one in account.models.items():
            for project in one.shared_with:
                shown = {"id": f"cp_{project}", "object": "checkpoint.permission", "project_id": project}
                stored_object = StoredObject(
                    "permission", f"cp_{project}{len(name)}", {**shown, "created_at": int(start)}
                )
                service.store.add(
                    StoredObject("permission", stored_object.id, stored_object.document, parent=account.name_of(name))
                )


def _job(service: Service, account: Account, job: AccountJob, start: float) -> None:
    """A job of the account with all that belongs to it: files, result, model, checkpoints and events."""
    created = moment(job.created, start)
    finished = created + _HOUR
    succeeded = job.status == "succeeded"
    tuned = account.tuned(job) if succeeded else None
    training = _file(service, job, "training", created)
    validation = _file(service, job, "validation", created) if job.validation is not None else None
    figures = list(curve(job.seed, job.steps, max(1, job.steps // 3), validation is not None, job.method))
    shown = {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": account.tuned(account.job(job.continues)) if job.continues is not None else job.model,
        "created_at": created,
        "finished_at": finished,
        "estimated_finish": None,
        "fine_tuned_model": tuned,
        "organization_id": account.organization,
        "result_files": [_result_file(service, job, figures, finished)] if succeeded else [],
        "status": job.status,
        "training_file": training,
        "validation_file": validation,
        "trained_tokens": _trained_tokens(job) if succeeded else None,
        "error": {} if succeeded else {"code": "server_error", "message": "The job failed.", "param": None},
        "seed": job.seed,
        "integrations": job.integrations,
        **_settings(job),
    }
    service.store.add(StoredObject("job", job.id, shown, {"project": job.project}))
    if tuned is not None:
        _offer(service, job, tuned, finished)
        _checkpoints(service, job, tuned, figures, created)
    _events(service, job, figures, created)


def _result_file(service: Service, job: AccountJob, figures: Sequence[Figures], finished: int) -> str:
    """The id of the job's file of figures; the file itself is there unless the account says that it is gone."""
    name = f"file-{job_number(job.id)}results"
    if job.results != "gone":
        content = metrics_csv(figures).encode()
        if job.results == "base64":
            content = base64.b64encode(content)
        (service.files / name).write_bytes(content)
        shown = _file_object(name, len(content), finished, "step_metrics.csv", "fine-tune-results")
        service.store.add(StoredObject("file", name, shown, {"project": job.project}))
    return name


def _checkpoints(service: Service, job: AccountJob, tuned: str, figures: Sequence[Figures], created: int) -> None:
    points = [at for at in figures if at.step % max(1, job.steps // 3) == 0][-3:]
    for at in points[len(points) - job.checkpoints :]:
        name = f"{tuned}:ckpt-step-{at.step}"
        point = FineTuningJobCheckpoint(
            id=f"ftckpt_{job_number(job.id)}{at.step}",
            created_at=created + at.step,
            fine_tuned_model_checkpoint=name,
            fine_tuning_job_id=job.id,
            metrics={key: value for key, value in at.event_data().items() if key != "total_steps"},
            object="fine_tuning.job.checkpoint",
            step_number=at.step,
        ).to_dict()
        service.store.add(StoredObject("checkpoint", str(point["id"]), point, parent=job.id))
        _offer(service, job, name, created + at.step)


def _events(service: Service, job: AccountJob, figures: Sequence[Figures], created: int) -> None:
    lines = [("Created fine-tuning job: " + job.id, {}), *((f"Step {at.step}", at.event_data()) for at in figures)]
    lines.append((f"The job ended: {job.status}", {}))
    for index, (text, data) in enumerate(lines):
        event = FineTuningJobEvent(
            object="fine_tuning.job.event",
            id=f"ftevent-{job_number(job.id)}{index:05}",
            created_at=created + index,
            level="info",
            message=text,
            data=data,
            type="metrics" if data else "message",
        ).to_dict()
        service.store.add(StoredObject("event", str(event["id"]), event, parent=job.id))


def _trained_tokens(job: AccountJob) -> int:
    """Tokens of the training file times epochs, as the service bills them."""
    epochs = job.hyperparameters.get("n_epochs")
    tokens = _tokens_of(job.training, job.method) if job.training is not None else job.steps * 900
    return tokens * (epochs if isinstance(epochs, int) else 1)


@lru_cache(maxsize=64)
def _tokens_of(path: Path, method: Method) -> int:
    return lint([path], Options(method=method, keep=1, jobs=1)).files[0].tokens or 0


def _settings(job: AccountJob) -> dict[str, Any]:
    """Hyperparameters where the year of the job has them."""
    common = {
        name: value
        for name, value in job.hyperparameters.items()
        if name in ("n_epochs", "batch_size", "learning_rate_multiplier")
    }
    if job.shape == "old":
        return {"hyperparameters": common}
    section: dict[str, Any] = {"hyperparameters": job.hyperparameters}
    if job.grader is not None:
        section["grader"] = job.grader
    return {
        "hyperparameters": common if job.method == "supervised" else None,
        "method": {"type": job.method, job.method: section},
        "metadata": job.metadata,
        "user_provided_suffix": job.suffix or None,
        "usage_metrics": None,
        "shared_with_openai": False,
    }


def _file(service: Service, job: AccountJob, role: str, created: int) -> str:
    """The id of a job's file; the file is there unless it is gone."""
    id = f"file-{job_number(job.id)}{role}"
    source: Path | None = getattr(job, role)
    state = getattr(job, f"{role}_is")
    if source is None or state == "gone":
        return id
    path = service.files / id
    if not path.exists():
        shutil.copyfile(source, path)
    shown = _file_object(id, path.stat().st_size, created - 60, source.name, "fine-tune")
    service.store.add(StoredObject("file", id, shown, {"project": job.project, "refused": state == "refused"}))
    return id


def _file_object(id: str, size: int, created: int, name: str, purpose: str) -> dict[str, Any]:
    return {
        "object": "file",
        "id": id,
        "purpose": purpose,
        "filename": name,
        "bytes": size,
        "created_at": created,
        "expires_at": None,
        "status": "processed",
        "status_details": None,
    }


def _offer(service: Service, job: AccountJob, name: str, created: int) -> None:
    shown = Model(id=name, created=created, object="model", owned_by=service.organization).to_dict()
    service.store.add(StoredObject("model", name, shown, {"project": job.project, "base": job.model}))


def _filler(account: Account, number: int, start: float) -> StoredObject:
    project = next(iter(account.known_projects()), "proj_default")
    shown = {
        "object": "fine_tuning.job",
        "id": f"ftjob-filler{number:06}",
        "model": "gpt-3.5-turbo-0125",
        "created_at": int(start) - 400 * 86_400 + number,
        "finished_at": int(start) - 400 * 86_400 + number + 60,
        "fine_tuned_model": None,
        "organization_id": account.organization,
        "result_files": [],
        "status": "failed",
        "training_file": f"file-filler{number:06}",
        "validation_file": None,
        "hyperparameters": {"n_epochs": "auto"},
        "trained_tokens": None,
        "error": {"code": "invalid_training_file", "message": "The file is gone.", "param": "training_file"},
        "seed": 1,
    }
    return StoredObject("job", shown["id"], shown, {"project": project})  # type: ignore[arg-type]


def _stored(account: Account, stored: AccountStored, index: int, start: float) -> Iterator[StoredObject]:
    """Stored completions with their messages, oldest first."""
    model = account.name_of(stored.model)
    lines = _lines(stored)
    project = account.job(stored.model).project if stored.model.startswith("ftjob-") else None
    for number, (messages, completion) in enumerate(lines):
        created = moment(stored.newest, start) - (len(lines) - 1 - number) * _HOUR
        id = f"chatcmpl-stored{index}{number:05}"
        message: dict[str, Any] = {"role": "assistant", "content": completion, "refusal": None, "annotations": []}
        if stored.content == "null":
            message["content"] = None
        elif stored.content == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        shown = completion_object(id, created, model, message, stored.metadata, stored.temperature)
        shown |= {"tools": stored.tools, "response_format": stored.response_format}
        yield StoredObject("completion", id, shown, {"project": project} if project else {})
        for order, one in enumerate(messages):
            yield message_of(id, order, _pictured(one, stored) if one.get("role") == "user" else one)


def completion_object(
    id: str, created: int, model: str, message: dict[str, Any], metadata: dict[str, str], temperature: float | None
) -> dict[str, Any]:
    """A stored completion as the list shows it: without its input."""
    return {
        "object": "chat.completion",
        "id": id,
        "model": model,
        "created": created,
        "request_id": f"req_{id.removeprefix('chatcmpl-')}",
        "tool_choice": None,
        "usage": {"prompt_tokens": 60, "completion_tokens": 8, "total_tokens": 68},
        "seed": None,
        "top_p": 1.0,
        "temperature": temperature,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "system_fingerprint": "fp_scripted",
        "input_user": None,
        "service_tier": "default",
        "tools": None,
        "metadata": metadata,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "response_format": None,
    }


def message_of(completion: str, order: int, message: dict[str, Any]) -> StoredObject:
    """One message of a stored completion's input."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    text = "".join(part.get("text", "") for part in parts if isinstance(part, dict)) if parts is not None else content
    shown = {**message, "id": f"{completion}-{order}", "content": text, "content_parts": parts}
    return StoredObject("message", str(shown["id"]), shown, parent=completion)


def _pictured(message: dict[str, Any], stored: AccountStored) -> dict[str, Any]:
    if stored.image == "none":
        return message
    image = {"url": "data:image/png;base64,iVBORw0KGgo="} if stored.image == "kept" else {"url": None}
    parts = [{"type": "text", "text": message["content"]}, {"type": "image_url", "image_url": image}]
    return {**message, "content": parts}


def _lines(stored: AccountStored) -> list[tuple[list[dict[str, Any]], str | None]]:
    if stored.prompts is None:
        return [
            ([{"role": "user", "content": f"Question {number} of a client"}], f"Completion {number}")
            for number in range(stored.count)
        ]
    lines = []
    with stored.prompts.open(encoding="utf-8") as stream:
        for line in stream:
            messages = json.loads(line)["messages"]
            last = messages[-1] if messages[-1]["role"] == "assistant" else None
            lines.append((messages[:-1] if last else messages, last.get("content") if last else None))
            if len(lines) >= stored.count:
                break
    return lines
