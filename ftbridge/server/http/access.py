"""Who may ask: which names the server answers to, which web pages, and with which key.

    Host ─▶ Origin, Sec-Fetch-Site ─▶ key          None of them is asked of /health.

A browser sends a page's requests wherever the page wants, loopback included. It says whose page it was: a page of another
origin is refused, unless the operator allowed that origin. Sources: the Fetch standard and W3C Fetch Metadata.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.responses import Response

from ftbridge.errors import UsageError
from ftbridge.server.http.errors import ApiError

Headers = Mapping[bytes, bytes]

_OPEN = frozenset({"/health", "/version"})
_MANY_CORS_HEADERS = "x-request-id, openai-processing-ms, openai-version, openai-organization, retry-after"


@dataclass(frozen=True)
class Access:
    """`keys` maps names to keys; with none any key is taken. `hosts` None: any name. `origins` are those of pages that may."""

    keys: Mapping[str, str] = field(default_factory=dict)
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()

    def refusal(self, method: str, path: str, headers: Headers, *, tls: bool = False) -> ApiError | None:
        """Why a request is not answered; None if it is."""
        host = _text(headers, b"host")
        named = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:@/\[\]]*)(?::\d*)?", host)
        if self.hosts is not None and (named is None or named[1].strip("[]").lower() not in self.hosts):
            return ApiError(403, f"This server does not accept the host name {host[:100]!r}.", code="wrong_host")
        if (error := self._page(method, path, headers, tls)) is not None:
            return error
        if not self.keys or path in _OPEN:
            return None
        key = _key(headers)
        if not key:
            return ApiError(401, "No API key was sent. Send the server's token as the API key.", code="missing_api_key")
        if self.key_name(headers) is None:
            return ApiError(401, "This is not the server's token.", code="invalid_api_key")
        return None

    def key_name(self, headers: Headers) -> str | None:
        """The name of the key that was sent. Every key is compared, so that the time tells nothing."""
        presented, name_of_key = _key(headers), None
        for name, key in self.keys.items():
            if hmac.compare_digest(presented, key.encode()):
                name_of_key = name
        return name_of_key

    def allows(self, origin: str) -> bool:
        """Whether the operator allowed this origin."""
        return bool(origin) and ("*" in self.origins or origin in self.origins)

    def preflight(self, headers: Headers) -> Response | None:
        """The answer to a browser that asks before it sends; None for an origin that is not allowed."""
        origin = _text(headers, b"origin")
        if not self.allows(origin):
            return None
        cors_headers = {
            "Access-Control-Allow-Methods": "GET, POST, DELETE, PUT, OPTIONS",
            "Access-Control-Allow-Headers": _text(headers, b"access-control-request-headers") or "*",
            "Access-Control-Max-Age": "600",
        }
        if _text(headers, b"access-control-request-private-network") == "true":
            cors_headers["Access-Control-Allow-Private-Network"] = "true"
        return Response(status_code=204, headers={**cors_headers, **self.cors(headers)})

    def cors(self, headers: Headers) -> dict[str, str]:
        """The headers that let an allowed page read an answer."""
        origin = _text(headers, b"origin")
        if not self.allows(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _MANY_CORS_HEADERS,
            "Vary": "Origin",
        }

    def _page(self, method: str, path: str, headers: Headers, tls: bool) -> ApiError | None:
        origin, site = _text(headers, b"origin"), _text(headers, b"sec-fetch-site")
        if self.allows(origin):
            return None
        mine = f"{'https' if tls else 'http'}://{_text(headers, b'host')}".lower()
        foreign = bool(origin) and origin.lower() != mine
        if not foreign and site in ("", "same-origin", "none"):
            return None
        if path == "/" and method == "GET" and _text(headers, b"sec-fetch-mode") == "navigate":
            return None  # a link to the page that lists the routes
        whose = f"a page of {origin[:200]}" if foreign else "a page of another site"
        return ApiError(
            403, f"This request comes from {whose}, which is not allowed here (--allow-origin).", code="foreign_origin"
        )


def read_origins(names: Iterable[str]) -> frozenset[str]:
    """Origins as browsers send them: `SCHEME://HOST[:PORT]`, `null`, or `*` for any. Raises `UsageError` for anything else."""
    origins = frozenset(name.strip().rstrip("/").lower() for name in names)
    for origin in origins:
        if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"{origin!r} is not the origin of a web page.",
                hint="Write --allow-origin http://localhost:3000, without a path; * allows every page.",
            )
    return origins


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/:?#@*\[\]]+)(:\d{1,5})?")


def read_keys(path: Path) -> dict[str, str]:
    """Named keys from a file of lines `NAME=KEY`; blank lines and those that begin with # are left out. Raises `UsageError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the keys cannot be read ({error}).") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, key = (part.strip() for part in line.partition("="))
        if not equals or not name.isprintable() or not name or len(key) < 16 or not key.isascii():
            raise UsageError(f"{path}:{number} is not NAME=KEY with a key of at least 16 ASCII characters.")
        if name in keys or key in keys.values():
            raise UsageError(f"{path}:{number} repeats a name or a key.")
        keys[name] = key
    if not keys:
        raise UsageError(f"{path} contains no keys.", hint="Write one a line: NAME=KEY.")
    return keys


def _key(headers: Headers) -> bytes:
    """The key of a request: OpenAI's `Authorization: Bearer KEY`, or Azure's `api-key: KEY`."""
    scheme, _, key = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"api-key", b"").strip()


def _text(headers: Headers, name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").strip()
