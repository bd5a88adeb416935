"""From an application to a port: uvicorn, bound where it was asked to be, stopped gracefully."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ftbridge.errors import UsageError

GRACE_SECONDS = 10
"""How long answers under way may take once the server is asked to stop."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})


class _Protocol(H11Protocol):
    """HTTP/1.1 whose requests know their connection, so that a fault can reset it."""

    def connection_made(self, transport: Any) -> None:
        """A client connected."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UsageError` for an address in use, not ours, or not allowed."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        hint = "Choose another with --port, or 0 for any that is free." if "in use" in str(error) else None
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}.", hint=hint) from None
    listening.set_inheritable(False)
    return listening


def address_of(listening: socket.socket) -> str:
    """`http://HOST:PORT` of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(app: ASGIApp) -> uvicorn.Server:
    """A uvicorn server for the application; it installs signal handlers only in the main thread."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=75,
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends at once."""
    server_of(app).run(sockets=[listening])


@contextlib.contextmanager
def in_background(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread while the block runs. Raises `UsageError` when the server cannot start."""
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True, name="ftbridge-server")
    thread.start()
    give_up = time.monotonic() + 30
    while not server.started:
        if not thread.is_alive() or time.monotonic() > give_up:
            raise UsageError("the server did not start; its log says why.")
        time.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=GRACE_SECONDS + 20)


def log_to_stderr(level: int = logging.INFO) -> None:
    """The access log, one line a request, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("ftbridge.server")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    for name in ("uvicorn.error", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
