"""The application: one table of routes, and what is done around every request.

address, access log, request id ─▶ who may ask ─▶ engine.advance ─▶ faults (simulator) ─▶ handler ─▶ OpenAI's error shape
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftbridge import __version__
from ftbridge.errors import DiskFull, FtbridgeError
from ftbridge.server.api import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    graders,
    jobs,
    models,
    openapi,
    permissions,
    responses,
    uploads,
)
from ftbridge.server.http import metrics, network
from ftbridge.server.http.access import Access
from ftbridge.server.http.addresses import canonical, decoded
from ftbridge.server.http.errors import ApiError, without_paths
from ftbridge.server.service import Service
from ftbridge.server.simulator import control, organization
from ftbridge.server.simulator.gate import FaultGate
from ftbridge.server.simulator.inject import Injecting, route_of

Handler = Callable[[Request], Awaitable[Response]]

ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", "/files", files.create),
    ("GET", "/files", files.list_files),
    ("GET", "/files/{file_id}", files.retrieve),
    ("DELETE", "/files/{file_id}", files.delete),
    ("GET", "/files/{file_id}/content", files.content),
    ("POST", "/uploads", uploads.create),
    ("POST", "/uploads/{upload_id}/parts", uploads.add_part),
    ("POST", "/uploads/{upload_id}/complete", uploads.complete),
    ("POST", "/uploads/{upload_id}/cancel", uploads.cancel),
    ("POST", "/fine_tuning/jobs", jobs.create),
    ("GET", "/fine_tuning/jobs", jobs.list_jobs),
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}", jobs.retrieve),
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/cancel", jobs.cancel),
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/pause", jobs.pause),
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/resume", jobs.resume),
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/events", jobs.events),
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", jobs.checkpoints),
    ("POST", "/fine_tuning/checkpoints/{checkpoint}/permissions", permissions.create),
    ("GET", "/fine_tuning/checkpoints/{checkpoint}/permissions", permissions.list_permissions),
    ("DELETE", "/fine_tuning/checkpoints/{checkpoint}/permissions/{permission_id}", permissions.delete),
    ("POST", "/fine_tuning/alpha/graders/run", graders.run),
    ("POST", "/fine_tuning/alpha/graders/validate", graders.validate),
    ("GET", "/models", models.list_models),
    ("GET", "/models/{model:path}", models.retrieve),
    ("DELETE", "/models/{model:path}", models.delete),
    ("POST", "/chat/completions", chat.create),
    ("POST", "/completions", completions.create),
    ("POST", "/embeddings", embeddings.create),
    ("POST", "/responses", responses.create),
    ("GET", "/responses/{response_id}", responses.retrieve),
    ("DELETE", "/responses/{response_id}", responses.delete),
    ("POST", "/responses/{response_id}/cancel", responses.cancel),
    ("GET", "/responses/{response_id}/input_items", responses.input_items),
    ("POST", "/batches", batches.create),
    ("GET", "/batches", batches.list_batches),
    ("GET", "/batches/{batch_id}", batches.retrieve),
    ("POST", "/batches/{batch_id}/cancel", batches.cancel),
]
"""Method, path below /v1, handler. The table of docs/server.md is made from this."""

log = logging.getLogger("ftbridge.server")


def patterns(more: list[tuple[str, str, Handler]] | None = None) -> list[tuple[str, re.Pattern[str], str]]:
    """Each route, and each of `more`, as a method, a pattern of its paths, and its name: `GET /files/{}`."""
    routes = []
    for method, path, _ in (*ROUTES, *(more or ())):
        inner = re.sub(r"\{\w+:path\}", ".+", path)
        inner = re.sub(r"\{\w+\}", "[^/]+", inner)
        routes.append((method, re.compile(f"/v1{inner}"), f"{method} {re.sub(r'{[^}]*}', '{}', path)}"))
    return routes


def application(
    service: Service,
    *,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    access: Access | None = None,
) -> ASGIApp:
    """The whole server as an ASGI application.

    `access` says who may ask. In short: `token` is what clients must send as their key (None takes any key and none), `hosts`
    are the names that requests may call the server by (None: any).
    """
    access = access or Access({"token": token} if token else {}, hosts)

    @contextlib.asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        network.calm_loop()
        files.tidy(service)
        await service.engine.start(service)
        app.state.batches.start()
        try:
            yield
        finally:
            await app.state.batches.stop()
            await service.engine.stop()
            service.store.close()

    extra = organization.ROUTES if service.account is not None else []
    routes = [Route(f"/v1{path}", handler, methods=[method]) for method, path, handler in (*ROUTES, *extra)]
    routes += [Route("/health", health), Route("/version", version), Route("/metrics", metrics.show)]
    routes += [Route("/openapi.json", openapi.document), Route("/", openapi.page)]
    if service.faults is not None:
        routes += control.routes()
    app = Starlette(
        routes=routes,
        lifespan=living,
        exception_handlers={
            ApiError: _refused,
            HTTPException: _no_route,
            DiskFull: _full,
            FtbridgeError: _failed,
            Exception: _internal,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service
    app.state.metrics = metrics.ServerMetrics()
    app.state.batches = batches.OpenBatches(service)
    inner: ASGIApp = app if service.account is None else FaultGate(app, service, service.account)
    patterns_by_route = patterns(extra)
    if service.faults is not None:
        inner = Injecting(inner, service.faults, patterns_by_route)
    return _Around(inner, service, access, app.state.metrics, patterns_by_route)


async def health(request: Request) -> Response:
    """GET /health: alive, and with what."""
    service: Service = request.app.state.service
    return JSONResponse({"status": "ok", "engine": service.engine.name, "version": __version__})


async def version(_: Request) -> Response:
    """GET /version: of this server, and of the interface it follows."""
    return JSONResponse({"version": __version__, "interface": openapi.INTERFACE})


class _Around:
    """What every request passes: one form of its address, the access log, a request id, who may ask, the engine's clock."""

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        access: Access,
        measured: metrics.ServerMetrics,
        routes: list[tuple[str, re.Pattern[str], str]],
    ) -> None:
        self.app, self.service, self.access, self.metrics, self.routes = app, service, access, measured, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name, begun, status, is_complete = f"req_{secrets.token_hex(16)}", time.perf_counter(), 0, False
        asked_path, scope = scope["path"], canonical(scope)
        headers = dict(scope["headers"])
        key = self.access.key_name(headers)

        async def send_message(message: Message) -> None:
            nonlocal status, is_complete
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                spent = f"{1000 * (time.perf_counter() - begun):.0f}"
                more = {
                    "x-request-id": name,
                    "openai-processing-ms": spent,
                    "openai-version": "2020-10-01",
                    "date": formatdate(self.service.clock(), usegmt=True),
                    "openai-organization": self.service.organization,
                    **self.access.cors(headers),
                }
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in more.items())]
            await send(message)

        self.metrics.open += 1
        try:
            await self._answer(scope, headers, receive, send_message)
        except asyncio.CancelledError:  # the server stops: the grace of answers under way is over
            if status == 0:
                await ApiError(503, "The server is stopping.", code="stopping").response()(scope, receive, send_message)
        except Exception as error:
            # Starlette raises again what it has answered with 500; the server would end the connection for that.
            if status == 0:
                response = await _internal(Request(scope), error)
                await response(scope, receive, send_message)
            elif not is_complete:
                raise
        finally:
            self.metrics.open -= 1
            spent = time.perf_counter() - begun
            route = self._route(scope["method"], scope["path"])
            self.metrics.took(route, status, key or "", spent)
            whose = f" {key}" if key and len(self.access.keys) > 1 else ""
            line = '%s%s "%s %s" %s %.0f ms'
            path = network.printable(asked_path[:200])
            log.info(line, name, whose, scope["method"], path, status or "cut", 1000 * spent)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS" and (preflight := self.access.preflight(headers)) is not None:
            await preflight(scope, receive, send)
            return
        refusal = self.access.refusal(scope["method"], scope["path"], headers, tls=scope.get("scheme") == "https")
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        try:
            scope, receive = decoded(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        self.service.engine.advance()
        await self.app(scope, receive, send)

    def _route(self, method: str, path: str) -> str:
        """The request's route, as metrics name it; what is none is told as one."""
        return route_of(self.routes, method, path) or (f"{method} {path}" if path in _PAGES else "other")


_PAGES = ("/", "/health", "/version", "/metrics", "/openapi.json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"Unknown request URL: {request.method} {request.url.path}." if error.status_code == 404 else error.detail
    code = "unknown_url" if error.status_code == 404 else None
    return ApiError(error.status_code, text, code=code, headers=dict(error.headers or {})).response()


async def _full(_: Request, error: Exception) -> Response:
    assert isinstance(error, DiskFull)
    return ApiError(507, without_paths(error.message), code="disk_full", type="server_error").response()


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, FtbridgeError)
    log.error("%s", error)
    return ApiError(500, without_paths(error.message), code="server_error").response()


async def _internal(_: Request, error: Exception) -> Response:
    log.error("internal error", exc_info=error)
    return ApiError(500, "The server had an internal error; see its log.", code="internal_error").response()
