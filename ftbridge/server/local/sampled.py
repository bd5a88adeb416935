"""Runs of other providers, served through the samplers of their own: whatever the provider contract can complete.

A sampler returns whole completions, so a stream is one piece. What it cannot do is refused by name, never left out: forced
JSON, log-probabilities, adapters by row, text without messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai.types import Model

from ftbridge import providers
from ftbridge.errors import FtbridgeError
from ftbridge.providers.base import Completion, Prompt, Sampler, TunedModel
from ftbridge.providers.local.inference.requests import (
    GenerationRequest,
    StreamDelta,
    StreamEnd,
    StreamEvent,
    StreamStart,
)
from ftbridge.server.http.errors import ApiError, invalid, without_paths
from ftbridge.spec.lowering import Lowering

MAX_TOKENS = 1024
"""Tokens of a completion for which the client sets no limit."""

_UNSUPPORTED: dict[str, Callable[[GenerationRequest], bool]] = {
    "messages": lambda ask: not ask.messages or ask.embed,
    "logprobs": lambda ask: ask.logprobs is not None,
    "response_format": lambda ask: ask.json_schema is not None,
    "tool_choice": lambda ask: ask.must_call is not None,
    "top_p": lambda ask: ask.top_p != 1.0,
    "logit_bias": lambda ask: bool(ask.logit_bias),
    "presence_penalty": lambda ask: ask.presence_penalty != 0.0,
    "frequency_penalty": lambda ask: ask.frequency_penalty != 0.0,
    "reasoning_effort": lambda ask: ask.effort not in (None, "none"),
}
"""Parameters of a chat that no sampler takes, and whether a request sets them."""


@dataclass
class SampledRun:
    """The tuned model of a run whose provider samples by itself."""

    run: str
    provider: str
    lowering: Lowering
    tuned: TunedModel
    folder: Path
    created: int
    _sampler: Sampler | None = field(default=None, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def shown(self, name: str) -> dict[str, Any]:
        """The model object under this name."""
        return Model(id=name, created=self.created, object="model", owned_by=self.provider).to_dict()

    async def generate(self, ask: GenerationRequest) -> AsyncIterator[StreamEvent]:
        """The completions of a chat, each as one piece. Raises `ApiError` for what samplers cannot do, and for their faults.

        One request at a time: a sampler promises nothing about threads.
        """
        for parameter, is_set in _UNSUPPORTED.items():
            if is_set(ask):
                raise invalid(
                    f"Models of the provider {self.provider} do not support {parameter}.",
                    parameter,
                    "unsupported_parameter",
                )
        prompts = [
            Prompt(
                key=str(index),
                messages=tuple(ask.messages),
                tools=tuple(ask.tools),
                temperature=ask.temperature or None,
                seed=None if ask.seed is None else ask.seed + index,
            )
            for index in range(ask.n)
        ]
        async with self._turn:
            completions = await asyncio.to_thread(self._complete, prompts, ask.max_tokens or MAX_TOKENS)
        yield StreamStart(prompt_tokens=max(completion.prompt_tokens for completion in completions))
        for completion in completions:
            index = int(completion.key)
            yield StreamDelta(
                index=index,
                text=_before(completion.text, ask.stop),
                tool_calls=[{"index": position, **call} for position, call in enumerate(completion.tool_calls or [])],
                reasoning=completion.reasoning_content or "",
            )
            yield StreamEnd(
                index=index,
                finish_reason="length" if completion.finish_reason == "length" else "stop",
                completion_tokens=completion.completion_tokens,
            )

    def close(self) -> None:
        """Give back the sampler."""
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.close()

    def _complete(self, prompts: list[Prompt], max_tokens: int) -> list[Completion]:
        try:
            if self._sampler is None:
                self._sampler = providers.load(self.provider).sampler(self.lowering, self.tuned, self.folder)
            completions = list(self._sampler.generate(prompts, max_tokens=max_tokens, batch_size=len(prompts)))
        except FtbridgeError as error:
            raise ApiError(502, without_paths(str(error)), code="provider_failed") from None
        if failed := next((completion.error for completion in completions if completion.error), None):
            raise ApiError(502, without_paths(failed), code="provider_failed")
        return sorted(completions, key=lambda completion: int(completion.key))


def _before(text: str, stop: list[str]) -> str:
    """The text up to the first of the stop strings."""
    ends = [start for start in (text.find(each) for each in stop if each) if start >= 0]
    return text[: min(ends)] if ends else text
