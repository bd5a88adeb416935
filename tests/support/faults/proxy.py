"""The wire before the service: a proxy on TCP that cuts, delays, repeats, pages and lies, one request a connection."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from typing import Any
from urllib.parse import urlsplit

KINDS = (
    "cut_before", "cut_after", "half_answer", "empty_answer", "page_200", "page_403", "page_502", "text_403", "json_403",
    "status_429", "status_500", "status_503", "status_408", "redirect", "twice", "late", "slow",
)  # fmt: skip
PAGE = b"<!DOCTYPE html><html><head><title>Please log in</title></head><body>The gateway blocks this.</body></html>"
LATE_SECONDS = 0.4


def route_of(method: str, target: str) -> str:
    """A request with its ids as ID: what faults are ordered by."""
    path = urlsplit(target).path.removeprefix("/v1")
    path = re.sub(r"^/models/.+", "/models/ID", path)
    return f"{method} {re.sub(r'/(?:ftjob|file)-[^/]+', '/ID', path)}"


class Wire:
    """Listens on `port` and passes requests on to the service, unless the account's faults say otherwise."""

    def __init__(self, service: int, account: Any) -> None:
        self._service, self._account = service, account
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._socket.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            request = _read(client)
            if request is None:
                return
            method, target = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")[:2]
            with self._account.lock:
                kind = self._account.fault(route_of(method, target)) or ""
            self._play(client, kind, request)
        except OSError:
            pass  # a client that was killed
        finally:
            client.close()

    def _play(self, client: socket.socket, kind: str, request: bytes) -> None:
        if kind == "cut_before":
            return _reset(client)
        if kind.startswith("page_"):
            return client.sendall(_answer(int(kind[5:]), PAGE, "text/html"))
        if kind == "text_403":
            return client.sendall(_answer(403, b"error code: 1020", "text/plain"))
        if kind == "json_403":
            return client.sendall(_answer(403, b'{"message": "Forbidden"}', "application/json"))
        if kind.startswith("status_"):
            body = b'{"error": {"message": "try again", "type": "server_error", "code": null, "param": null}}'
            return client.sendall(_answer(int(kind[7:]), body, "application/json", "retry-after: 3\r\n"))
        if kind == "redirect":
            return client.sendall(_answer(302, b"", "text/plain", "location: /login\r\n"))
        if kind == "late":
            threading.Timer(LATE_SECONDS, self._forward, [request]).start()
            return client.sendall(_answer(504, PAGE, "text/html"))
        if kind == "slow":
            time.sleep(0.3)
        response = self._forward(request)
        if kind == "twice":
            response = self._forward(request)
        if kind == "cut_after":
            return _reset(client)
        if kind == "half_answer":
            return client.sendall(response[: len(response) - max(3, len(response) // 3)])
        if kind == "empty_answer":
            return None
        return client.sendall(response)

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._service), timeout=10) as upstream:
            head, _, body = request.partition(b"\r\n\r\n")
            head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head) + b"\r\nconnection: close"
            upstream.sendall(head + b"\r\n\r\n" + body)
            response = b""
            while block := upstream.recv(1 << 16):
                response += block
        return re.sub(rb"(?i)^(HTTP/1.1 [^\r]*)", rb"\1\r\nconnection: close", response, count=1)


def _read(client: socket.socket) -> bytes | None:
    """One whole request; None when the client goes away before its end. Chunks are joined."""
    client.settimeout(20)
    data = b""
    while b"\r\n\r\n" not in data:
        if not (block := client.recv(1 << 16)):
            return None
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        while not body.endswith(b"0\r\n\r\n"):
            if not (block := client.recv(1 << 16)):
                return None
            body += block
        complete, rest = b"", body
        while rest and (size := int(rest.split(b"\r\n", 1)[0], 16)):
            rest = rest.split(b"\r\n", 1)[1]
            complete, rest = complete + rest[:size], rest[size + 2 :]
        head = re.sub(rb"(?i)\r\ntransfer-encoding:[^\r]*", b"", head) + b"\r\ncontent-length: %d" % len(complete)
        return head + b"\r\n\r\n" + complete
    while length and len(body) < int(length[1]):
        if not (block := client.recv(1 << 16)):
            return None
        body += block
    return head + b"\r\n\r\n" + body


def _answer(status: int, body: bytes, kind: str, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
    )
    return head.encode() + body


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
