"""Faults, between the application and the network: counted by request, drawn from the seed, acted out for real.

request ─▶ chosen ─▶ error · reset · slow · redirect   before the effect
│
├────▶ application (twice: two times) ─▶ changed.py: the answer is changed
│
line of a batch ─▶ line_result: it fails, or its response is altered
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftbridge.server.simulator.changed import Changed, alter, refusal, reset
from ftbridge.server.simulator.fault import LINE, Fault
from ftbridge.server.simulator.scenario import Scenario

BODIES = 1000
"""How many of the last JSON bodies are kept."""
_LARGEST_BODY = 64 << 10
"""Bytes of the largest body that is kept."""


class Faults:
    """Which requests meet which faults, and what was met so far."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.requests: Counter[str] = Counter()
        self.met: list[dict[str, Any]] = []
        self.bodies: deque[tuple[str, Any]] = deque(maxlen=BODIES)
        """Routes and JSON bodies of the last requests that had one, oldest first."""
        self._seen: Counter[int] = Counter()
        self._done: Counter[int] = Counter()
        self._missing: Counter[tuple[int, str]] = Counter()

    def replace(self, scenario: Scenario) -> None:
        """Another scenario from now on; counting starts again."""
        self.scenario = scenario
        self.requests.clear()
        self.met.clear()
        self.bodies.clear()
        self._seen.clear()
        self._done.clear()
        self._missing.clear()

    def chosen(self, route: str, body: bytes) -> list[Fault]:
        """The faults that this request meets, in their order; those with `where` are counted by `meets_answer`."""
        self.requests[route] += 1
        return [
            fault
            for index, fault in enumerate(self.scenario.faults)
            if fault.matches(route)
            and _fits(fault, route, body)
            and ((fault.where and fault.fault == "alter") or self._meets(index, fault, route))
        ]

    def reads_body(self, route: str) -> bool:
        """Whether some fault on a route needs the body: what it says decides, or the request is repeated."""
        return any(
            fault.matches(route) and (fault.model != "*" or fault.body is not None or fault.fault == "twice")
            for fault in self.scenario.faults
        )

    def received(self, route: str, body: bytes) -> None:
        """Keep what a client sent, if it is JSON."""
        try:
            self.bodies.append((route, json.loads(body)))
        except ValueError:
            return

    def meets_answer(self, fault: Fault, route: str, document: Any) -> bool:
        """Whether an answer is one that a fault with `where` is about, and is its turn."""
        if not _holds(document, fault.where) or fault not in self.scenario.faults:
            return False
        return self._meets(self.scenario.faults.index(fault), fault, route)

    def is_missing(self, fault: Fault, listed: Any) -> bool:
        """Whether a list lacks an object that lags; each list that would have it brings it nearer."""
        if not _holds(listed, fault.where) or fault not in self.scenario.faults:
            return False
        key = self.scenario.faults.index(fault), str(_value(listed, ["id"]))
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
    model = _model_of(body) if route in ("POST /chat/completions", f"{LINE} /chat/completions") else None
    return model is not None and fnmatchcase(model, fault.model)


def _model_of(body: bytes) -> str | None:
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    model = parsed.get("model") if isinstance(parsed, Mapping) else None
    return model if isinstance(model, str) else None


def _holds(document: Any, values: Mapping[str, Any]) -> bool:
    """Whether a document has these values at these paths."""
    return all(_value(document, path.split(".")) == value for path, value in values.items())


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
        is_small = _is_small_json(scope)
        receive, body = await _peek(receive, is_small or self.faults.reads_body(route))
        if is_small:
            self.faults.received(route, body)
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
                reset(scope)
                return
            elif fault.fault == "redirect":
                await _read_all(receive)
                await _redirect(fault, scope, send)
                return
            else:
                await _read_all(receive)
                await refusal(fault).response()(scope, receive, send)
                return
        if any(fault.fault == "twice" for fault in after):
            await self.app(dict(scope), replayed(body), _nowhere)
        if after:
            await Changed(after, scope, route, self.faults).run(self.app, receive, send)
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


def _is_small_json(scope: Scope) -> bool:
    """Whether a request has a JSON body that is small enough to keep."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    return headers.get(b"content-type", b"").startswith(b"application/json") and (
        length.isdigit() and int(length) <= _LARGEST_BODY
    )


async def _peek(receive: Receive, wanted: bool) -> tuple[Receive, bytes]:
    """The body of a request where it is wanted, and a `receive` that still gives the whole of it."""
    if not wanted:
        return receive, b""
    body = await _read_all(receive)
    return replayed(body, receive), body


def replayed(body: bytes, receive: Receive | None = None) -> Receive:
    """A `receive` that gives this body, and then what `receive` gives; without one, that the client waits for ever."""
    replayed_once = False

    async def again() -> Message:
        nonlocal replayed_once
        if replayed_once:
            return await (receive() if receive is not None else asyncio.Future())
        replayed_once = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _nowhere(_: Message) -> None:
    """Send an answer to nobody."""


async def _read_all(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            return body


async def line_result(
    faults: Faults | None,
    endpoint: str,
    body: dict[str, Any],
    complete: Callable[[], Awaitable[tuple[int, dict[str, Any]]]],
) -> tuple[int, dict[str, Any]]:
    """The status and body of a line of a batch for `endpoint` (`chat/completions`), with the faults that it meets."""
    chosen = []
    if faults is not None:
        chosen = faults.chosen(f"{LINE} /{endpoint}", json.dumps(body).encode())
    failed = [fault for fault in chosen if fault.fault == "error"]
    if failed:
        response = refusal(failed[0])
        if failed[0].when == "after":
            await complete()
        return response.status, response.document()
    status, document = await complete()
    for fault in chosen:
        if not fault.where or (faults is not None and faults.meets_answer(fault, f"{LINE} /{endpoint}", document)):
            alter(document, fault)
    return status, document
