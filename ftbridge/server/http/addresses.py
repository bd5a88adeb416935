"""Addresses and bodies as clients write them, brought to one form before they are routed.

    /v1/files/ · /v1//files                      ─▶ /v1/files
    /openai/v1/chat/completions                  ─▶ /v1/chat/completions
    /openai/deployments/NAME/chat/completions    ─▶ /v1/chat/completions, its model NAME
    /openai/fine_tuning/jobs?api-version=…       ─▶ /v1/fine_tuning/jobs
    Content-Encoding: gzip                       ─▶ the body's own bytes, as they come

Azure's paths and its `api-version` are those of its published data-plane interface (2024-10-21) and of its v1 interface.
"""

from __future__ import annotations

import re
import zlib
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.types import Message, Receive, Scope

from ftbridge.server.http.errors import ApiError

DEPLOYMENT = "ftbridge.deployment"
"""Where the scope of a request names the deployment of its path."""
AZURE = "ftbridge.azure"
"""Where the scope says that a request came by one of Azure's paths."""
_PIECE = 1 << 20


def canonical(scope: Scope) -> Scope:
    """The scope with the path of the route that is meant."""
    path: str = scope["path"]
    path = re.sub(r"/{2,}", "/", path)
    changes: dict[str, object] = {}
    if path.startswith("/openai/"):
        changes[AZURE] = True
        rest = path.removeprefix("/openai")
        if (named := re.fullmatch(r"/deployments/([^/]+)(/.*)", rest)) is not None:
            changes[DEPLOYMENT] = unquote(named[1])
            rest = named[2]
        path = rest if rest.startswith("/v1/") else f"/v1{rest}"
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        changes["query_string"] = urlencode([(key, value) for key, value in query if key != "api-version"]).encode()
    if len(path) > 1:
        path = path.rstrip("/") or "/"
    if path == scope["path"] and not changes:
        return scope
    return {**scope, **changes, "path": path, "raw_path": path.encode("utf-8", "surrogateescape")}


def decoded(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The request with a body that is not compressed. Raises `ApiError` 415 for an encoding that is not known."""
    headers = dict(scope["headers"])
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if encoding in ("", "identity"):
        return scope, receive
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ApiError(415, f"A body in the encoding {encoding[:40]!r} cannot be read; gzip and deflate can.")
    left_out = (b"content-encoding", b"content-length")
    remaining = [(name, value) for name, value in scope["headers"] if name not in left_out]
    return {**scope, "headers": remaining}, _Inflating(receive).receive


class _Inflating:
    """A receiver that inflates a body in pieces of at most a mebibyte, so that a small body cannot fill the memory."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._waiting = b""
        self._begun = False
        self._last = False
        self._done = False

    async def receive(self) -> Message:
        """The next message."""
        if self._done:
            return await self._receive()
        while not self._waiting and not self._last:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._waiting, self._last = message.get("body", b""), not message.get("more_body", False)
        try:
            if not self._begun and self._waiting and self._waiting[0] & 0x0F != 8 and self._waiting[0] != 0x1F:
                self._inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)  # deflate without zlib's frame
            self._begun = self._begun or bool(self._waiting)
            body = self._inflater.decompress(self._waiting, _PIECE)
        except zlib.error as error:
            raise ApiError(400, f"The compressed body is broken: {error}.", code="invalid_encoding") from None
        self._waiting = self._inflater.unconsumed_tail
        if self._inflater.eof and self._inflater.unused_data[:2] == b"\x1f\x8b":  # another member, as of joined files
            self._waiting = self._inflater.unused_data
            self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._done = self._last and not self._waiting and (len(body) < _PIECE or self._inflater.eof)
        if self._done and not self._inflater.eof:
            raise ApiError(400, "The compressed body ends too early.", code="invalid_encoding")
        return {"type": "http.request", "body": body, "more_body": not self._done}
