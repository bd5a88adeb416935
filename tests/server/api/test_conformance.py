"""Every route against the published interface, and every answer against the SDK's own types, strictly."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import httpx
import openai.types as types
import pytest
from openai.types import batch
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.alpha import GraderRunResponse, GraderValidateResponse
from openai.types.fine_tuning.checkpoints import (
    PermissionCreateResponse,
    PermissionDeleteResponse,
    PermissionListResponse,
)
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.uploads import UploadPart

from ftbridge.server import simulating
from ftbridge.server.api.openapi import BODIES, interface
from ftbridge.server.app import ROUTES as SERVED
from support.published import OBJECTS, ROUTES, problems, wrong_values
from support.service import BASE, CHAT, lines

NOT_SERVED = {"GET /chat/completions"}
"""Stored completions: nothing is stored here."""
BEYOND = {
    "POST /completions",
    "POST /embeddings",
    "POST /responses",
    "GET /responses/{}",
    "DELETE /responses/{}",
    "POST /responses/{}/cancel",
    "GET /responses/{}/input_items",
}
"""Served, and not in the part of the published interface that is written down here; tested with the SDK's own types."""
GRADER = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}", "reference": "{{item.r}}"}  # fmt: skip
BATCH_LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": BASE, "messages": CHAT}}  # fmt: skip


