"""Canonical lines to tokens and masks, with the length policy applied. Problems name the user's own file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ftbridge.data.examples import parse_example
from ftbridge.data.prepare import origin
from ftbridge.errors import DataError
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.data.encoded import EncodedSplit
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.request import LocalRequest

SHOWN = 20


def encode_split(
    path: Path, split: str, renderer: Renderer, request: LocalRequest, progress: Callable[[int], None] = lambda _: None
) -> EncodedSplit[Encoded]:
    """Render every line of a canonical split. Raises `DataError` listing lines that cannot be rendered or are too long."""
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    origins = origin(path.parent, split)
    examples: list[Encoded] = []
    problems: list[str] = []
    long: list[str] = []
    apart = longest = 0
    for index, line in enumerate(lines):
        try:
            rendered = renderer.sequences(parse_example(json.loads(line)))
        except RenderError as error:
            problems.append(f"{origins[index]} {error}")
            continue
        sequences = [Encoded(tuple(one.input_ids), tuple(one.loss_mask), index) for one in rendered]
        size = max(len(sequence) for sequence in sequences)
        longest = max(longest, size)
        if size > request.max_length:
            long.append(f"{origins[index]} is {size:,} tokens long")
            sequences = [shortened for one in sequences if (shortened := _within(one, request)) is not None]
        if any(sequence.num_loss_tokens for sequence in sequences):
            examples += [sequence for sequence in sequences if sequence.num_loss_tokens]
            apart += len(sequences) - 1
        elif sequences:
            problems.append(f"{origins[index]} has no token with a loss{' left after truncation' if long else ''}")
        progress(index + 1)
    if problems:
        raise DataError(listed(f"{split} data cannot be used with this model", problems), split=split)
    if long and request.overlength == "refuse":
        raise DataError(
            listed(f"{len(long)} {split} examples are longer than local.max_length = {request.max_length:,}", long),
            split=split,
            hint="Raise local.max_length, shorten them, or set local.overlength: truncate or drop.",
        )
    if not examples:
        raise DataError(f"no {split} example is left after local.overlength: {request.overlength}.", split=split)
    if apart:
        renderer.modes.note(
            f"{apart:,} earlier completions of the {split} data are trained as separate sequences: {len(examples):,} "
            f"sequences of {len(lines):,} examples; each counts as an example of a batch"
        )
    return EncodedSplit(
        tuple(examples),
        cut=tuple(long) if request.overlength == "truncate" else (),
        dropped=tuple(long) if request.overlength == "drop" else (),
        longest=longest,
    )


def _within(sequence: Encoded, request: LocalRequest) -> Encoded | None:
    """A sequence of at most the longest length; None for one that is left out."""
    if len(sequence) <= request.max_length:
        return sequence
    if request.overlength != "truncate":
        return None
    return Encoded(sequence.input_ids[: request.max_length], sequence.loss_mask[: request.max_length], sequence.index)


def listed(title: str, lines: Sequence[str]) -> str:
    """A title and the first lines below it, with the number of those left out."""
    more = f"\n  … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{title}:\n" + "\n".join(f"  {line}" for line in lines[:SHOWN]) + more
