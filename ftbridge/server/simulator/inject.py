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

    def replace(self, scenario: Scenario) -> None:
        """Another scenario from now on; counting begins anew."""
        self.scenario = scenario
        self.requests.clear()
        self.met.clear()
        self._seen.clear()
        self._done.clear()

    def chosen(self, route: str, model: str | None) -> list[Fault]:
        """The faults that this request meets, in their order."""
        self.requests[route] += 1
        return [
            fault
            for index, fault in enumerate(self.scenario.faults)
            if fault.matches(route) and _fits(fault, model) and self._meets(index, fault, route)
        ]

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


def _fits(fault: Fault, model: str | None) -> bool:
    return fault.model == "*" or (model is not None and fnmatchcase(model, fault.model))


class Injecting:
    """The application with faults. The connection's transport is in `scope["state"]`, put there by the server."""

    def __init__(self, app: ASGIApp, faults: Faults, routes: list[tuple[str, re.Pattern[str], str]]) -> None:
        self.app, self.faults, self.routes = app, faults, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or (route := self._route(scope)) is None:
            await self.app(scope, receive, send)
            return
        receive, model = await _peek(route, receive, any(fault.model != "*" for fault in self.faults.scenario.faults))
        faults = self.faults.chosen(route, model)
        if not faults:
            await self.app(scope, receive, send)
            return
        before = [fault for fault in faults if fault.when == "before" and fault.fault in _EITHER]
        after = [fault for fault in faults if fault not in before]
        for fault in before:
            if fault.fault == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault.fault == "reset":
                await _read_all(receive)
                _reset(scope)
                return
            else:
                await _read_all(receive)
                await _refusal(fault).response()(scope, receive, send)
                return
        if after:
            await _Changed(after, scope, self.faults.scenario.seed).run(self.app, receive, send)
        else:
            await self.app(scope, receive, send)

    def _route(self, scope: Scope) -> str | None:
        return route_of(self.routes, scope["method"], scope["path"])


_EITHER = frozenset({"error", "training_not_available", "reset", "slow"})
"""Faults that can come before the request took effect."""


def route_of(routes: list[tuple[str, re.Pattern[str], str]], method: str, path: str) -> str | None:
    """`GET /files/{}` for a request; None for what is not a route of the API."""
    for verb, pattern, shown in routes:
        if verb == method and pattern.fullmatch(path):
            return shown
    return None


class _Changed:
    """An answer that is held back whole, spoilt, and sent; a stream is spoilt as it goes."""

    def __init__(self, faults: list[Fault], scope: Scope, seed: int) -> None:
        self.faults, self.scope = faults, scope
        self.dice = random.Random(f"{seed}:{scope['path']}")

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
                body = _altered(body, fault, self.dice)
        headers["content-length"] = str(len(body))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        if not cut:
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await asyncio.sleep(0.05)  # so that the half arrives before the connection is gone
        _reset(self.scope)


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


def _altered(body: bytes, fault: Fault, dice: random.Random) -> bytes:
    try:
        document = json.loads(body)
    except ValueError:
        return body
    if fault.fault == "shuffle":
        if isinstance(document.get("data"), list):
            dice.shuffle(document["data"])
    else:
        for path, value in fault.set.items():
            _put(document, path.split("."), value)
        for path in fault.remove:
            _put(document, path.split("."), _GONE)
    return json.dumps(document, ensure_ascii=False).encode()


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


async def _peek(route: str, receive: Receive, wanted: bool) -> tuple[Receive, str | None]:
    """The model of a chat, and a `receive` that still gives the whole body."""
    if not wanted or route != "POST /chat/completions":
        return receive, None
    body = await _read_all(receive)
    model: Any = None
    try:
        parsed = json.loads(body)
        model = parsed.get("model") if isinstance(parsed, Mapping) else None
    except ValueError:
        pass
    replayed = False

    async def again() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again, model if isinstance(model, str) else None


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
