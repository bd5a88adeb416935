"""Faults that come after the effect: an answer is held back whole, changed, and sent, or not sent at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftbridge.server.http.errors import ApiError
from ftbridge.server.simulator.fault import Fault

if TYPE_CHECKING:
    from ftbridge.server.simulator.inject import Faults


class Changed:
    """One answer and the faults that it meets."""

    def __init__(self, faults: list[Fault], scope: Scope, route: str, counted: Faults) -> None:
        self.faults, self.scope, self.route, self.counted = faults, scope, route, counted
        self.dice = random.Random(f"{counted.scenario.seed}:{scope['path']}")

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Let the application answer, and send what the faults make of it."""
        start: dict[str, Any] = {}
        content = bytearray()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                content.extend(message.get("body", b""))

        endless = any(fault.fault == "endless" for fault in self.faults)
        await app(_first_page(self.scope) if endless else self.scope, receive, hold)
        body = bytes(content)
        status, headers = start["status"], {name.decode(): value.decode() for name, value in start["headers"]}
        cut = False
        for fault in self.faults:
            if fault.fault == "slow":
                await _wait(receive, fault.seconds)
            elif fault.fault == "reset":
                reset(self.scope)
                return
            elif fault.fault in ("error", "training_not_available"):
                response = refusal(fault)
                status, body = response.status, json.dumps(response.document()).encode()
                headers = {"content-type": "application/json", **response.headers}
            elif fault.fault == "html":
                status, headers = 200, {"content-type": "text/html"}
                body = b"<html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>"
            elif fault.fault == "cut":
                cut = True
            elif fault.fault != "twice":
                body = self._altered(body, fault)
        headers["content-length"] = str(len(body))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        if not cut:
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await asyncio.sleep(0.05)  # so that the half arrives before the connection is gone
        reset(self.scope)

    def _altered(self, body: bytes, fault: Fault) -> bytes:
        """A JSON answer with the fault in it; any other answer as it is."""
        try:
            document = json.loads(body)
        except ValueError:
            return body
        listed = document.get("data") if isinstance(document, dict) else None
        if fault.fault == "alter":
            if not fault.where or self.counted.meets_answer(fault, self.route, document):
                alter(document, fault)
        elif isinstance(listed, list):
            if fault.fault == "shuffle":
                self.dice.shuffle(listed)
            elif fault.fault == "lag":
                document["data"] = [one for one in listed if not self.counted.is_missing(fault, one)]
            elif fault.fault == "endless":
                document["has_more"] = True
        return json.dumps(document).encode()  # in ASCII: a fault may say half of an emoji, as some services do


def refusal(fault: Fault) -> ApiError:
    """The error that a fault stands for."""
    if fault.fault == "training_not_available":
        return ApiError(
            403,
            "The fine-tuning platform is being wound down; this organisation cannot create new training jobs.",
            code="training_not_available",
        )
    headers = dict(fault.headers)
    if fault.retry_after == "date":
        headers["Retry-After"] = formatdate(time.time() + 1, usegmt=True)
    elif fault.retry_after is not None:
        is_whole = fault.retry_after == int(fault.retry_after)
        headers["Retry-After"] = str(int(fault.retry_after)) if is_whole else f"{fault.retry_after}"
    return ApiError(fault.status, fault.message, code=fault.code, param=fault.param, type=fault.type, headers=headers)


def alter(document: Any, fault: Fault) -> None:
    """Set and remove in a document what a fault sets and removes."""
    for path, value in fault.set.items():
        _put(document, path.split("."), value)
    for path in fault.remove:
        _put(document, path.split("."), _GONE)


def _first_page(scope: Scope) -> Scope:
    """The request without its cursor."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {**scope, "query_string": urlencode([pair for pair in query if pair[0] != "after"]).encode()}


async def _wait(receive: Receive, seconds: float) -> None:
    """Wait while the client does: a connection that is gone holds up nothing. The request's body was read before."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(disconnected(), seconds)


def reset(scope: Scope) -> None:
    """End the connection with a reset, as a crashed host or a middlebox does, rather than an orderly close."""
    transport = scope["state"]["transport"]
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


_GONE = object()


def _put(holder: Any, path: list[str], value: Any) -> None:
    """Set or remove a place; `name[]` is every entry of a list. What is not there is made."""
    name, rest = path[0], path[1:]
    if not isinstance(holder, dict):
        return
    if name.endswith("[]"):
        entries = holder.get(name[:-2])
        for entry in entries if isinstance(entries, list) else []:
            _put(entry, rest, value)
    elif rest:
        _put(holder.setdefault(name, {}), rest, value)
    elif value is _GONE:
        holder.pop(name, None)
    else:
        holder[name] = value
