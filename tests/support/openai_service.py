"""A service that speaks OpenAI's dialect over real HTTP on loopback, with faults on order. Strict where OpenAI is.

A fault is {"route": "POST /fine_tuning/jobs", "nth": 1, "kind": KIND}; ids in routes are written as ID. Kinds: an HTTP status
("429", with "code", "message", "retry_after"), "reset_before" and "reset_after" the effect, "cut_after", "html_after",
"slow_after".
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

CREATE_FIELDS = {"model", "training_file", "validation_file", "method", "hyperparameters", "suffix", "seed", "integrations", "metadata"}  # fmt: skip
CSV = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,1.5,0.5,,\n2,1.0,0.75,1.25,0.5\n"


@dataclass
class Service:
    """What it holds, and how it behaves."""

    models: dict[str, Any] = field(default_factory=lambda: {"gpt-test": {"owned_by": "openai"}})
    statuses: list[str] = field(default_factory=lambda: ["validating_files", "queued", "running", "succeeded"])
    faults: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    keeps_metadata: bool = True
    lag: int = 0
    base64_results: bool = True
    tell_metrics: bool = True
    file_status: str | None = "processed"
    job_error: Any = field(default_factory=lambda: {"code": None, "message": None, "param": None})
    answer_seconds: float = 0.0
    most_in_flight: int | None = None
    unloaded: int = 0
    extra_fields: set[str] = field(default_factory=set)
    refuses_temperature: bool = False
    chat_instead: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """By the text of a prompt: the status and body that it is answered with."""
    redirect_to: str | None = None
    keeps_batch_metadata: bool = True
    lists_forever: bool = False

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    in_flight: int = 0
    seen_in_flight: int = 0
    created: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        service = self

        class Handler(_Handler):
            at = service

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault(self, route: str) -> dict[str, Any] | None:
        with self.lock:
            self.requests[route] += 1
            for fault in self.faults:
                if fault["route"] == route and fault.get("nth", 1) == self.requests[route]:
                    return fault
        return None

    def new(self, kind: str) -> tuple[str, int]:
        self.created += 1
        return f"{kind}-{self.created:04d}", 1_700_000_000 + self.created

    # files

    def add_file(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        made, at = self.new("file")
        self.contents[made] = content
        self.files[made] = {
            "id": made, "object": "file", "bytes": len(content), "created_at": at, "filename": name,
            "purpose": purpose, "status": self.file_status,
            "status_details": "line 3 is not a dictionary" if self.file_status == "error" else None, "_lag": self.lag,
        }  # fmt: skip
        return self.files[made]

    # jobs

    def create_job(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.bodies.append(body)
        if self.closed:
            return 403, _error("the platform is being wound down; no new training jobs", "training_not_available")
        if unknown := set(body) - CREATE_FIELDS - self.extra_fields:
            return 400, _error(f"extra fields not permitted: {sorted(unknown)}", "unknown_parameter")
        if body["training_file"] not in self.files:
            return 400, _error("no such file", "invalid_file")
        made, at = self.new("ftjob")
        job = {
            "object": "fine_tuning.job", "id": made, "created_at": at, "finished_at": None, "fine_tuned_model": None,
            "hyperparameters": body.get("hyperparameters"), "model": body["model"], "organization_id": "org-1",
            "result_files": [], "seed": body.get("seed"), "status": "validating_files", "trained_tokens": None,
            "training_file": body["training_file"], "validation_file": body.get("validation_file"),
            "method": body.get("method"), "metadata": body.get("metadata") if self.keeps_metadata else None,
            "error": {}, "user_provided_suffix": body.get("suffix"), "_at": 0, "_lag": self.lag,
        }  # fmt: skip
        self.jobs[made] = job
        self.events[made] = []
        self.say(made, "created the job")
        return 200, job

    def say(self, job: str, message: str, data: dict[str, Any] | None = None) -> None:
        made, at = self.new("ftevent")
        kind = "metrics" if data else "message"
        told = {"object": "fine_tuning.job.event", "id": made, "created_at": at, "level": "info", "message": message}
        self.events[job].insert(0, {**told, "data": data, "type": kind})

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        """Each look at a job takes it one status further."""
        if job["status"] in ("succeeded", "failed", "cancelled", "paused"):
            return job
        place = job["_at"]
        job["status"] = self.statuses[min(place, len(self.statuses) - 1)]
        job["_at"] += 1
        if job["status"] == "running" and self.tell_metrics and not job.get("_told"):
            job["_told"] = True
            for step in (1, 2):
                data = {"step": step, "total_steps": 2, "train_loss": 2.0 / step, "train_mean_token_accuracy": step / 4}
                self.say(job["id"], f"Step {step}/2", data)
        if job["status"] == "succeeded":
            job["fine_tuned_model"] = f"ft:{job['model']}:org::{job['id'][-4:]}"
            self.models[job["fine_tuned_model"]] = {"owned_by": "org"}
            job["trained_tokens"] = 4480
            content = base64.b64encode(CSV.encode()) if self.base64_results else CSV.encode()
            job["result_files"] = [self.add_file("step_metrics.csv", "fine-tune-results", content)["id"]]
            self.say(job["id"], "the job is done")
        if job["status"] == "failed":
            job["error"] = self.job_error
        return job

    def chat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["model"] not in self.models:
            return 404, _error(f"no model {body['model']}", "model_not_found")
        if self.refuses_temperature and "temperature" in body:
            return 400, _error("temperature is not supported with this model", "unsupported_value", "temperature")
        with self.lock:
            if body["model"].startswith("ft:") and self.unloaded > 0:
                self.unloaded -= 1
                return 404, _error("the model is not loaded yet", "model_not_found")
            if self.most_in_flight is not None and self.in_flight >= self.most_in_flight:
                return 429, _error("rate limit reached for requests", "rate_limit_exceeded")
            self.in_flight += 1
            self.seen_in_flight = max(self.seen_in_flight, self.in_flight)
        time.sleep(self.answer_seconds)
        with self.lock:
            self.in_flight -= 1
        asked = body["messages"][-1]["content"]
        if asked in self.chat_instead:
            return self.chat_instead[asked]
        text = re.findall(r"the (\w+) ", asked)[-1:] if body["model"].startswith("ft:") else [f"you said {asked}"]
        message = {"role": "assistant", "content": text[0] if text else asked}
        return 200, {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }  # fmt: skip

    def create_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        made, at = self.new("batch")
        lines = [json.loads(line) for line in self.contents[body["input_file_id"]].splitlines()]
        out = []
        for line in reversed(lines):
            status, told = self.chat(line["body"])
            out.append({"id": "r", "custom_id": line["custom_id"], "response": {"status_code": status, "request_id": "q", "body": told}, "error": None})  # fmt: skip
        content = "".join(json.dumps(line) + "\n" for line in out).encode()
        self.batches[made] = {
            "id": made, "object": "batch", "endpoint": body["endpoint"], "input_file_id": body["input_file_id"],
            "completion_window": "24h", "created_at": at, "status": "validating",
            "metadata": body.get("metadata") if self.keeps_batch_metadata else None,
            "output_file_id": self.add_file("out.jsonl", "batch_output", content)["id"], "error_file_id": None,
        }  # fmt: skip
        return self.batches[made]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    at: Service

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path.removeprefix("/v1"))
        route = f"{method} " + re.sub(
            r"/(?:file|ftjob|batch|upload)-\w+", "/ID", re.sub(r"^/models/.+", "/models/ID", path)
        )
        content = self.rfile.read(int(self.headers.get("content-length") or 0)) or self._chunked()
        self.at.keys.add(self.headers.get("authorization", ""))
        fault = self.at.fault(route) or {"kind": ""}
        kind = str(fault["kind"])
        if kind == "reset_before":
            return self._reset()
        if self.at.redirect_to is not None:
            return self._raw(307, b"", "text/plain", headers={"location": f"{self.at.redirect_to}{path}"})
        if kind.isdigit():
            body = _error(fault.get("message", "a fault on order"), fault.get("code"), fault.get("param"))
            return self._send(int(kind), body, fault.get("headers", {}))
        if route == "POST /chat/completions":
            status, told = self.at.chat(json.loads(content))
        else:
            with self.at.lock:
                status, told = self._answer(method, path, dict(parse_qsl(parts.query)), content)
        if kind == "reset_after":
            return self._reset()
        if kind == "slow_after":
            time.sleep(fault.get("seconds", 30))
        if kind == "html_after":
            return self._raw(200, b"<html><body>Please log in to the proxy</body></html>", "text/html")
        if kind == "cut_after":
            return self._raw(200, b'{"id": "', "application/json", length=500)
        if isinstance(told, bytes):
            return self._raw(status, told, "application/octet-stream")
        return self._send(status, told, {})

    def _chunked(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return b""
        content = b""
        while size := int(self.rfile.readline().strip(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, method: str, path: str, query: dict[str, str], content: bytes) -> tuple[int, Any]:
        at = self.at
        match [method, *path.strip("/").split("/")]:
            case ["GET", "models"]:
                return 200, {"object": "list", "data": [_model(name, told) for name, told in at.models.items()]}
            case ["GET", "models", *name]:
                known = "/".join(name)
                return (200, _model(known, at.models[known])) if known in at.models else (404, _error("no such model", "model_not_found"))  # fmt: skip
            case ["POST", "files"]:
                parts = _multipart(self.headers["content-type"], content)
                name, data = parts["file"]
                return 200, at.add_file(name, parts["purpose"][1].decode(), data)
            case ["GET", "files"]:
                wanted = [file for file in at.files.values() if query.get("purpose") in (None, file["purpose"])]
                return 200, _page(wanted, query)
            case ["GET", "files", made]:
                return (200, at.files[made]) if made in at.files else (404, _error("no such file"))
            case ["GET", "files", made, "content"]:
                return 200, at.contents[made]
            case ["DELETE", "files", made]:
                at.contents.pop(made, None)
                found = at.files.pop(made, None)
                return (
                    (200, {"id": made, "object": "file", "deleted": True}) if found else (404, _error("no such file"))
                )
            case ["POST", "uploads"]:
                made, _ = at.new("upload")
                body = json.loads(content)
                at.uploads[made] = {"body": body, "parts": {}}
                return 200, _upload(made, body, "pending")
            case ["POST", "uploads", made, "parts"]:
                part, _ = at.new("part")
                at.uploads[made]["parts"][part] = _multipart(self.headers["content-type"], content)["data"][1]
                return 200, {"id": part, "object": "upload.part", "upload_id": made, "created_at": 1}
            case ["POST", "uploads", made, "complete"]:
                upload = at.uploads[made]
                data = b"".join(upload["parts"][part] for part in json.loads(content)["part_ids"])
                assert len(data) == upload["body"]["bytes"]
                file = at.add_file(upload["body"]["filename"], upload["body"]["purpose"], data)
                return 200, {**_upload(made, upload["body"], "completed"), "file": file}
            case ["POST", "fine_tuning", "jobs"]:
                return at.create_job(json.loads(content))
            case ["GET", "fine_tuning", "jobs"]:
                wanted = list(at.jobs.values())
                for key, value in query.items():
                    if key.startswith("metadata["):
                        wanted = [job for job in wanted if (job["metadata"] or {}).get(key[9:-1]) == value]
                return 200, _page(wanted, query)
            case ["GET", "fine_tuning", "jobs", made]:
                return (200, at.look(at.jobs[made])) if made in at.jobs else (404, _error("no such job"))
            case ["GET", "fine_tuning", "jobs", made, "events"]:
                return 200, _cursor(at.events[made], query)
            case ["GET", "fine_tuning", "jobs", made, "checkpoints"]:
                name = f"{at.jobs[made]['fine_tuned_model']}:ckpt-step-1"
                told = {"object": "fine_tuning.job.checkpoint", "id": "ftckpt-1", "created_at": 1, "step_number": 1}
                told |= {"fine_tuned_model_checkpoint": name, "fine_tuning_job_id": made, "metrics": {"step": 1}}
                return 200, {"object": "list", "data": [told], "has_more": False, "first_id": None, "last_id": None}
            case ["POST", "fine_tuning", "jobs", made, ("cancel" | "pause" | "resume") as asked]:
                job = at.jobs[made]
                if job["status"] in ("succeeded", "failed", "cancelled"):
                    return 400, _error(f"the job is {job['status']}", "invalid_state")
                job["status"] = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}[asked]
                return 200, job
            case ["POST", "batches"]:
                return 200, at.create_batch(json.loads(content))
            case ["GET", "batches"]:
                listed = _page(list(at.batches.values()), {} if at.lists_forever else query)
                return 200, {**listed, "has_more": True} if at.lists_forever else listed
            case ["POST", "batches", made, "cancel"]:
                at.batches[made]["status"] = "cancelled"
                return 200, at.batches[made]
            case ["GET", "batches", made]:
                batch = at.batches[made]
                batch["status"] = {"validating": "in_progress", "in_progress": "completed"}.get(batch["status"], batch["status"])  # fmt: skip
                return 200, batch
        return 404, _error(f"unknown route {method} {path}")

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        self._raw(status, json.dumps(_public(body)).encode(), "application/json", headers=headers)

    def _raw(
        self,
        status: int,
        content: bytes,
        kind: str,
        *,
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": kind,
            "content-length": str(length or len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.close_connection = self.close_connection or length is not None


def _error(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def _public(body: Any) -> Any:
    if isinstance(body, dict):
        return {key: _public(value) for key, value in body.items() if not key.startswith("_")}
    return [_public(item) for item in body] if isinstance(body, list) else body


def _model(name: str, told: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, **told}


def _upload(made: str, body: dict[str, Any], status: str) -> dict[str, Any]:
    return {"id": made, "object": "upload", "bytes": body["bytes"], "created_at": 1, "expires_at": 2, "filename": body["filename"], "purpose": body["purpose"], "status": status}  # fmt: skip


def _page(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """Newest first; what lags shows up only after some lists."""
    shown = []
    for item in items:
        if item.get("_lag", 0) > 0:
            item["_lag"] -= 1
        else:
            shown.append(item)
    return _cursor(sorted(shown, key=lambda item: -item["created_at"]), query)


def _cursor(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    if "after" in query:
        place = next((index for index, item in enumerate(items) if item["id"] == query["after"]), len(items))
        items = items[place + 1 :]
    limit = int(query.get("limit", 20))
    return {"object": "list", "data": items[:limit], "has_more": len(items) > limit}


def _multipart(kind: str, content: bytes) -> dict[str, tuple[str, bytes]]:
    told = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + content)
    parts = {}
    for part in told.get_payload():  # type: ignore[union-attr]
        name = part.get_param("name", header="content-disposition")
        parts[str(name)] = (part.get_filename() or "", part.get_payload(decode=True))
    return parts
