"""An account at a service, as its ledger shows it: jobs, files and completions over real HTTP. Run as a process of its own.

python account.py            prints the port of the service and that of the wire before it, then serves until it is ended
POST /_reset {"manners": {…}, "faults": […]}      a new account
GET  /_ledger                                     everything that exists, was made, or was deleted
"""

from __future__ import annotations

import json
import re
import threading
import time
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

MANNERS: dict[str, Any] = {
    "metadata": "kept",  # kept | dropped | not in lists
    "list_lag": 0.0,  # seconds until something new shows in lists
    "get_lag": 0.0,  # seconds until a new job is there by its id
    "walk": [["validating_files", 0.05], ["running", 0.3], ["succeeded", 0.0]],
    "closed": False,  # creations are refused for good
    "page": 50,  # the largest page
    "named_after": 0.0,  # seconds from success to the model's name
    "cancel": "ok",  # ok | refused
    "alias": False,  # jobs tell the dated name of the model
}
DATED = "-2025-04-14"
ENDED = ("succeeded", "failed", "cancelled")


class Account:
    """Everything that the service knows. Every method is called under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset({}, [])

    def reset(self, manners: dict[str, Any], faults: list[dict[str, Any]]) -> None:
        self.manners = {**MANNERS, **manners}
        self.faults = [dict(fault) for fault in faults]
        self.files: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.chats: list[list[str]] = []
        self.deleted: list[str] = []
        self.hits = 0
        self.requests = 0
        self.epoch = getattr(self, "epoch", 0) + 1

    def ledger(self) -> dict[str, Any]:
        for job in self.jobs.values():
            self.look(job)
        names = ("files", "jobs", "events", "chats", "deleted", "hits", "requests")
        return {name: getattr(self, name) for name in names}

    def fault(self, route: str) -> str | None:
        """The fault that this request meets: each holds for a number of requests after some that it lets pass."""
        self.requests += 1
        for fault in self.faults:
            if re.fullmatch(fault["route"], route):
                fault["seen"] = fault.get("seen", 0) + 1
                if fault["after"] < fault["seen"] <= fault["after"] + fault["times"]:
                    self.hits += 1
                    return str(fault["kind"])
        return None

    def say(self, job: str, message: str) -> None:
        events = self.events[job]
        events.append({"id": f"ev-{job}-{len(events)}", "created_at": int(time.time()), "level": "info", "message": message, "type": "message", "data": None, "object": "fine_tuning.job.event"})  # fmt: skip

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.manners["closed"]:
            return 403, error("the platform is being wound down", "training_not_available")
        if body["training_file"] not in self.files:
            return 400, error(f"file {body['training_file']} does not exist", "invalid_file", "training_file")
        name = f"ftjob-{self.epoch}-{len(self.jobs)}"
        model = body["model"] + (DATED if self.manners["alias"] else "")
        self.jobs[name] = {
            "id": name, "object": "fine_tuning.job", "model": model, "created_at": int(time.time()), "status": "validating_files",
            "training_file": body["training_file"], "validation_file": body.get("validation_file"), "fine_tuned_model": None,
            "method": body.get("method"), "hyperparameters": None, "seed": body.get("seed"), "result_files": [], "trained_tokens": None,
            "metadata": None if self.manners["metadata"] == "dropped" else body.get("metadata"), "error": {}, "user_provided_suffix": body.get("suffix"),
            "_token": (body.get("metadata") or {}).get("ftbridge_run"), "_at": time.time(), "_asked": None, "_ended": None,
        }  # fmt: skip
        self.events[name] = []
        self.say(name, f"{name}: created")
        return 200, self.jobs[name]

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        """Bring a job to where it is by now."""
        if job["_ended"] is None:
            gone, status = time.time() - job["_at"], self.manners["walk"][-1][0]
            for word, seconds in self.manners["walk"]:
                if gone < seconds:
                    status = word
                    break
                gone -= seconds
            status = job["_asked"] or status
            if status != job["status"]:
                job["status"] = status
                self.say(job["id"], f"{job['id']}: {status}")
            if status in ENDED:
                job["_ended"] = time.time()
                job["error"] = (
                    {"code": "server_error", "message": "the job broke", "param": None} if status == "failed" else {}
                )
        named = job["status"] == "succeeded" and time.time() - job["_ended"] >= self.manners["named_after"]
        if named and job["fine_tuned_model"] is None:
            job["fine_tuned_model"] = f"ft:{job['model']}:org::{job['id'][-3:]}"
            job["trained_tokens"] = 1000
        return job

    def ask(self, name: str, what: str) -> tuple[int, Any]:
        job = self.look(self.jobs[name])
        if job["status"] in ENDED or (what == "cancel" and self.manners["cancel"] == "refused"):
            return 400, error(f"the job cannot be asked to {what} now", "invalid_state")
        if what == "cancel":
            job["_asked"] = "cancelled"
        return 200, self.look(job)

    def shown(self, things: dict[str, dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        """A page, newest first, without what lists do not show yet."""
        listed = [
            thing for thing in reversed(things.values()) if time.time() - thing["_at"] >= self.manners["list_lag"]
        ]
        for name, value in query.items():
            if name.startswith("metadata["):
                listed = [thing for thing in listed if (thing["metadata"] or {}).get(name[9:-1]) == value]
        if self.manners["metadata"] == "not in lists":
            listed = [{**thing, "metadata": None} if "training_file" in thing else thing for thing in listed]
        return page(listed, query, self.manners["page"])


def page(listed: list[dict[str, Any]], query: dict[str, str], most: int) -> dict[str, Any]:
    ids = [thing["id"] for thing in listed]
    if query.get("after") in ids:
        listed = listed[ids.index(query["after"]) + 1 :]
    size = min(int(query.get("limit", 20)), most)
    return {"object": "list", "data": listed[:size], "has_more": len(listed) > size}


def error(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}


def respond(account: Account, method: str, target: str, kind: str, content: bytes) -> tuple[int, Any]:
    parts = urlsplit(target)
    path = unquote(parts.path).removeprefix("/v1").strip("/").split("/")
    query = dict(parse_qsl(parts.query))
    match [method, *path]:
        case ["POST", "_reset"]:
            document = json.loads(content)
            account.reset(document["manners"], document["faults"])
            return 200, {}
        case ["GET", "_ledger"]:
            return 200, account.ledger()
        case ["GET", "models", *name]:
            return 200, {"id": "/".join(name), "object": "model", "created": 1, "owned_by": "org"}
        case ["POST", "files"]:
            fields = {
                str(part.get_param("name", header="content-disposition")): part
                for part in BytesParser()
                .parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + content)
                .get_payload()  # type: ignore[union-attr]
            }
            data = fields["file"].get_payload(decode=True)
            name = f"file-{account.epoch}-{len(account.files) + len(account.deleted)}"
            account.files[name] = {"id": name, "object": "file", "bytes": len(data), "created_at": int(time.time()), "filename": fields["file"].get_filename(), "purpose": "fine-tune", "status": "processed", "_at": time.time()}  # fmt: skip
            return 200, account.files[name]
        case ["GET", "files"]:
            return 200, account.shown(account.files, query)
        case ["GET", "files", name] if name in account.files:
            return 200, account.files[name]
        case ["DELETE", "files", name] if name in account.files:
            del account.files[name]
            account.deleted.append(name)
            return 200, {"id": name, "object": "file", "deleted": True}
        case ["POST", "fine_tuning", "jobs"]:
            return account.create(json.loads(content))
        case ["GET", "fine_tuning", "jobs"]:
            for job in account.jobs.values():
                account.look(job)
            return 200, account.shown(account.jobs, query)
        case ["GET", "fine_tuning", "jobs", name] if name in account.jobs:
            job = account.jobs[name]
            fresh = time.time() - job["_at"] < account.manners["get_lag"]
            return (404, error("no such job")) if fresh else (200, account.look(job))
        case ["GET", "fine_tuning", "jobs", name, "events"] if name in account.jobs:
            account.look(account.jobs[name])
            return 200, page(account.events[name][::-1], query, account.manners["page"])
        case ["GET", "fine_tuning", "jobs", name, "checkpoints"] if name in account.jobs:
            return 200, {"object": "list", "data": [], "has_more": False}
        case ["POST", "fine_tuning", "jobs", name, ("cancel" | "pause" | "resume") as what] if name in account.jobs:
            return account.ask(name, what)
        case ["POST", "chat", "completions"]:
            body = json.loads(content)
            account.chats.append([body["model"], body["messages"][-1]["content"]])
            text = "yes" if body["model"].startswith("ft:") else "no"
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
            return 200, {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}  # fmt: skip
    return 404, error(f"no {method} {parts.path}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    account: Account

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.account.lock:
            status, result = respond(
                self.account, self.command, self.path, self.headers.get("content-type") or "", content
            )
            hide = not self.path.startswith("/_")
            body = json.dumps(_public(result) if hide else result).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815


def _public(public: Any) -> Any:
    if isinstance(public, dict):
        return {key: _public(value) for key, value in public.items() if not key.startswith("_")}
    return [_public(item) for item in public] if isinstance(public, list) else public


def main() -> None:
    from support.faults.proxy import Wire

    Handler.account = Account()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wire = Wire(server.server_port, Handler.account)
    print(json.dumps({"service": server.server_port, "wire": wire.port}), flush=True)
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
