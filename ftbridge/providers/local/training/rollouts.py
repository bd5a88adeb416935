"""Rollouts: completions drawn from the model that is trained, and their files.

    RUN/rollouts/000012.jsonl          the completions of step 12 with rewards and judges' replies, written before its update
    RUN/rollouts/.000012.drawn.jsonl   those drawn so far, without rewards; gone once the file above is there
    RUN/rollouts/valid-000010.jsonl    the same of validation prompts, after step 10; 000000 is the base model

Completions are drawn at temperature 1 from the whole distribution, without penalties, whatever the model's own generation
defaults say: only then is the gradient that of the policy. The seed of each derives from (seed, step, prompt, sample) alone.
A completion is on disk before it is graded, and graded completions are on disk before the update: a killed run draws what was
not drawn, asks no judge twice, and goes on to the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ftbridge.files import disk_full_is_an_error, write_text
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.inference.engine import Engine, Generation, Request
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.process.job import Interrupted
from ftbridge.providers.local.training.forward import Forward, use_way

AT_ONCE = {"cpu": 32, "mps": 32, "cuda": 256}
"""Completions under way at once. CPU: measured on two cores, more rows than this no longer raise the rate."""


class JudgeReply(BaseModel):
    """What a judge replied to the question about a completion."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    reply: str | None = None
    tokens: int | None = None


class Rollout(BaseModel):
    """One completion of one prompt, a line of `rollouts/STEP.jsonl`.

    `prompt` is the prompt's line in its split, from 0; `sample` counts the completions of one prompt. `logprobs` are those of
    the sampler, in nats. `reward` is on the grader's own scale, null where the grader or a judge failed; `errors` says how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: int
    sample: int
    seed: int
    prompt_tokens: int
    tokens: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    text: str
    reasoning: str | None = None
    reasoning_tokens: int = 0
    tool_calls: list[dict[str, Any]] | None = None
    reward: float | None = None
    errors: dict[str, str] = {}
    parts: dict[str, float] = {}
    judges: list[JudgeReply] = []
    grading_seconds: float = 0.0

    @property
    def name(self) -> tuple[int, int]:
        """Names it within a step."""
        return self.prompt, self.sample


def seed_of(seed: int, step: int | str, prompt: int, sample: int) -> int:
    """The seed of one completion, 0 to 2^63 - 1: the same in every process that draws it."""
    digest = hashlib.sha256(f"{seed}:{step}:{prompt}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RolloutFiles:
    """The rollouts of one run, in its folder `rollouts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file of graded rollouts of a step, such as 000012, or of a validation, such as valid-000010."""
        return self.folder / f"{name}.jsonl"

    def graded(self, name: str) -> list[Rollout] | None:
        """The graded rollouts of a step; None where they were not written yet."""
        return read_rollouts(self.path(name)) if self.path(name).exists() else None

    def drawn(self, name: str) -> dict[tuple[int, int], Rollout]:
        """What was drawn for a step before it was interrupted."""
        return {one.name: one for one in read_rollouts(self._waiting(name))}

    def add(self, name: str, rollout: Rollout) -> None:
        """Keep a completion that was drawn, before it is graded."""
        path = self._waiting(name)
        with disk_full_is_an_error(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                stream.write(rollout.model_dump_json(exclude_defaults=True).encode() + b"\n")
                stream.flush()

    def finish(self, name: str, rollouts: Sequence[Rollout]) -> None:
        """Write the graded rollouts of a step, whole or not at all, and flush them to disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(one.model_dump_json(exclude_defaults=True) + "\n" for one in rollouts)
        write_text(self.path(name), lines)
        self._waiting(name).unlink(missing_ok=True)

    def _waiting(self, name: str) -> Path:
        return self.folder / f".{name}.drawn.jsonl"


def read_rollouts(path: Path) -> list[Rollout]:
    """The rollouts in a file, up to the first line that a kill cut short; none where there is no file."""
    rollouts = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        try:
            rollouts.append(Rollout.model_validate_json(line))
        except ValidationError:
            break
    return rollouts


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
    heard: Callable[[int, Drawn], None],
    requested: Callable[[], Literal["pause", "cancel"] | None] = lambda: None,
    at_once: int | None = None,
) -> None:
    """Draw completions from the model as it is; `heard(place, drawn)` hears each one as it ends.

    Rows run `at_once` together, half as many when memory runs out. Leaves the model in train mode, in its way of training.
    Raises `Interrupted` when `requested` says so between two tokens.
    """
    rows = at_once or AT_ONCE[forward.device.kind]
    engine = Engine(forward.model, renderer.tokenizer, device=forward.device, pad_id=renderer.pad_id, max_rows=rows)
    places = {engine.add(_request(one, renderer)): place for place, one in enumerate(draws)}
    with _generating(forward), closing(engine.run()) as steps:
        for step in steps:
            if step.error is not None:
                raise step.error
            if step.ended is not None:
                heard(places[step.completion], _drawn(step.completion.generation))
            if (request := requested()) is not None:
                raise Interrupted(request)


def _request(draw: Draw, renderer: Renderer) -> Request:
    return Request(
        draw.ids,
        max_new_tokens=draw.room,
        temperature=1.0,
        seed=draw.seed,
        logprobs=0,
        stop=renderer.stop_strings,
        end_tokens=renderer.ends_after(draw.ids),
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