def names(route: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", route)


def test_every_published_route_is_served_and_no_other():
    served = {names(f"{method} {path}") for method, path, _ in SERVED}
    assert served == ({names(route) for route in ROUTES} - NOT_SERVED) | BEYOND


class Walk:
    """Asks every route once, with what the routes before it made."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.origin = str(http.base_url).removesuffix("/").removesuffix("/v1")
        self.responses: dict[str, Any] = {}

    def ask(self, route: str, path: str | None = None, *, keep: str | None = None, **how: Any) -> Any:
        method, where = route.split(" ")
        response = self.http.request(method, path or where, **how)
        assert response.status_code == 200, f"{route}: {response.text}"
        content = response.json() if "json" in response.headers["content-type"] else response.text
        self.responses[keep or route] = content
        return content

    def job(self, file: str, **more: Any) -> str:
        body = {"model": BASE, "training_file": file, **more}
        return str(self.http.post("/fine_tuning/jobs", json=body).json()["id"])

    def wait(self, path: str, *states: str) -> dict[str, Any]:
        for _ in range(600):
            seen: dict[str, Any] = self.http.get(path).json()
            if seen["status"] in states:
                return seen
            # Time passes by this request alone, or nearly: a busy machine cannot miss a state.
            self.http.post(f"{self.origin}/simulator/clock", json={"advance": 0.1}).raise_for_status()
        raise AssertionError(f"{path} never came to {states}: {seen}")


@pytest.fixture
def walk():
    with simulating({"speed": 0.05}) as running, httpx.Client(base_url=running.base_url) as http:
        yield walked(http)


def walked(http: httpx.Client) -> Walk:
    """A walk over every route."""
    walk = Walk(http)
    ask = walk.ask
    form = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = ask("POST /files", data=form, files={"file": ("train.jsonl", lines())})["id"]
    ask("GET /files")
    ask("GET /files/{file_id}", f"/files/{file}")
    ask("GET /files/{file_id}/content", f"/files/{file}/content")
    upload = {"filename": "v.jsonl", "purpose": "fine-tune", "bytes": len(lines()), "mime_type": "text/jsonl"}
    gone = ask("POST /uploads", json=upload)["id"]
    ask("POST /uploads/{upload_id}/cancel", f"/uploads/{gone}/cancel")
    up = ask("POST /uploads", json=upload)["id"]
    part = ask("POST /uploads/{upload_id}/parts", f"/uploads/{up}/parts", files={"data": lines()})["id"]
    result = ask("POST /uploads/{upload_id}/complete", f"/uploads/{up}/complete", json={"part_ids": [part]})
    create = {
        "model": BASE,
        "training_file": file,
        "validation_file": result["file"]["id"],
        "suffix": "mine",
        "seed": 7,
        "metadata": {"team": "support"},
        "integrations": [{"type": "wandb", "wandb": {"project": "p"}}],
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    }
    job = ask("POST /fine_tuning/jobs", json={**create, "validation_file": None})["id"]
    local = f"/fine_tuning/jobs/{job}"
    walk.wait(local, "running")
    ask("POST /fine_tuning/jobs/{fine_tuning_job_id}/pause", f"{local}/pause")
    walk.wait(local, "paused")
    ask("POST /fine_tuning/jobs/{fine_tuning_job_id}/resume", f"{local}/resume")
    done = walk.wait(local, "succeeded")
    ask("GET /fine_tuning/jobs/{fine_tuning_job_id}", local)
    ask("GET /fine_tuning/jobs/{fine_tuning_job_id}/events", f"{local}/events")
    point = ask("GET /fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", f"{local}/checkpoints")["data"][0]
    other = walk.job(file)
    ask("POST /fine_tuning/jobs/{fine_tuning_job_id}/cancel", f"/fine_tuning/jobs/{other}/cancel")
    ask("GET /fine_tuning/jobs", "/fine_tuning/jobs", params={"metadata[team]": "support"})
    where = f"/fine_tuning/checkpoints/{point['fine_tuned_model_checkpoint']}/permissions"
    route = "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions"
    allowed = ask(f"POST {route}", where, json={"project_ids": ["proj_1"]})["data"][0]["id"]
    ask(f"GET {route}", where)
    ask(f"DELETE {route}/{{permission_id}}", f"{where}/{allowed}")
    ask("POST /fine_tuning/alpha/graders/run", json={"grader": GRADER, "model_sample": "x", "item": {"r": "x"}})
    ask("POST /fine_tuning/alpha/graders/validate", json={"grader": GRADER})
    model = done["fine_tuned_model"]
    ask("GET /models")
    ask("GET /models/{model}", f"/models/{model}")
    ask("POST /chat/completions", json={"model": model, "messages": CHAT, "logprobs": True, "top_logprobs": 2})
    ask("DELETE /models/{model}", f"/models/{model}")
    request = json.dumps(BATCH_LINE).encode()
    value = http.post("/files", data={"purpose": "batch"}, files={"file": ("b.jsonl", request)}).json()["id"]
    batch = {"input_file_id": value, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    created = ask("POST /batches", json=batch)["id"]
    walk.wait(f"/batches/{created}", "completed")
    ask("GET /batches/{batch_id}", f"/batches/{created}")
    ask("GET /batches")
    slow = ask("POST /batches", keep="another batch", json=batch)["id"]
    if http.get(f"/batches/{slow}").json()["status"] not in ("completed", "failed"):
        http.post(f"/batches/{slow}/cancel")
    ask("DELETE /files/{file_id}", f"/files/{file}")
    return walk


PAGES = {
    "GET /files": types.FileObject,
    "GET /models": types.Model,
    "GET /batches": batch.Batch,
    "GET /fine_tuning/jobs": FineTuningJob,
    "GET /fine_tuning/jobs/{fine_tuning_job_id}/events": FineTuningJobEvent,
    "GET /fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": FineTuningJobCheckpoint,
    "POST /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions": PermissionCreateResponse,
    "GET /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions": PermissionListResponse,
}
ANSWERS = {
    "POST /files": types.FileObject,
    "GET /files/{file_id}": types.FileObject,
    "DELETE /files/{file_id}": types.FileDeleted,
    "POST /uploads": types.Upload,
    "POST /uploads/{upload_id}/parts": UploadPart,
    "POST /uploads/{upload_id}/complete": types.Upload,
    "POST /uploads/{upload_id}/cancel": types.Upload,
    "POST /fine_tuning/jobs": FineTuningJob,
    "GET /fine_tuning/jobs/{fine_tuning_job_id}": FineTuningJob,
    "POST /fine_tuning/jobs/{fine_tuning_job_id}/cancel": FineTuningJob,
    "POST /fine_tuning/jobs/{fine_tuning_job_id}/resume": FineTuningJob,
    "DELETE /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}": PermissionDeleteResponse,
    "POST /fine_tuning/alpha/graders/run": GraderRunResponse,
    "POST /fine_tuning/alpha/graders/validate": GraderValidateResponse,
    "GET /models/{model}": types.Model,
    "DELETE /models/{model}": types.ModelDeleted,
    "POST /chat/completions": ChatCompletion,
    "POST /batches": batch.Batch,
    "GET /batches/{batch_id}": batch.Batch,
}
UNPUBLISHED_STATES = {"POST /fine_tuning/jobs/{fine_tuning_job_id}/pause"}
"""`pausing` and `paused` are in the service's examples and in neither the schema's list nor the SDK's."""


def test_every_answer_is_of_its_published_shape(walk):
    request = {names(route) for route in walk.responses}
    missing = {names(route) for route in ROUTES} - request - NOT_SERVED - {"POST /batches/{}/cancel"}
    assert missing == set()
    wrong = {}
    for route, content in walk.responses.items():
        if route in ROUTES and (result := problems(content, ROUTES[route]["answer"], route)):
            wrong[route] = result
    assert set(wrong) == UNPUBLISHED_STATES & set(wrong), wrong
    assert all(len(result) == 1 and ".status" in result[0] for result in wrong.values())


def test_the_sdks_own_types_accept_every_answer_strictly(walk):
    for route, model in ANSWERS.items():
        model.model_validate(walk.responses[route], strict=True)
    for route, model in PAGES.items():
        assert walk.responses[route]["data"], route
        for entry in walk.responses[route]["data"]:
            model.model_validate(entry, strict=True)
    assert set(walk.responses) - set(ANSWERS) - set(PAGES) == {
        "GET /files/{file_id}/content",
        "another batch",
        *UNPUBLISHED_STATES,
    }


def test_every_piece_of_a_stream_is_of_its_published_shape(http):
    body = {"model": BASE, "messages": CHAT, "stream": True, "stream_options": {"include_usage": True}, "n": 2}
    text = http.post("/chat/completions", json=body).text
    messages = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert messages[-1] == "[DONE]"
    for line in messages[:-1]:
        piece = json.loads(line)
        assert problems(piece, ROUTES["POST /chat/completions"]["stream"]) == []
        ChatCompletionChunk.model_validate(piece, strict=True)
    assert json.loads(messages[-2])["usage"]["completion_tokens"] == 4


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "POST /fine_tuning/jobs": ("/fine_tuning/jobs", {"model": BASE, "training_file": "FILE"}),
    "POST /uploads": ("/uploads", {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"}),
    "POST /batches": ("/batches", {"input_file_id": "FILE", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    "POST /chat/completions": ("/chat/completions", {"model": BASE, "messages": CHAT}),
    "POST /fine_tuning/alpha/graders/run": ("/fine_tuning/alpha/graders/run", {"grader": GRADER, "model_sample": "x"}),
    "POST /fine_tuning/alpha/graders/validate": ("/fine_tuning/alpha/graders/validate", {"grader": GRADER}),
}  # fmt: skip


def cases():
    for route, (path, good) in GOOD.items():
        fields = OBJECTS[ROUTES[route]["body"]]
        for field, type in fields.items():
            key = field.rstrip("?")
            if not field.endswith("?"):
                yield pytest.param(path, {k: v for k, v in good.items() if k != key}, key, id=f"{route} without {key}")
            for value in wrong_values(type):
                yield pytest.param(path, {**good, key: value}, key, id=f"{route} {key}={str(value)[:30]}")
        yield pytest.param(path, {**good, "no_such_field": 1}, "no_such_field", id=f"{route} unknown")


@pytest.fixture(scope="module")
def one_server():

    with simulating() as running, httpx.Client(base_url=running.base_url) as http:
        yield running, http


@pytest.mark.parametrize(("path", "body", "key"), cases())
def test_what_is_not_published_is_refused_and_named(one_server, path, body, key):
    running, http = one_server
    before = running.jobs
    response = http.post(path, json=body)
    assert response.status_code == 400, response.text
    assert problems(response.json(), "ErrorResponse") == []
    assert key in (response.json()["error"]["param"] or response.json()["error"]["message"])
    assert running.jobs == before


def test_every_published_field_of_a_request_is_known():
    for route, model in BODIES.items():
        published = ROUTES.get(route.replace("{checkpoint}", "{fine_tuned_model_checkpoint}"))
        fields = OBJECTS[published["body"]] if published else {}
        expected_names = {field.alias or name for name, field in model.model_fields.items()}
        assert {field.rstrip("?") for field in fields} - expected_names == set(), route


def test_the_served_openapi_page_is_itself_valid(http):
    root = str(http.base_url).removesuffix("/v1/").removesuffix("/v1")
    document = httpx.get(f"{root}/openapi.json").json()
    assert document == json.loads(json.dumps(interface()))
    assert len([1 for methods in document["paths"].values() for _ in methods]) == len(SERVED)
    references = re.findall(r'"\$ref": "#([^"]+)"', json.dumps(document))
    for reference in references:
        where = document
        for part in reference.strip("/").split("/"):
            where = where[part]
    assert len(references) > 20
    page = httpx.get(f"{root}/").text
    assert all(path in page for path in document["paths"])
    assert "default-src 'none'" in html.unescape(page)
