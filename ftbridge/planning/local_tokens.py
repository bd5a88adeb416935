"""Tokens as the local model counts them: its own tokenizer and chat template, the masks of training, without torch.

Exact up to `COUNTED` examples of a split; of larger ones so many are drawn by a fixed seed, and the sums are scaled and marked.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.examples import ExampleError, parse_example
from ftbridge.spec.sections import LocalSpec

COUNTED = 2_000
"""Examples of a split that are rendered: about two seconds."""


class LocalTokens(BaseModel):
    """One split, as the trainer will see it."""

    model_config = ConfigDict(frozen=True)

    examples: int
    tokens: int = Field(description="Read: after what local.overlength does with long examples.")
    trained: int = Field(description="Of these, the tokens that the loss falls on.")
    longest: int
    too_long: int = Field(
        description="Examples longer than local.max_length: refused, truncated or dropped, as the spec says."
    )
    unreadable: int = Field(description="Examples that this model's template cannot express.")
    reason: str | None = Field(default=None, description="Why the first of these cannot be expressed.")
    counted: int = Field(description="Examples that were rendered; fewer than all: the sums are scaled from these.")


def renderer_of(folder: Path, thinking: Literal["auto", "on", "off"] = "auto") -> Any:
    """A renderer for the model in this folder, with reasoning as `local.thinking` was settled.

    Raises `MissingDependency`, or `ModelUnavailable` with the template's reason.
    """
    from ftbridge.errors import ModelUnavailable
    from ftbridge.providers.local.data.light_tokenizer import LightTokenizer
    from ftbridge.providers.local.data.rendering import Renderer
    from ftbridge.providers.local.data.template import RenderError

    try:
        return Renderer(LightTokenizer(folder), thinking)
    except RenderError as error:
        raise ModelUnavailable(f"{folder.name}: {error}.") from None


def local_tokens(path: Path, renderer: Any, local: LocalSpec) -> LocalTokens:
    """Count one canonical split."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    drawn = lines if len(lines) <= COUNTED else random.Random(0).sample(lines, COUNTED)
    counts = [_count(line, renderer) for line in drawn]
    readable = [count for count in counts if not isinstance(count, str)]
    sequences = [sequence for count in readable for sequence in count]
    shortened = [_kept(loss_mask, local) for loss_mask in sequences]
    scale = len(lines) / len(drawn) if drawn else 1.0
    return LocalTokens(
        examples=len(lines),
        tokens=round(scale * sum(tokens for tokens, _ in shortened)),
        trained=round(scale * sum(loss_mask for _, loss_mask in shortened)),
        longest=max((len(loss_mask) for loss_mask in sequences), default=0),
        too_long=round(scale * sum(max(map(len, count)) > local.max_length for count in readable)),
        unreadable=round(scale * (len(drawn) - len(readable))),
        reason=next((count for count in counts if isinstance(count, str)), None),
        counted=len(drawn),
    )


def _count(line: bytes, renderer: Any) -> list[Sequence[bool]] | str:
    """For each sequence of an example, which tokens are trained; the reason when the template refuses it.

    A preference has two: one for each of its conversations.
    """
    from ftbridge.providers.local.data.template import RenderError

    try:
        document = json.loads(line)
        if "preferred_output" in document and "messages" not in document:
            return [renderer.example(side).loss_mask for side in parse_example(document, "dpo").conversations]
        return [rendered.loss_mask for rendered in renderer.sequences(parse_example(document))]
    except (RenderError, ExampleError) as error:
        return str(error)


def _kept(loss_mask: Sequence[bool], local: LocalSpec) -> tuple[int, int]:
    """What is left of a sequence: read, and trained."""
    if len(loss_mask) <= local.max_length or local.overlength == "refuse":
        return len(loss_mask), sum(loss_mask)
    if local.overlength == "drop":
        return 0, 0
    return local.max_length, sum(loss_mask[: local.max_length])
