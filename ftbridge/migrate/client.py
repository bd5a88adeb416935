"""One key at one address: reads that obey the stated limits, are retried, and return refusals as values.

A refusal that a migration can live with (a missing scope, something that is gone) comes back as a `ServiceReply` with its
fault. No usable response, a limit that outlasts the retries, and a key that the service does not know are raised.
"""

from __future__ import annotations

import email.utils
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ftbridge import files
from ftbridge.errors import ProviderRefused, UsageError
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.limits import RateLimits
from ftbridge.migrate.objects import MigrationKey
from ftbridge.providers.openai.client import TIMEOUT, checked, http_client
from ftbridge.providers.openai.errors import NotTheService, ServiceFault, fault_of
from ftbridge.providers.openai.retry import read
from ftbridge.providers.openai.targets import TARGETS
from ftbridge.redaction import remember

PROJECT_KEY, ADMIN_KEY = "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"
_ADMIN = re.compile(r"sk-admin-")
_SCOPES = re.compile(r"[Mm]issing scopes?:\s*([\w-]+(?:\.[\w-]+)*(?:,\s*[\w-]+(?:\.[\w-]+)*)*)")
_DENIED = re.compile(r"scope|permission|insufficient|not allowed|role|admin", re.IGNORECASE)
CLOCK_TOLERANCE = 120.0
"""Seconds between this machine's clock and the service's that are not worth a word."""


@dataclass(frozen=True)
class ServiceReply:
    """A response. `document` is its JSON object, empty for a refusal; `fault` says why it was refused, None for a success."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    fault: ServiceFault | None = None

    @property
    def ok(self) -> bool:
        """Whether the service did what the request says."""
        return self.fault is None

    @property
    def missing(self) -> bool:
        """Whether the thing is not there."""
        return self.status == 404

    @property
    def scope(self) -> str | None:
        """The scopes that the key lacks, as the service names them; None where it names none."""
        match = _SCOPES.search(self.fault.message) if self.fault is not None else None
        return match.group(1).strip() if match else None

    @property
    def reason(self) -> str:
        """Why it was refused, in the service's words; empty for a success."""
        return self.fault.message if self.fault is not None else ""


class Client:
    """Requests with one key. `skew` is the service's clock minus this machine's in seconds, None before the first response."""

    def __init__(self, source: MigrationKey, base_url: str, key: str) -> None:
        self.source = source
        self.base_url = base_url.rstrip("/")
        self.limits = RateLimits()
        self.skew: float | None = None
        self.organization: str | None = source.organization
        self.project: str | None = source.project
        self._key = key
        self._http: Any = None

    @property
    def service(self) -> str:
        """The service in messages, with the variable that holds the key."""
        host = self.base_url.split("://")[-1].split("/")[0]
        return f"{host} (key of {self.source.variable})"

    def get(self, path: str, params: dict[str, Any] | None = None, *, doing: str) -> ServiceReply:
        """The response to a read, after as many tries as it takes. Raises `ServiceUnavailable`, `ProviderRefused`."""

        def once() -> ServiceReply:
            with self._sent(path, params=params) as response:
                return self._reply(response)

        return self._checked(read(once, doing, self.service), doing)

    def download(
        self, path: str, to: Path, *, doing: str, progress: Callable[[int], None] = lambda _: None
    ) -> ServiceReply:
        """Stream a content to `to`, whole or not at all; `progress` is called with each block's bytes. Raises as `get` does."""

        def once() -> ServiceReply:
            with self._sent(path, stream=True) as response:
                if response.status_code >= 400:
                    response.read()
                    return self._reply(response)
                with files.atomic_path(to) as temporary:
                    temporary.chmod(0o600)
                    received = 0
                    with temporary.open("wb") as stream:
                        for block in response.iter_bytes(1 << 20):
                            stream.write(block)
                            received += len(block)
                            progress(len(block))
                    _require_whole(response, received)
                return ServiceReply(response.status_code, self._headers(response))

        return self._checked(read(once, doing, self.service), doing)

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None

    @contextmanager
    def _sent(self, path: str, *, stream: bool = False, params: dict[str, Any] | None = None) -> Iterator[Any]:
        self.limits.wait()
        if self._http is None:
            self._http = http_client(self.base_url)
        headers = {"Authorization": f"Bearer {self._key}"}
        address = f"{self.base_url}{path}"
        with self._http.stream("GET", address, headers=headers, params=params, timeout=TIMEOUT) as response:
            self._note(response)
            if not stream:
                response.read()
            yield response

    def _note(self, response: Any) -> None:
        """What every response tells beside its body: limits, the service's clock, whose key this is."""
        headers = self._headers(response)
        self.limits.seen(headers)
        if self.skew is None and (moment := headers.get("date")):
            try:
                self.skew = email.utils.parsedate_to_datetime(moment).timestamp() - time.time()
            except (ValueError, TypeError):
                pass
        self.organization = headers.get("openai-organization") or self.organization
        self.project = headers.get("openai-project") or self.project

    @staticmethod
    def _headers(response: Any) -> dict[str, str]:
        return {str(name).lower(): str(value) for name, value in response.headers.items()}

    def _reply(self, response: Any) -> ServiceReply:
        """The response as a `ServiceReply`; what asking again may change is raised for `read` to see."""
        body = _json(response)
        if response.status_code < 400:
            if not isinstance(body, dict):
                raise NotTheService("the response is not a JSON object")
            return ServiceReply(response.status_code, self._headers(response), body)
        failure = _Failed(response, body)
        fault = fault_of(failure)
        if fault.kind not in ("refused", "missing", "data", "tomorrow"):
            raise failure
        return ServiceReply(response.status_code, self._headers(response), fault=fault)

    def _checked(self, reply: ServiceReply, doing: str) -> ServiceReply:
        """The reply, unless the service does not know the key or the account cannot pay: nothing else can work then."""
        fault = reply.fault
        if fault is None or self.source.kind == "admin":
            return reply
        if fault.status == 401 and not _DENIED.search(f"{fault.message} {fault.code}"):
            raise ProviderRefused(
                f"{doing}: {self.service} does not accept the API key ({fault.message}).",
                hint=f"Check {self.source.variable}, and that it belongs to {self.base_url}.",
            )
        return reply


