"""Faults, between the application and the network: counted by request, drawn from the seed, acted out for real."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftbridge.server.http.errors import ApiError
from ftbridge.server.simulator.scenario import Fault, Scenario


class Faults:
    """Which requests meet which faults, and what was met so far."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.requests: Counter[str] = Counter()
        self.met: list[dict[str, Any]] = []
        self._seen: Counter[int] = Counter()
        self._done: Counter[int] = Counter()
        self._missing: Counter[tuple[int, str]] = Counter()

    def replace(self, scenario: Scenario) -> None:
        """Another scenario from now on; counting begins anew."""
        self.scenario = scenario
        self.requests.clear()
        self.met.clear()
        self._seen.clear()
        self._done.clear()
        self._missing.clear()

    def chosen(self, route: str, body: bytes) -> list[Fault]:
        """The faults that this request meets, in their order; those with `where` are counted by `meets_answer`."""
        self.requests[route] += 1
        return [
            fault
            for index, fault in enumerate(self.scenario.faults)
            if fault.matches(route) and _fits(fault, route, body) and (fault.where or self._meets(index, fault, route))
        ]

    def reads_body(self, route: str) -> bool:
        """Whether what a request says decides about some fault on its route."""
        return any(
            fault.matches(route) and (fault.model != "*" or fault.body is not None) for fault in self.scenario.faults
        )

    def meets_answer(self, fault: Fault, route: str, document: Any) -> bool:
        """Whether an answer is one that a fault with `where` is about, and is its turn."""
        if any(_value(document, path.split(".")) != value for path, value in fault.where.items()):
            return False
        return self._meets(self.scenario.faults.index(fault), fault, route)

    def is_missing(self, fault: Fault, name: str) -> bool:
        """Whether a list lacks an object that lags; each list that would have it brings it nearer."""
        key = self.scenario.faults.index(fault), name
        self._missing[key] += 1
        return self._missing[key] <= fault.lists

    def _meets(self, index: int, fault: Fault, route: str) -> bool:
        self._seen[index] += 1
        number = self._seen[index]
        if fault.times is not None and self._done[index] >= fault.times:
            return False
        if fault.nth is not None:
            hit = number in (fault.nth if isinstance(fault.nth, list) else [fault.nth])
        elif fault.every is not None:
            hit = number % fault.every == 0
        elif fault.chance is not None:
            hit = random.Random(f"{self.scenario.seed}:{index}:{number}").random() < fault.chance
        else:
            hit = True
        if hit:
            self._done[index] += 1
            self.met.append({"route": route, "request": number, "fault": fault.fault, "when": fault.when})
        return hit


def _fits(fault: Fault, route: str, body: bytes) -> bool:
    """Whether a request's body is one that the fault is about."""
    if fault.body is not None and not re.search(fault.body, body.decode(errors="replace")):
        return False
    if fault.model == "*":
        return True
    model = _model_of(body) if route == "POST /chat/completions" else None
    return model is not None and fnmatchcase(model, fault.model)


def _model_of(body: bytes) -> str | None:
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    model = parsed.get("model") if isinstance(parsed, Mapping) else None
    return model if isinstance(model, str) else None


def _value(document: Any, path: list[str]) -> Any:
    """What stands at a path of an answer; None where nothing does."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


class Injecting:
    """The application with faults. The connection's transport is in `scope["state"]`, put there by the server."""

    def __init__(self, app: ASGIApp, faults: Faults, routes: list[tuple[str, re.Pattern[str], str]]) -> None:
        self.app, self.faults, self.routes = app, faults, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or (route := self._route(scope)) is None:
            await self.app(scope, receive, send)
            return
        receive, body = await _peek(receive, self.faults.reads_body(route))
        faults = self.faults.chosen(route, body)
        if not faults:
            await self.app(scope, receive, send)
            return
        before = [
            fault
            for fault in faults
            if fault.fault == "redirect" or (fault.when == "before" and fault.fault in _EITHER)
        ]
        after = [fault for fault in faults if fault not in before]
        for fault in before:
            if fault.fault == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault.fault == "reset":
                await _read_all(receive)
                _reset(scope)
                return
            elif fault.fault == "redirect":
                await _read_all(receive)
                await _redirect(fault, scope, send)
                return
            else:
                await _read_all(receive)
                await _refusal(fault).response()(scope, receive, send)
                return
        if after:
            await _Changed(after, scope, route, self.faults).run(self.app, receive, send)
        else:
            await self.app(scope, receive, send)

    def _route(self, scope: Scope) -> str | None:
        return route_of(self.routes, scope["method"], scope["path"])


