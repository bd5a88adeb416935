"""Batches of requests, each made exactly once: for completions of test items, and for whoever else has lines to send.

    lines {custom_id: request} ─▶ upload once ─▶ create once ─▶ follow ─▶ output and error files, joined on custom_id
               ▲                                                   │
               └── a queue that is too short: halves ◀─────────────┤ failed: token_limit_exceeded
               └── what is missing: two halves ◀───────────────────┘ expired

A batch is named by its owner, the hash of its requests, and how often they failed: a process that is killed and started again
goes on with the same one.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ftbridge import files
from ftbridge.errors import FtbridgeError, ModelUnavailable
from ftbridge.http import sleep
from ftbridge.providers.openai.client import Connection, items_of
from ftbridge.providers.openai.errors import ServiceUnavailable, clean, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.once import once
from ftbridge.providers.openai.jobs.upload import ensure_file
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.retry import LATEST, SOONEST, read

MOST_LINES = 50_000
MOST_BYTES = 200_000_000
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_ENDED_BADLY = frozenset({"failed", "cancelled", "cancelling", "expired"})
_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
QUEUE_FULL = "token_limit_exceeded"
"""The code of a batch that failed because its requests do not fit the queue of enqueued tokens."""
_MOST_LISTED = 1000
LONGEST_BATCH_SECONDS = 30 * 3600.0
"""Longest wait for one batch; the window is 24 hours."""
QUEUE_WAITS = (60.0, 300.0, 900.0, 1800.0, 3600.0)
"""Seconds to wait for room in the queue before a single request that does not fit is sent again."""
_FRUITLESS = 2
"""Batches of the same requests, halves included, that may expire without any result before it is given up."""
AGAIN = "Resume the run: only what is missing is requested again, in a new batch."


@dataclass(frozen=True)
class BatchLine:
    """One line of a batch's output or error file. `status` is 0 where the request was never answered."""

    key: str
    status: int
    body: dict[str, Any]
    error: dict[str, Any]
    batch: str


T = TypeVar("T")