class _Failed(Exception):
    """A response that is an error, in the shape that `fault_of` reads."""

    def __init__(self, response: Any, body: Any) -> None:
        super().__init__(f"{response.status_code}")
        self.status_code = int(response.status_code)
        self.body = body if body is not None else response.text
        self.response = response
        self.request = response.request


def connect(migration: Migration, variables: Sequence[str] = (), *, base_url: str | None = None) -> list[Client]:
    """A client for each project key: those of the named environment variables, or OPENAI_API_KEY.

    A migration speaks to the service of its first contact ever after. Raises `UsageError` for no key, and for an admin key
    where a project key is needed.
    """
    address = _address(migration, base_url)
    named = list(dict.fromkeys(variables)) or _known_variables(migration) or [PROJECT_KEY]
    clients = [Client(_source(name, _key(name), address, "project"), address, _key(name)) for name in named]
    by_key = {client.source.id: client for client in reversed(clients)}
    return list(reversed(by_key.values()))


def connect_admin(migration: Migration) -> Client | None:
    """A client with the key of OPENAI_ADMIN_KEY; None where that is not set."""
    key = os.environ.get(ADMIN_KEY, "").strip()
    if not key:
        return None
    remember(key)
    address = _address(migration, None)
    return Client(_source(ADMIN_KEY, key, address, "admin"), address, key)


def note_source(migration: Migration, client: Client, identity: Mapping[str, Any]) -> MigrationKey:
    """The client's source with the organization and project that the service named, written once to the journal.

    `told` is what stored responses named, for a process that sent no request itself.
    """
    last = migration.last("source", id=client.source.id)
    source = MigrationKey.model_validate(last.data) if last is not None else client.source
    update = {
        "organization": client.organization or identity.get("organization") or source.organization,
        "project": client.project or identity.get("project") or source.project,
    }
    client.source = client.source.model_copy(update=update)
    if last is None or source != client.source:
        migration.append("source", **client.source.model_dump())
    return client.source


def fingerprint(address: str, key: str) -> str:
    """A name for a key at an address from which the key cannot be read back: 12 hex digits."""
    return files.sha256_bytes(f"{address}\n{key}".encode("utf-8", "surrogateescape"))[:12]


def in_path(name: str) -> str:
    """A name as one segment of a path; colons stay, as the SDK writes them."""
    return quote(name, safe=":")


def _address(migration: Migration, base_url: str | None) -> str:
    recorded = migration.service
    requested = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if recorded:
        if base_url is not None and base_url.rstrip("/") != recorded.rstrip("/"):
            raise UsageError(
                f"the migration {migration.name!r} leaves {recorded}, not {base_url}.",
                hint="Name another migration: --migration NAME",
            )
        return recorded
    address = checked(requested or TARGETS["openai"].base_url or "")
    migration.append("service", base_url=address)
    return address


def _known_variables(migration: Migration) -> list[str]:
    """The variables whose keys were used before, so that a resumed step needs no options."""
    names = [str(event.data["variable"]) for event in migration.of("source") if event.data["kind"] == "project"]
    return list(dict.fromkeys(names))


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"{variable} is not set: a migration needs a key of each project that holds fine-tuned models.",
            hint=f"export {variable}=…   (several projects: --key-env NAME for each; OPENAI_ADMIN_KEY adds usage and limits)",
        )
    if _ADMIN.match(key):
        raise UsageError(
            f"{variable} holds an admin key, which cannot read jobs, files or models.",
            hint=f"Create a key in the project and set {variable} to it; keep the admin key in {ADMIN_KEY}.",
        )
    remember(key)
    return key


def _source(variable: str, key: str, address: str, kind: Any) -> MigrationKey:
    return MigrationKey(id=fingerprint(address, key), variable=variable, kind=kind)


def _json(response: Any) -> Any:
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def _require_whole(response: Any, received: int) -> None:
    """Raise where fewer bytes came than the service announced: a connection that was cut is not a file."""
    stated = response.headers.get("content-length")
    if stated is not None and "content-encoding" not in response.headers and int(stated) != received:
        raise NotTheService(f"{received:,} of {stated} bytes came")
