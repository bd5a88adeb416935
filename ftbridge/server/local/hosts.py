"""Models in memory: one process for each base model, shared by all of its adapters; the least used one makes room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ftbridge.providers.local.inference.host import Host
from ftbridge.providers.local.inference.requests import GenerationRequest, StreamEvent
from ftbridge.providers.local.request import LocalRequest, SampleRequest


@dataclass
class _Held:
    host: Host
    answering: int = 0
    used: float = 0.0


class Hosts:
    """At most `most` models at a time. One that is answering is never put out: there may be more for a while."""

    def __init__(self, log: Path, most: int) -> None:
        self._log, self._most = log, most
        self._held: dict[str, _Held] = {}

    async def generate(
        self, request: LocalRequest, weights: str | None, ask: GenerationRequest
    ) -> AsyncIterator[StreamEvent]:
        """The answers of a model. `weights` is the folder of a model tuned whole; adapters are named in the ask."""
        held = self._place(request, weights)
        held.answering += 1  # before anything is awaited: a model that is about to answer is not put out
        held.used = asyncio.get_running_loop().time()
        try:
            await self._make_room()
            async with aclosing(cast(Any, held.host.generate(ask))) as events:
                async for event in events:
                    yield event
        finally:
            held.answering -= 1

    async def close(self) -> None:
        """End all of them."""
        held, self._held = list(self._held.values()), {}
        await asyncio.gather(*(one.host.close() for one in held))

    def _place(self, request: LocalRequest, weights: str | None) -> _Held:
        """The model's place: two first questions share one."""
        key = "\n".join(
            str(part)
            for part in (
                request.model,
                request.quantization,
                request.precision,
                request.device,
                request.cache_dequantized_weights,
                request.trust_remote_code,
                weights,
            )
        )
        if key not in self._held:
            self._held[key] = _Held(Host(SampleRequest(request=request, tuned=weights), self._log))
        return self._held[key]

    async def _make_room(self) -> None:
        """Put out the least used of the models that are not answering, as long as there are too many."""
        idle = sorted((one.used, name) for name, one in self._held.items() if not one.answering)
        for _, name in idle[: max(0, len(self._held) - self._most)]:
            if name in self._held and not self._held[name].answering:
                await self._held.pop(name).host.close()
