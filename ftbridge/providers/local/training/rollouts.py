"""Rollouts: completions drawn from the model that is trained, by the one engine.

They are drawn at temperature 1 from the whole distribution, without penalties, whatever the model's own generation defaults
say: only then is the gradient that of the policy. The seed of each derives from (seed, step, prompt, sample) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Literal

from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.inference.engine import Engine, Generation, Request
from ftbridge.providers.local.models.footprint import ROWS
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.process.job import JobInterrupted
from ftbridge.providers.local.training.forward import Forward, use_way


@dataclass(frozen=True)
class Draw:
    """One completion to draw: the prompt's tokens, at most `room` tokens behind them, and the seed."""

    ids: tuple[int, ...]
    room: int
    seed: int


@dataclass(frozen=True)
class Drawn:
    """Tokens that were drawn, the end of turn included where it was, with their log-probabilities in nats."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


def draw(
    forward: Forward,
    renderer: Renderer,
    draws: Sequence[Draw],
    on_drawn: Callable[[int, Drawn], None],
    requested: Callable[[], Literal["pause", "cancel"] | None] = lambda: None,
    at_once: int | None = None,
) -> None:
    """Draw completions from the model as it is; `heard(place, drawn)` hears each one as it ends.

    Rows run `at_once` together, half as many when memory runs out. Leaves the model in train mode, in its way of training.
    Raises `JobInterrupted` when `requested` says so between two tokens.
    """
    rows = at_once or ROWS[forward.device.kind]
    engine = Engine(forward.model, renderer.tokenizer, device=forward.device, pad_id=renderer.pad_id, max_rows=rows)
    places = {engine.add(_request(one, renderer)): index for index, one in enumerate(draws)}
    with _generating(forward), closing(engine.run()) as steps:
        for step in steps:
            if step.error is not None:
                raise step.error
            if step.ended is not None:
                on_drawn(places[step.completion], _drawn(step.completion.generation))
            if (request := requested()) is not None:
                raise JobInterrupted(request)


def _request(draw: Draw, renderer: Renderer) -> Request:
    return Request(
        draw.ids,
        max_new_tokens=draw.room,
        temperature=1.0,
        seed=draw.seed,
        logprobs=0,
        stop=renderer.completions.stop_strings,
        end_tokens=renderer.completions.ends_after(draw.ids),
    )


def _drawn(generation: Generation) -> Drawn:
    reason: Literal["stop", "length"] = "length" if generation.finish_reason == "length" else "stop"
    return Drawn(tuple(generation.token_ids), tuple(generation.logprobs), reason)


@contextmanager
def _generating(forward: Forward) -> Iterator[None]:
    """The model as it completes: its own attention, the compute type of training."""
    use_own_attention(forward.model)
    try:
        with forward.in_compute_type():
            yield
    finally:
        use_way(forward.model, forward.way)
        forward.model.train()
