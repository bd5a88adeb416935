"""One connection to a service: its address, its key, the SDK's client with the SDK's own retries off; and lists, page by page.

Lists end however a service pages: a cursor that does not move (a gateway that does not pass `after` on, `has_more` that is
always true) ends the list, since a page with items from before its cursor is none.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ftbridge.errors import UsageError
from ftbridge.files import home, sha256_bytes
from ftbridge.providers.openai.errors import SentElsewhere, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.recording import NAME, SWITCH, recorder
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.targets import Target
from ftbridge.redaction import address_problem, remember

if TYPE_CHECKING:
    from openai import OpenAI

TIMEOUT = 120.0
"""Seconds without a byte before a request counts as unanswered."""
UPLOAD_TIMEOUT = 600.0
"""The same for uploads, whose answer may wait until the service has read the file."""
_KEYRING = "ftbridge"


@dataclass(frozen=True)
class Connection:
    """A service as one run speaks to it. `base_url` is fixed at the run's first contact."""

    request: OpenAIRequest
    base_url: str
    exchange: Path | None = None
    """Where the HTTP exchange is recorded, if it is."""

    @property
    def target(self) -> Target:
        """What the service can do."""
        return self.request.service

    @property
    def is_usual_address(self) -> bool:
        """Whether this is the service's own address, and not a gateway or a server of one's own."""
        return self.base_url.rstrip("/") == (self.target.base_url or "").rstrip("/")

    @property
    def service(self) -> str:
        """The service in messages: its name, or its address where it is not the usual one."""
        return self.target.title if self.is_usual_address else f"{self.target.title} ({urlsplit(self.base_url).netloc})"

    @cached_property
    def client(self) -> OpenAI:
        """The SDK's client. It never retries by itself: a repeated POST may be a second paid job."""
        from openai import AzureOpenAI, OpenAI

        key = key_of(self.target)
        options: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": TIMEOUT}
        options["http_client"] = http_client(self.base_url, self.exchange)
        if self.request.api_version is not None and self.target.name == "azure":
            return AzureOpenAI(azure_endpoint=self.base_url, api_version=self.request.api_version, **options)
        if self.target.name == "azure":
            options["default_headers"] = {"api-key": key}
        return OpenAI(
            base_url=self.base_url, organization=self.request.organization, project=self.request.project, **options
        )

    @property
    def account(self) -> str:
        """A name for address, organisation, project and key, of which none can be read back: 16 hex digits."""
        parts = (self.base_url, self.request.organization or "", self.request.project or "", key_of(self.target))
        return sha256_bytes("\n".join(parts).encode("utf-8", "surrogateescape"))[:16]

    @property
    def registry(self) -> Path:
        """Where files of this account are remembered across runs."""
        return home() / "openai" / f"{self.account}.jsonl"


def connect(request: OpenAIRequest, folder: Path) -> Connection:
    """The connection of the run in `folder`: to the address it spoke to before, else to the one asked for now.

    The environment's OPENAI_BASE_URL counts for target openai only, when the spec names no address. Raises `UsageError`.
    """
    ledger = Ledger(folder)
    recorded = ledger.last("service")
    if recorded is not None:
        return Connection(request, str(recorded.data["base_url"]), _exchange(folder))
    address = address_of(request)
    ledger.append("service", target=request.target, base_url=address)
    return Connection(request, address, _exchange(folder))


def address_of(request: OpenAIRequest) -> str:
    """The service's address: the one asked for, the environment's (target openai), else the usual one. Raises `UsageError`."""
    address = request.base_url
    if address is None and request.target == "openai":
        address = os.environ.get("OPENAI_BASE_URL") or None
    return checked(address or request.service.base_url or "")


def _exchange(folder: Path) -> Path | None:
    """The run's recording: begun when it is switched on, and gone on with ever after."""
    path = folder / "openai" / NAME
    return path if path.exists() or os.environ.get(SWITCH, "") not in ("", "0") else None


def checked(address: str) -> str:
    """The address, if requests can be sent to it and it contains no password. Raises `UsageError`."""
    if (problem := address_problem(address)) is not None:
        raise UsageError(f"the address of the service {problem}.")
    return address


def http_client(base_url: str, exchange: Path | None = None) -> Any:
    """An HTTP client for the SDK that takes no key and no data to another origin, wherever the service redirects it.

    A read is followed there without its credentials, as downloads from a store of files need; any other request raises
    `SentElsewhere`. (httpx itself takes away the Authorization header alone, and sends the body again.) With `exchange`, every
    answer is recorded there.
    """
    from openai import DefaultHttpxClient

    home_origin = _origin(base_url)

    def keep_at_home(request: Any) -> None:
        if _origin(str(request.url)) in (home_origin, _upgraded(home_origin)):
            return
        if request.method not in ("GET", "HEAD"):
            raise SentElsewhere(f"a redirect to {request.url.scheme}://{request.url.host}")
        for name in _CREDENTIALS:
            request.headers.pop(name, None)

    hooks: dict[str, list[Any]] = {"request": [keep_at_home]}
    if exchange is not None:
        hooks["response"] = [recorder(exchange)]
    return DefaultHttpxClient(event_hooks=hooks)


_CREDENTIALS = ("authorization", "api-key", "x-api-key", "openai-organization", "openai-project", "cookie")
_PORTS = {"http": 80, "https": 443}


def _origin(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454)."""
    parts = urlsplit(address)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def _upgraded(origin: tuple[str, str, int | None]) -> tuple[str, str, int | None]:
    """The same host over TLS, to which a host may send plain requests on."""
    return ("https", origin[1], 443) if origin[0] == "http" and origin[2] == 80 else origin


def key_of(target: Target) -> str:
    """The service's key, out of the environment or, if the library is installed, the keyring. Raises `UsageError`."""
    for name in target.keys:
        if (key := os.environ.get(name, "").strip() or _from_keyring(name)) is not None:
            remember(key)
            return key
    first = target.keys[0]
    hint = f"export {first}=…, or keep it in the keyring: keyring set {_KEYRING} {first}"
    raise UsageError(f"{target.title} needs an API key, and {' and '.join(target.keys)} is not set.", hint=hint)


def _from_keyring(name: str) -> str | None:
    if importlib.util.find_spec("keyring") is None:
        return None
    try:
        return importlib.import_module("keyring").get_password(_KEYRING, name) or None
    except Exception:  # a keyring that is locked or has no backend is not a keyring
        return None


MOST_PAGES = 1000


def items_of(page_after: Callable[[dict[str, Any]], Any]) -> Iterator[Any]:
    """Every item of a list, once. `page_after` makes one request with these parameters: {} or {"after": ID}.

    Items without an id come from the first page only: there is nothing to go on from. Raises `NotTheService`.
    """
    seen: set[str] = set()
    parameters: dict[str, Any] = {}
    for _ in range(MOST_PAGES):
        page = require_fields(page_after(parameters), "data")
        head = getattr(page.data[0], "id", None) if page.data else None
        earlier = seen - {head} if head == parameters.get("after") else seen  # some services tell each item twice
        if any(getattr(item, "id", None) in earlier for item in page.data):
            return  # the cursor did not move: what is new here came meanwhile, and is first in the next list
        fresh = []
        for item in page.data:
            name = getattr(item, "id", None)
            if name is None and not parameters:
                fresh.append(item)
            elif name is not None and name not in seen:
                seen.add(name)
                fresh.append(item)
        yield from fresh
        last = getattr(page.data[-1], "id", None) if page.data else None
        if not fresh or last is None or getattr(page, "has_more", None) is False:
            return
        parameters = {"after": last}
