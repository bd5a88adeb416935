"""The application: one table of routes, and what is done around every request.

faults (simulator) ─▶ access log, request id ─▶ host and token ─▶ engine.advance ─▶ handler ─▶ OpenAI's error shape
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftbridge import __version__
from ftbridge.errors import DiskFull, FtbridgeError
from ftbridge.server import batches, chat, files, graders, jobs, models, openapi, permissions, uploads
from ftbridge.server.errors import ApiError
from ftbridge.server.scripted import control
from ftbridge.server.scripted.inject import Injecting
from ftbridge.server.service import Service

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
    ("POST", "/batches", batches.create),
    ("GET", "/batches", batches.list_batches),
    ("GET", "/batches/{batch_id}", batches.retrieve),
    ("POST", "/batches/{batch_id}/cancel", batches.cancel),
]
"""Method, path below /v1, handler. The table of docs/server.md is made from this."""

log = logging.getLogger("ftbridge.server")


def patterns() -> list[tuple[str, re.Pattern[str], str]]:
    """Each route as a method, a pattern of its paths, and its name: `GET /files/{}`."""
    told = []
    for method, path, _ in ROUTES:
        inner = re.sub(r"\{\w+:path\}", ".+", path)
        inner = re.sub(r"\{\w+\}", "[^/]+", inner)
        told.append((method, re.compile(f"/v1{inner}"), f"{method} {re.sub(r'{[^}]*}', '{}', path)}"))
    return told


def application(service: Service, *, token: str | None = None, hosts: frozenset[str] | None = None) -> ASGIApp:
    """The whole server as an ASGI application.

    `token` is what clients must send as their key; None takes any key and none. `hosts` are the names that requests may
    call the server by (None: any): a web page cannot reach a loopback server through a name of its own.
    """

    @contextlib.asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        files.tidy(service)
        await service.engine.start(service)
        app.state.batches.start()
        try:
            yield
        finally:
            await app.state.batches.stop()
            await service.engine.stop()
            service.store.close()

    routes = [Route(f"/v1{path}", handler, methods=[method]) for method, path, handler in ROUTES]
    routes += [Route("/health", health), Route("/openapi.json", openapi.document), Route("/", openapi.page)]
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
    app.state.service = service
    app.state.batches = batches.Batches(service)
    around: ASGIApp = _Around(app, service, token, hosts)
    return around if service.faults is None else Injecting(around, service.faults, patterns())


async def health(request: Request) -> Response:
    """GET /health: alive, and with what."""
    service: Service = request.app.state.service
    return JSONResponse({"status": "ok", "engine": service.engine.name, "version": __version__})


class _Around:
    """What every request passes: the access log, a request id, the host, the token, the engine's clock."""

    def __init__(self, app: ASGIApp, service: Service, token: str | None, hosts: frozenset[str] | None) -> None:
        self.app, self.service, self.token, self.hosts = app, service, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name, begun, status = f"req_{secrets.token_hex(16)}", time.perf_counter(), 0
        headers = dict(scope["headers"])

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                spent = f"{1000 * (time.perf_counter() - begun):.0f}"
                more = {
                    "x-request-id": name,
                    "openai-processing-ms": spent,
                    "openai-version": "2020-10-01",
                    "openai-organization": self.service.organization,
                }
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in more.items())]
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                await refusal.response()(scope, receive, told)
                return
            self.service.engine.advance()
            await self.app(scope, receive, told)
        finally:
            spent = time.perf_counter() - begun
            log.info('%s "%s %s" %s %.0f ms', name, scope["method"], scope["path"][:200], status or "cut", 1000 * spent)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0].strip("[]").lower()
        if self.hosts is not None and host not in self.hosts:
            return ApiError(403, f"This server does not answer to the name {host[:100]!r}.", code="wrong_host")
        if self.token is None or path == "/health":
            return None
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        if not given:
            return ApiError(401, "No key was sent. Send the server's token as the API key.", code="missing_api_key")
        if not hmac.compare_digest(given, self.token.encode()):
            return ApiError(401, "This is not the server's token.", code="invalid_api_key")
        return None


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"Unknown request URL: {request.method} {request.url.path}." if error.status_code == 404 else error.detail
    code = "unknown_url" if error.status_code == 404 else None
    return ApiError(error.status_code, text, code=code, headers=dict(error.headers or {})).response()


async def _full(_: Request, error: Exception) -> Response:
    return ApiError(507, str(error), code="disk_full", type="server_error").response()


async def _failed(_: Request, error: Exception) -> Response:
    return ApiError(500, str(error), code="server_error").response()


async def _internal(_: Request, error: Exception) -> Response:
    log.error("internal error", exc_info=error)
    return ApiError(500, "The server made a mistake; its log says which.", code="internal_error").response()