class Batches:
    """Sends lines with one connection. `ledger` remembers every batch; `again` is the hint of errors that resuming fixes,
    `looked` is called with a batch each time that it is looked at.
    """

    def __init__(
        self,
        at: Connection,
        ledger: Ledger,
        *,
        again: str = AGAIN,
        looked: Callable[[Any], None] = lambda batch: None,
    ) -> None:
        self._at, self._ledger, self._again, self._looked = at, ledger, again, looked
        self._why = ""

    def send(self, lines: dict[str, bytes], understand: Callable[[BatchLine], T | None]) -> Iterator[T]:
        """Send every line, and yield what `understand` makes of each result; takes out of `lines` what is done.

        `understand` returns None for a result that leaves its request open: it is sent again. Batches of this owner that hold
        some of these requests are read first: what was paid is not asked again. What a batch leaves open (it expired, or the
        service stumbled) is sent in new ones, as long as they bring something; what does not fit the queue, in halves.
        Raises `ModelUnavailable` when a batch is refused as a whole, or when batches bring nothing.
        """
        yield from self.collect(lines, understand)
        while lines:
            before = len(lines)
            waiting = [(chunk, 0) for chunk in _chunks(list(lines.items()))]
            waits = iter(QUEUE_WAITS)
            while waiting:
                chunk, fruitless = waiting.pop(0)
                digest, batch = self._made(chunk)
                ended = self._ended(batch)
                unanswered = dict(chunk)
                yield from self._read(ended, unanswered, understand)
                for key in dict(chunk).keys() - unanswered.keys():
                    del lines[key]
                if not unanswered:
                    continue
                self._ledger.append("batch_failed", digest=digest, id=ended.id, unanswered=len(unanswered))
                rest = list(unanswered.items())
                fruitless = fruitless + 1 if len(rest) == len(chunk) else 0
                if _overflowed(ended):
                    if len(rest) == 1:
                        self._wait_for_room(ended, waits)
                    waiting[:0] = [(half, 0) for half in _halves(rest)]
                elif ended.status == "expired" and fruitless < _FRUITLESS:
                    waiting[:0] = [(half, fruitless) for half in _halves(rest)]
                else:
                    self._give_up_unless_it_helps(ended, unanswered, len(chunk))
            if len(lines) == before:
                raise ModelUnavailable(f"{self._at.service} did not answer {before} requests.", hint=self._again)

    def collect(self, lines: dict[str, bytes], understand: Callable[[BatchLine], T | None]) -> Iterator[T]:
        """What earlier batches of this owner hold of these lines, waited for where they are under way; makes none."""
        for batch in self._earlier(lines):
            yield from self._read(batch, lines, understand)

    def _wait_for_room(self, batch: Any, waits: Iterator[float]) -> None:
        """Wait for other batches of the organization to leave the queue. Raises `ModelUnavailable` when they do not."""
        seconds = next(waits, None)
        if seconds is None:
            raise ModelUnavailable(
                f"the queue of {self._at.service} has had no room for a single request for two hours: {_reason(batch)}",
                hint=self._again,
            )
        sleep(seconds)

    def _give_up_unless_it_helps(self, batch: Any, unanswered: dict[str, bytes], sent: int) -> None:
        """Raise `ModelUnavailable` for a batch that brought nothing, or that was refused or cancelled as a whole."""
        if len(unanswered) < sent and batch.status in ("completed", "expired"):
            return
        raise ModelUnavailable(
            f"batch {batch.id} ended ({batch.status}) with {len(unanswered)} of {sent} requests unanswered: "
            f"{self._why or _reason(batch)}",
            hint=self._again,
        )

    def _read(self, batch: Any, lines: dict[str, bytes], understand: Callable[[BatchLine], T | None]) -> Iterator[T]:
        """What `understand` makes of a batch's results, taken out of `lines`; of what stays, `_why` holds a reason."""
        self._why = ""
        for name in ("output_file_id", "error_file_id"):
            file = getattr(batch, name, None)
            for line in self._content(str(file)) if file else ():
                key = str(line.get("custom_id"))
                if key not in lines:
                    continue
                response = _dict(line.get("response"))
                status, body = response.get("status_code"), _dict(response.get("body"))
                error = _dict(line.get("error")) or _dict(body.get("error"))
                result = understand(
                    BatchLine(key, status if isinstance(status, int) else 0, body, error, str(batch.id))
                )
                if result is not None:
                    del lines[key]
                    yield result
                else:
                    self._why = self._why or clean(error.get("message") or "no reason given")

    def _earlier(self, lines: dict[str, bytes]) -> Iterator[Any]:
        """Batches that this run made of some of these requests before it was stopped, once they have ended."""
        failed = {event.data["id"] for event in self._ledger.of("batch_failed")}
        for event in self._ledger.of("batch_requests"):
            hashes = _read_hashes(self._ledger.folder / f"batch-{event.data['digest'][:16]}.json")
            if not any(hashes.get(key) == _hash(line) for key, line in lines.items()):
                continue
            source = self._ledger.recorded("file", event.data["digest"])
            token = self._token(event.data["digest"])
            if source is None or (
                self._ledger.recorded("batch", token) is None and self._ledger.open_intent("batch", token) is None
            ):
                continue  # nothing was asked: a new batch may be another
            if (batch := self._created(source, token)) not in failed:
                yield self._ended(batch)

    def _made(self, lines: Sequence[tuple[str, bytes]]) -> tuple[str, str]:
        """The hash of the requests, and the batch of them, made exactly once."""
        content = b"".join(line for _, line in lines)
        digest = files.sha256_bytes(content)
        hashes = {key: _hash(line) for key, line in lines}
        files.write_json(self._ledger.folder / f"batch-{digest[:16]}.json", hashes)
        if self._ledger.last("batch_requests", digest=digest) is None:
            self._ledger.append("batch_requests", digest=digest, requests=len(lines))
        path = self._ledger.folder / f"requests-{digest[:8]}.jsonl"
        files.write_bytes(path, content)
        try:
            source = ensure_file(self._at, self._ledger, path, "requests", purpose="batch")
        finally:
            path.unlink(missing_ok=True)
        return digest, self._created(source, self._token(digest))

    def _token(self, digest: str) -> str:
        failures = sum(event.data["digest"] == digest for event in self._ledger.of("batch_failed"))
        return f"{self._ledger.folder.parent.name}-{digest[:16]}-{failures}"

    def _created(self, source: str, token: str) -> str:
        batches = self._at.client.batches

        def act() -> str:
            shown = batches.create(
                input_file_id=source,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={TOKEN_KEY: token},
            )
            return str(require_fields(shown, "id").id)

        def look(_: object) -> str | None:
            matching = read(lambda: self._matching(source, token), "looking for the batch", self._at.service)
            return str(matching[-1].id) if matching else None

        batch_id = once(self._ledger, "batch", token, act=act, find=look, service=self._at.service)
        if self._ledger.last("lost", what="batch", key=token) is not None:
            self._cancel_twins(source, token, batch_id)
        return batch_id

    def _matching(self, source: str, token: str) -> list[Any]:
        """Batches of this token, newest first; where a host keeps no metadata, those that read the same file of requests.

        That file is named by the hash of its requests, so that another run's batch of it has the same completions.
        """
        others = {event.data["id"] for event in self._ledger.of("batch_failed")}
        others |= {
            event.data["id"]
            for event in self._ledger.of("made")
            if event.data["what"] == "batch" and event.data["key"] != token
        }
        batches = []
        for batch in self._listed():
            carried = (getattr(batch, "metadata", None) or {}).get(TOKEN_KEY)
            same_file = getattr(batch, "input_file_id", None) == source and batch.id not in others
            if carried == token or (carried is None and same_file and batch.status not in _ENDED_BADLY):
                batches.append(batch)
        return batches

    def _listed(self) -> Iterator[Any]:
        """The newest batches of the account."""
        batches = items_of(lambda after: self._at.client.batches.list(limit=100, **after))
        return itertools.islice(batches, _MOST_LISTED)

    def _cancel_twins(self, source: str, token: str, batch_id: str) -> None:
        """After a creation without an answer: end any further batch that came of it, which would be paid besides."""
        for batch in read(lambda: self._matching(source, token), "looking for the batch", self._at.service):
            if batch.id == batch_id or batch.status in _ENDED:
                continue
            cancel = functools.partial(self._at.client.batches.cancel, batch.id)
            with suppress(FtbridgeError):
                read(cancel, "cancelling a batch", self._at.service)
            self._ledger.append(
                "note", level="warn", message=f"{batch.id}, a second batch of one request, was cancelled"
            )

    def _ended(self, batch: str) -> Any:
        pause, waited = SOONEST, 0.0
        while True:
            shown = read(
                lambda: require_fields(self._at.client.batches.retrieve(batch), "status"),
                "following the batch",
                self._at.service,
            )
            self._looked(shown)
            if shown.status in _ENDED:
                return shown
            if waited >= LONGEST_BATCH_SECONDS:
                raise ServiceUnavailable(
                    f"{self._at.service} has not ended the batch {batch} ({shown.status}) in {waited / 3600:.0f} hours; "
                    "it promises 24.",
                    hint="Resume the run to wait again, or cancel the batch at the service.",
                )
            sleep(pause)
            waited += pause
            pause = min(pause * 1.3, LATEST)

    def _content(self, file: str) -> Iterator[dict[str, Any]]:
        text = read(lambda: self._at.client.files.content(file).read(), "reading the answers", self._at.service)
        for line in text.split(b"\n"):
            if line.strip():
                try:
                    document = json.loads(line)
                except ValueError:
                    document = None
                if not isinstance(document, dict):
                    raise FtbridgeError(f"{self._at.service} gave a result file that is not JSONL: {file}.")
                yield document


def _overflowed(batch: Any) -> bool:
    """Whether a batch failed because the queue of enqueued tokens has no room for it."""
    data = getattr(getattr(batch, "errors", None), "data", None) or []
    return batch.status == "failed" and any(getattr(error, "code", None) == QUEUE_FULL for error in data)


def _halves(lines: list[tuple[str, bytes]]) -> list[list[tuple[str, bytes]]]:
    middle = (len(lines) + 1) // 2
    return [half for half in (lines[:middle], lines[middle:]) if half]


def _hash(line: bytes) -> str:
    return files.sha256_bytes(line)[:16]


def _read_hashes(path: Path) -> dict[str, str]:
    """Hash of each request of a batch, by its key; empty where the file is gone."""
    try:
        hashes: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return hashes


def _chunks(lines: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Lines in as few files as the service's limits allow."""
    chunk: list[tuple[str, bytes]] = []
    size = 0
    for key, line in lines:
        if chunk and (len(chunk) >= MOST_LINES or size + len(line) > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((key, line))
        size += len(line)
    if chunk:
        yield chunk


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _reason(batch: Any) -> str:
    data = getattr(getattr(batch, "errors", None), "data", None) or []
    return clean(getattr(data[0], "message", None) or "no reason given") if data else "no reason given"
