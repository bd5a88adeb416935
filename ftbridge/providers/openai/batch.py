"""Answers through the Batch API: half the price, within 24 hours, in no order.

    prompts ─▶ requests.jsonl ─▶ upload once ─▶ create once ─▶ follow ─▶ output and error files, joined on custom_id

The batch is named by the run, the hash of its requests, and how often they failed: a run that is killed and resumed goes on
with the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Literal

from ftbridge import files
from ftbridge.errors import FtbridgeError, ModelUnavailable
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.chat import body_of, completion_of
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import NotTheService, clean, whole
from ftbridge.providers.openai.ledger import Ledger
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.once import once
from ftbridge.providers.openai.retry import LATEST, SOONEST, read, sleep
from ftbridge.providers.openai.upload import ensure_file

MOST_LINES = 50_000
MOST_BYTES = 200_000_000
_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})


class BatchSampler:
    """Answers prompts with one model through batches. Blocks for as long as the service takes."""

    def __init__(self, at: Connection, model: str, ledger: Ledger) -> None:
        self._at, self._model, self._ledger = at, model, ledger

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, batch_size: int) -> Iterator[Completion]:
        """Yield one completion for each prompt that was answered. `batch_size` has no bearing here.

        Raises `ModelUnavailable` when a batch fails, or when requests in it did.
        """
        del batch_size
        lines = [(prompt.key, _line(prompt, self._model, self._at, max_tokens)) for prompt in prompts]
        for chunk in _chunks(lines):
            yield from self._answered(chunk)

    def close(self) -> None:
        """Nothing to let go of: a batch under way goes on, and is found again."""

    def _answered(self, lines: Sequence[tuple[str, bytes]]) -> Iterator[Completion]:
        content = b"".join(line for _, line in lines)
        digest = files.sha256_bytes(content)
        path = self._ledger.folder / f"requests-{digest[:8]}.jsonl"
        files.write_bytes(path, content)
        try:
            source = ensure_file(self._at, self._ledger, path, "requests", purpose="batch")
        finally:
            path.unlink(missing_ok=True)
        batch = self._ended(self._created(source, digest))
        failed: list[str] = []
        asked = {key for key, _ in lines}
        for name in ("output_file_id", "error_file_id"):
            file = getattr(batch, name, None)
            for line in self._content(str(file)) if file else ():
                key = str(line.get("custom_id"))
                if key not in asked:
                    continue
                response = line.get("response") or {}
                completion = _completion(key, response) if name == "output_file_id" else None
                if completion is not None:
                    asked.discard(key)
                    yield completion
                else:
                    failed.append(clean((line.get("error") or _inner(response)).get("message", "no reason given")))
        if asked:
            self._ledger.append("batch_failed", digest=digest, id=batch.id, unanswered=len(asked))
            why = failed[0] if failed else _reason(batch)
            raise ModelUnavailable(
                f"batch {batch.id} ended ({batch.status}) with {len(asked)} of {len(lines)} requests unanswered: {why}",
                hint="Resume the run: only what is missing is asked again, in a new batch.",
            )

    def _created(self, source: str, digest: str) -> str:
        failures = sum(event.data["digest"] == digest for event in self._ledger.of("batch_failed"))
        token = f"{self._ledger.folder.parent.name}-{digest[:16]}-{failures}"
        batches = self._at.client.batches

        def act() -> str:
            told = batches.create(
                input_file_id=source,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={TOKEN_KEY: token},
            )
            return str(whole(told, "id").id)

        def find() -> str | None:
            listed = whole(batches.list(limit=100), "data")
            ours = [told.id for told in listed if (getattr(told, "metadata", None) or {}).get(TOKEN_KEY) == token]
            return str(ours[-1]) if ours else None

        def look(_: object) -> str | None:
            return read(find, "looking for the batch", self._at.service)

        return once(self._ledger, "batch", token, act=act, find=look, service=self._at.service)

    def _ended(self, batch: str) -> Any:
        pause = SOONEST
        while True:
            told = read(
                lambda: whole(self._at.client.batches.retrieve(batch), "status"),
                "following the batch",
                self._at.service,
            )
            if told.status in _ENDED:
                return told
            sleep(pause)
            pause = min(pause * 1.3, LATEST)

    def _content(self, file: str) -> Iterator[dict[str, Any]]:
        text = read(lambda: self._at.client.files.content(file).read(), "reading the answers", self._at.service)
        for line in text.split(b"\n"):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    raise FtbridgeError(f"{self._at.service} gave a result file that is not JSONL: {file}.") from None


def _line(prompt: Prompt, model: str, at: Connection, max_tokens: int) -> bytes:
    body = body_of(prompt, model, at.target, max_tokens)
    told = {"custom_id": prompt.key, "method": "POST", "url": _ENDPOINT, "body": body}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


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
    """The answer in a result line; None when it holds none."""
    if response.get("status_code") != 200:
        return None
    try:
        return completion_of(key, _object(response["body"]))
    except (NotTheService, LookupError, AttributeError, TypeError):
        return None


def _object(value: Any) -> Any:
    """Plain JSON with the attribute access of the SDK's objects."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _object(inner) for key, inner in value.items()})
    return [_object(inner) for inner in value] if isinstance(value, list) else value


def _inner(response: dict[str, Any]) -> dict[str, Any]:
    body = response.get("body") or {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _reason(batch: Any) -> str:
    data = getattr(getattr(batch, "errors", None), "data", None) or []
    return clean(getattr(data[0], "message", None) or "no reason given") if data else "no reason given"