_EITHER = frozenset({"error", "training_not_available", "reset", "slow"})
"""Faults that can come before the request took effect."""


async def _redirect(fault: Fault, scope: Scope, send: Send) -> None:
    """Send the client to the same path at another address."""
    path = scope["path"].removeprefix("/v1")
    query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
    location = f"{fault.to}{path}{query}".encode("latin-1", "replace")
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def route_of(routes: list[tuple[str, re.Pattern[str], str]], method: str, path: str) -> str | None:
    """`GET /files/{}` for a request; None for what is not a route of the API."""
    for verb, pattern, shown in routes:
        if verb == method and pattern.fullmatch(path):
            return shown
    return None


class _Changed:
    """An answer that is held back whole, spoilt, and sent; a stream is spoilt as it goes."""

    def __init__(self, faults: list[Fault], scope: Scope, route: str, counted: Faults) -> None:
        self.faults, self.scope, self.route, self.counted = faults, scope, route, counted
        self.dice = random.Random(f"{counted.scenario.seed}:{scope['path']}")

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        start: dict[str, Any] = {}
        content = bytearray()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                content.extend(message.get("body", b""))

        await app(self.scope, receive, hold)
        body = bytes(content)
        status, headers = start["status"], {name.decode(): value.decode() for name, value in start["headers"]}
        cut = False
        for fault in self.faults:
            if fault.fault == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault.fault == "reset":
                _reset(self.scope)
                return
            elif fault.fault in ("error", "training_not_available"):
                response = _refusal(fault)
                status, body = response.status, json.dumps(response.document()).encode()
                headers = {"content-type": "application/json", **response.headers}
            elif fault.fault == "html":
                status, headers = 200, {"content-type": "text/html"}
                body = b"<html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>"
            elif fault.fault == "cut":
                cut = True
            else:
                body = self._altered(body, fault)
        headers["content-length"] = str(len(body))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        if not cut:
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await asyncio.sleep(0.05)  # so that the half arrives before the connection is gone
        _reset(self.scope)

    def _altered(self, body: bytes, fault: Fault) -> bytes:
        """A JSON answer with the fault in it; any other answer as it is."""
        try:
            document = json.loads(body)
        except ValueError:
            return body
        listed = document.get("data") if isinstance(document, dict) else None
        if fault.fault == "shuffle":
            if isinstance(listed, list):
                self.dice.shuffle(listed)
        elif fault.fault == "lag":
            if isinstance(listed, list):
                document["data"] = [one for one in listed if not self.counted.is_missing(fault, str(one.get("id")))]
        elif not fault.where or self.counted.meets_answer(fault, self.route, document):
            for path, value in fault.set.items():
                _put(document, path.split("."), value)
            for path in fault.remove:
                _put(document, path.split("."), _GONE)
        return json.dumps(document, ensure_ascii=False).encode()


def _refusal(fault: Fault) -> ApiError:
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


async def _peek(receive: Receive, wanted: bool) -> tuple[Receive, bytes]:
    """The body of a request where it is wanted, and a `receive` that still gives the whole of it."""
    if not wanted:
        return receive, b""
    body = await _read_all(receive)
    replayed = False

    async def again() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again, body


async def _read_all(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            return body


def _reset(scope: Scope) -> None:
    """End the connection with a reset, as a crashed host or a middlebox does, rather than an orderly close."""
    transport = scope["state"]["transport"]
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
