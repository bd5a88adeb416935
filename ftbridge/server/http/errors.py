"""Errors as OpenAI words them on the wire: {"error": {"message", "type", "param", "code"}} and a status."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told. `status` is HTTP's; `code` a stable word or None; `param` the field at fault or None.

    The SDK makes its own classes of the status: 400 BadRequestError, 401 AuthenticationError, 403 PermissionDeniedError,
    404 NotFoundError, 409 ConflictError, 413 APIStatusError, 429 RateLimitError, 500 and above InternalServerError.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type or (_TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error"))
        self.headers = headers or {}

    def document(self) -> dict[str, Any]:
        """The body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.document(), status_code=self.status, headers=self.headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, message, param=param, code=code)


def not_found(kind: str, name: str, param: str | None = None) -> ApiError:
    """404: there is no such object."""
    return ApiError(404, f"No such {kind}: {name[:200]}", param=param, code=None)


def conflict(message: str, param: str | None = None) -> ApiError:
    """409: not in the state that it is in."""
    return ApiError(409, message, param=param, code="conflict")


_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.@+~-]+/)+[\w.@+~-]*")


def without_paths(text: str) -> str:
    """A text that clients may see: of every absolute path only its last part, since the rest is this machine's affair."""
    return _PATH.sub(lambda path: path[0].rstrip("/").rsplit("/", 1)[-1], text)
