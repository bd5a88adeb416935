"""Answers through the Batch API: half the price, within 24 hours, in no order.

    prompts ─▶ requests.jsonl ─▶ upload once ─▶ create once ─▶ follow ─▶ output and error files, joined on custom_id

The batch is named by the run, the hash of its requests, and how often they failed: a run that is killed and resumed goes on
with the same one.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from ftbridge import files
from ftbridge.errors import FtbridgeError, ModelUnavailable, PromptsRefused
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.chat import NoCompletion, body_of, completion_of
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import NotTheService, ServiceUnavailable, clean, whole
from ftbridge.providers.openai.ledger import Ledger
from ftbridge.providers.openai.listing import items_of
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.once import once
from ftbridge.providers.openai.retry import LATEST, SOONEST, read, sleep
from ftbridge.providers.openai.upload import ensure_file
from ftbridge.redaction import whole_characters

MOST_LINES = 50_000
MOST_BYTES = 200_000_000
_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_ENDED_BADLY = frozenset({"failed", "cancelled", "cancelling", "expired"})
_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
_OF_THE_PROMPT = frozenset({400, 413, 422})
"""Refusals of one request in a batch; asking again, and paying again, cannot help."""
_MOST_LISTED = 1000
LONGEST_BATCH_SECONDS = 30 * 3600.0
"""Longest wait for one batch; the window is 24 hours."""
_AGAIN = "Resume the run: only what is missing is asked again, in a new batch."


class BatchSampler:
    """Answers prompts with one model through batches. Blocks for as long as the service takes."""

    def __init__(self, at: Connection, model: str, ledger: Ledger) -> None:
        self._at, self._model, self._ledger = at, model, ledger

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, batch_size: int) -> Iterator[Completion]:
        """Yield one completion for each prompt. `batch_size` has no bearing here.

        Batches of this run that hold some of these requests are read first: what was paid is not asked again. What a batch
        leaves open (it expired, or the service stumbled) is asked in a new one, as long as each brings something. A prompt
        that the service refuses, or answers without a completion, becomes a completion with an `error`.
        Raises `PromptsRefused` when it refuses all, `ModelUnavailable` when a batch fails or brings nothing.
        """
        del batch_size
        lines = {prompt.key: _line(prompt, self._model, self._at, max_tokens) for prompt in prompts}
        refused: dict[str, str] = {}
        answered = 0
        for completion in self._all(lines):
            if completion.error is not None:
                refused[completion.key] = completion.error
            else:
                answered += 1
                yield completion
        if refused and not answered:
            first = next(iter(refused.values()))
            raise PromptsRefused(f"{self._at.service} completes none of the prompts ({first}).", reasons=refused)
        yield from (_without_text(key, reason) for key, reason in refused.items())

    def close(self) -> None:
        """Nothing to let go of: a batch under way goes on, and is found again."""

    def _all(self, lines: dict[str, bytes]) -> Iterator[Completion]:
        """Completions out of batches that are there, then out of new ones; takes out of `lines` what is done."""
        for batch in self._earlier(lines):
            yield from self._read(batch, lines)
        while lines:
            before = len(lines)
            for chunk in _chunks(list(lines.items())):
                digest, batch = self._made(chunk)
                ended = self._ended(batch)
                open_lines = dict(chunk)
                yield from self._read(ended, open_lines)
                for key in dict(chunk).keys() - open_lines.keys():
                    del lines[key]
                if open_lines:
                    self._ledger.append("batch_failed", digest=digest, id=ended.id, unanswered=len(open_lines))
                    self._give_up_unless_it_helps(ended, open_lines, len(chunk))
            if len(lines) == before:
                raise ModelUnavailable(f"{self._at.service} left {before} requests unanswered.", hint=_AGAIN)

    def _give_up_unless_it_helps(self, batch: Any, unanswered: dict[str, bytes], asked: int) -> None:
        """Raise `ModelUnavailable` for a batch that brought nothing, or that was refused or cancelled as a whole."""
        if len(unanswered) < asked and batch.status in ("completed", "expired"):
            return
        raise ModelUnavailable(
            f"batch {batch.id} ended ({batch.status}) with {len(unanswered)} of {asked} requests unanswered: "
            f"{self._why or _reason(batch)}",
            hint=_AGAIN,
        )

    def _read(self, batch: Any, lines: dict[str, bytes]) -> Iterator[Completion]:
        """Completions of a batch that ended, taken out of `lines`; of what stays there, `_why` tells a reason."""
        self._why = ""
        for name in ("output_file_id", "error_file_id"):
            file = getattr(batch, name, None)
            for line in self._content(str(file)) if file else ():
                key = str(line.get("custom_id"))
                if key not in lines:
                    continue
                response = _dict(line.get("response"))
                completion = _completion(key, response)
                if completion is not None:
                    del lines[key]
                    yield completion
                else:
                    error = _dict(line.get("error")) or _inner(response)
                    self._why = self._why or clean(error.get("message") or "no reason given")

    def _earlier(self, lines: dict[str, bytes]) -> Iterator[Any]:
        """Batches that this run made of some of these requests before it was stopped, once they have ended."""
        failed = {event.data["id"] for event in self._ledger.of("batch_failed")}
        for event in self._ledger.of("batch_requests"):
            hashes = _read_hashes(self._ledger.folder / f"batch-{event.data['digest'][:16]}.json")
            if not any(hashes.get(key) == _hash(line) for key, line in lines.items()):
                continue
            source = self._ledger.made("file", event.data["digest"])
            token = self._token(event.data["digest"])
            if source is None or (
                self._ledger.made("batch", token) is None and self._ledger.open_intent("batch", token) is None
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
            told = batches.create(
                input_file_id=source,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={TOKEN_KEY: token},
            )
            return str(whole(told, "id").id)

        def look(_: object) -> str | None:
            found = read(lambda: self._matching(source, token), "looking for the batch", self._at.service)
            return str(found[-1].id) if found else None

        made = once(self._ledger, "batch", token, act=act, find=look, service=self._at.service)
        if self._ledger.last("lost", what="batch", key=token) is not None:
            self._cancel_twins(source, token, made)
        return made

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
        found = []
        for batch in self._listed():
            carried = (getattr(batch, "metadata", None) or {}).get(TOKEN_KEY)
            same_file = getattr(batch, "input_file_id", None) == source and batch.id not in others
            if carried == token or (carried is None and same_file and batch.status not in _ENDED_BADLY):
                found.append(batch)
        return found

    def _listed(self) -> Iterator[Any]:
        """The newest batches of the account."""
        batches = items_of(lambda after: self._at.client.batches.list(limit=100, **after))
        return itertools.islice(batches, _MOST_LISTED)

    def _cancel_twins(self, source: str, token: str, kept: str) -> None:
        """After a creation without an answer: end any further batch that came of it, which would be paid besides."""
        for batch in read(lambda: self._matching(source, token), "looking for the batch", self._at.service):
            if batch.id == kept or batch.status in _ENDED:
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
            told = read(
                lambda: whole(self._at.client.batches.retrieve(batch), "status"),
                "following the batch",
                self._at.service,
            )
            if told.status in _ENDED:
                return told
            if waited >= LONGEST_BATCH_SECONDS:
                raise ServiceUnavailable(
                    f"{self._at.service} has not ended the batch {batch} ({told.status}) in {waited / 3600:.0f} hours; "
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


def _line(prompt: Prompt, model: str, at: Connection, max_tokens: int) -> bytes:
    body = body_of(prompt, model, at.target, max_tokens)
    told = {"custom_id": prompt.key, "method": "POST", "url": _ENDPOINT, "body": body}
    return whole_characters(json.dumps(told, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"


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


def _completion(key: str, response: dict[str, Any]) -> Completion | None:
    """What a result line says of a prompt: its completion, or one with an error; None where asking again may help."""
    status = response.get("status_code")
    if status in _OF_THE_PROMPT:
        return _without_text(key, f"{status}: {clean(_inner(response).get('message') or 'no reason given')}")
    if status != 200:
        return None
    try:
        return completion_of(key, _object(response["body"]))
    except NoCompletion as error:
        return _without_text(key, str(error))
    except (NotTheService, LookupError, AttributeError, TypeError):
        return None


def _without_text(key: str, reason: str) -> Completion:
    return Completion(key=key, text="", finish_reason="error", prompt_tokens=0, completion_tokens=0, error=reason)


def _object(value: Any) -> Any:
    """Plain JSON with the attribute access of the SDK's objects."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _object(inner) for key, inner in value.items()})
    return [_object(inner) for inner in value] if isinstance(value, list) else value


def _inner(response: dict[str, Any]) -> dict[str, Any]:
    return _dict(_dict(response.get("body")).get("error"))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _reason(batch: Any) -> str:
    data = getattr(getattr(batch, "errors", None), "data", None) or []
    return clean(getattr(data[0], "message", None) or "no reason given") if data else "no reason given"
