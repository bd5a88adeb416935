"""From an application to a port: uvicorn, bound where it was asked to be, stopped gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ftbridge.errors import UsageError

log = logging.getLogger("ftbridge.server")

GRACE_SECONDS = 10
"""How long answers under way may take once the server is asked to stop."""
HEAD_SECONDS = 20
"""How long a connection may take to send the head of a request, from its opening or from the first byte of a later one."""
BODY_SECONDS = 60
"""How long a body may pause."""
BACKLOG = 96
"""Connections that the kernel holds ready, and that are taken in one go."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})


class _Protocol(H11Protocol):
    """HTTP/1.1 whose requests know their connection, so that a fault can reset it, and whose silent connections end.

    A connection has `HEAD_SECONDS` to send a whole request head, and may be silent for `BODY_SECONDS` within a body. When there
    are as many connections as the process may hold, the oldest that is not being answered makes room.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client connected."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        self._wait(HEAD_SECONDS)
        if len(self.connections) > most_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._wait(BODY_SECONDS)
        elif state is h11.IDLE:  # part of a head; its time runs from its first byte
            if self._deadline is None:
                self._wait(HEAD_SECONDS)
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _make_room(self) -> None:
        for connection in list(self.connections):
            if isinstance(connection, _Protocol) and connection is not self and connection.is_idle:
                _tell_once("the limit of connections is reached; the oldest idle ones are closed")
                self.connections.discard(connection)
                connection.transport.close()
                return


def most_connections() -> int:
    """How many connections are held at once: what the limit of open files leaves beside our own files."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 16 if limit == resource.RLIM_INFINITY else max(16, min(1 << 16, limit - BACKLOG - 40))


_last_told = 0.0


def _tell_once(text: str) -> None:
    """One line a minute."""
    global _last_told
    if time.monotonic() - _last_told > 60 or not _last_told:
        _last_told = time.monotonic()
        log.warning("%s", text)


def calm_loop() -> None:
    """Let the running event loop tell that no more files can be opened once a minute, not at every attempt."""
    loop = asyncio.get_running_loop()

    def handle(its: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            _tell_once(f"no more connections can be accepted: {error.strerror}")
            return
        its.default_exception_handler(context)

    loop.set_exception_handler(handle)


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
        hint = "Choose another with --port, or 0 for any that is free." if error.errno == errno.EADDRINUSE else None
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}.", hint=hint) from None
    listening.set_inheritable(False)
    return listening


def address_of(listening: socket.socket, *, tls: bool = False) -> str:
    """`http://HOST:PORT` of a listening socket, or `https://` with TLS."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@dataclass(frozen=True)
class Tls:
    """A certificate with its chain, and its key, both PEM."""

    certificate: Path
    key: Path | None = None

    def check(self) -> None:
        """Raise `UsageError` for files that cannot serve: missing, no PEM, a key that is another's or has a passphrase."""
        for path in (self.certificate, self.key):
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as error:
                raise UsageError(f"{path} cannot be read ({error.strerror}).") from None
        where = self.key or self.certificate

        def passphrase() -> str:
            hint = "Save it without a passphrase (openssl pkey -in KEY -out NEW), readable only by the server."
            raise UsageError(f"the key in {where} has a passphrase, but the server cannot ask for it.", hint=hint)

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                text = f"the key in {where} is not that of the certificate in {self.certificate}."
                raise UsageError(text, hint="Give the key that the certificate was made with as --tls-key.") from None
            hint = "Both are PEM files: the certificate with its chain, and its key." if self.key is None else None
            text = f"{self.certificate} and {where} are not a certificate and its key in PEM ({error.reason or error})."
            raise UsageError(text, hint=hint) from None


def server_of(app: ASGIApp, tls: Tls | None = None) -> uvicorn.Server:
    """A uvicorn server for the application; it installs signal handlers only in the main thread."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,  # the application's, by the service's clock
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=75,
        backlog=BACKLOG,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listening: socket.socket, tls: Tls | None = None) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends at once. Raises `UsageError` for a certificate that cannot be used."""
    if tls is not None:
        tls.check()
    with ended_by_sigterm():
        server_of(app, tls).run(sockets=[listening])


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exit with status 0, so that its `with` statements remove what is temporary.

    uvicorn stops gracefully at the signal and then raises it again, which would otherwise end the process on the spot.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one does not interrupt the removal
        raise SystemExit(0)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def in_background(app: ASGIApp, listening: socket.socket, tls: Tls | None = None) -> Iterator[None]:
    """Serve in a thread while the block runs. Raises `UsageError` when the server cannot start."""
    server = server_of(app, tls)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True, name="ftbridge-server")
    thread.start()
    give_up = time.monotonic() + 30
    while not server.started:
        if not thread.is_alive() or time.monotonic() > give_up:
            raise UsageError("the server did not start; see its log.")
        time.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=GRACE_SECONDS + 20)


class OneLine(logging.Formatter):
    """Log lines whose control characters are written out: what a client sends can neither begin a line nor steer a terminal.

    Tracebacks keep their line breaks.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, PLW
        """The line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))


def printable(text: str) -> str:
    """The text with everything that does not print written out, as in a backslash and x1b for an escape."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode() for one in text
    )


def log_to_stderr(level: int = logging.INFO) -> None:
    """The access log, one line a request, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("ftbridge.server")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    for name in ("uvicorn.error", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
