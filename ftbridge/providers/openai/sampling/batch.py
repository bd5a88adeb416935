"""Completions through the Batch API: half the price, within 24 hours, in no order.

prompts ─▶ one request each ─▶ `batch_requests.Batches` ─▶ completions
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ftbridge.errors import PromptsRefused
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import clean
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.sampling.batch_requests import ENDPOINT, Batches, BatchLine
from ftbridge.providers.openai.sampling.chat import NoCompletion, body_of, completion_of
from ftbridge.redaction import whole_characters

OF_THE_PROMPT = frozenset({400, 413, 422})
"""Refusals of one request in a batch; asking again, and paying again, cannot help."""


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
        completed = 0
        for completion in Batches(self._at, self._ledger).send(lines, _completion):
            if completion.error is not None:
                refused[completion.key] = completion.error
            else:
                completed += 1
                yield completion
        if refused and not completed:
            first = next(iter(refused.values()))
            raise PromptsRefused(f"{self._at.service} refuses every prompt ({first}).", reasons=refused)
        yield from (_without_text(key, reason) for key, reason in refused.items())

    def close(self) -> None:
        """Nothing to let go of: a batch under way goes on, and is found again."""


def _line(prompt: Prompt, model: str, at: Connection, max_tokens: int) -> bytes:
    return line_of(prompt.key, body_of(prompt, model, at.target, max_tokens))


def line_of(key: str, body: dict[str, Any]) -> bytes:
    """One line of a batch's input file: a request with its custom_id."""
    document = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
    return whole_characters(json.dumps(document, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"


def _completion(line: BatchLine) -> Completion | None:
    """What a result line says of a prompt: its completion, or one with an error; None where asking again may help."""
    if line.status in OF_THE_PROMPT:
        return _without_text(line.key, f"{line.status}: {clean(line.error.get('message') or 'no reason given')}")
    if line.status != 200:
        return None
    try:
        return completion_of(line.key, line.body)
    except NoCompletion as error:
        return _without_text(line.key, str(error))


def _without_text(key: str, reason: str) -> Completion:
    return Completion(key=key, text="", finish_reason="error", prompt_tokens=0, completion_tokens=0, error=reason)
