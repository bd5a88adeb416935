"""Preference pairs: from canonical lines to tokens, from tokens to the log-probabilities of both completions.

    line      input.messages, tools       preferred_output        non_preferred_output
    tokens    prompt ──────────────┬────▶ chosen, its end of turn
                                   └────▶ rejected, its end of turn

Both conversations are rendered whole, as in supervised training, and the prompt is what both begin with: a line whose two
renderings differ before the completions cannot be compared, and is refused. Only completions count in the loss.

The prompt is computed once for both completions where the model allows it:

    packed      p p p c c c c r r          positions 0 1 2 3 4 5 6 3 4
    attention   rows  p p p c c c c        each completion attends to the prompt and to itself: the layout of packed examples,
                      p p p r r            with the prompt's tokens in two rows and its outputs taken from the first

Attention is causal, so the prompt's states are the same in both rows. That the model computes them so is proved on the
user's own pairs before training (`shares_prompts`); otherwise each completion gets a prompt of its own.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftbridge.data.examples import PreferenceExample, parse_example
from ftbridge.data.prepare import origin
from ftbridge.errors import DataError
from ftbridge.providers.local.data.batches import Encoded, cut_packed, cut_padded
from ftbridge.providers.local.data.encode import listed
from ftbridge.providers.local.data.encoded import EncodedSplit, StoredForm
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.models import attention
from ftbridge.providers.local.models.device import is_out_of_memory
from ftbridge.providers.local.models.parts import causal
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import proof
from ftbridge.providers.local.training.forward import Forward

PROVED = 3
"""Pairs that sharing of prompts is proved on: the shortest ones."""


@dataclass(frozen=True)
class Pair:
    """Two conversations that share their first `prompt` tokens; their completions are what is trained in each.

    `reference` holds the summed log-probability of each completion by the reference model, once it is known.
    """

    chosen: Encoded
    rejected: Encoded
    prompt: int
    index: int
    reference: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens of both completions."""
        return self.chosen.num_loss_tokens + self.rejected.num_loss_tokens

    @property
    def n_shared(self) -> int:
        """Tokens that are computed when the prompt is computed once."""
        return len(self) - self.prompt

    @property
    def sides(self) -> tuple[Encoded, Encoded]:
        """The chosen and the rejected conversation."""
        return self.chosen, self.rejected

    @property
    def name(self) -> str:
        """Names the pair by its tokens and masks: 16 hex digits."""
        sides = [[list(side.input_ids), [int(flag) for flag in side.loss_mask]] for side in self.sides]
        return hashlib.sha256(json.dumps([self.prompt, *sides]).encode()).hexdigest()[:16]


def encode_pair(example: PreferenceExample, renderer: Renderer, index: int) -> Pair:
    """The pair as tokens. Raises `RenderError` where the two renderings have no prompt in common, or a message has a weight."""
    if any(message.weight is not None for message in (*example.prompt, example.preferred, example.non_preferred)):
        raise RenderError("gives a message a weight, which has no meaning in preference tuning: remove it")
    chosen, rejected = (renderer.example(side) for side in example.conversations)
    first = chosen.loss_mask.index(True), rejected.loss_mask.index(True)
    if chosen.input_ids[: first[0]] != rejected.input_ids[: first[1]]:
        raise RenderError(
            "renders another prompt before the preferred output than before the other, so the two cannot be compared "
            "(reasoning in one of them alone does that; local.thinking settles it for all)"
        )
    return Pair(
        Encoded(tuple(chosen.input_ids), tuple(chosen.loss_mask), index),
        Encoded(tuple(rejected.input_ids), tuple(rejected.loss_mask), index),
        first[0],
        index,
    )


def _pairs_of(sequences: list[Encoded], path: Path, request: LocalRequest) -> list[Pair]:
    """Pairs from their conversations, chosen and rejected in turn; the loss begins where the prompt ends."""
    del path, request
    sides = zip(sequences[::2], sequences[1::2], strict=True)
    return [Pair(chosen, rejected, chosen.loss_mask.index(True), chosen.index) for chosen, rejected in sides]


STORED_PAIRS = StoredForm[Pair](lambda pairs: [side for pair in pairs for side in pair.sides], _pairs_of)
"""How pairs are kept in a run's folder."""


def encode_pairs(
    path: Path, split: str, renderer: Renderer, request: LocalRequest, progress: Callable[[int], None] = lambda _: None
) -> EncodedSplit[Pair]:
    """Render every line of a canonical preference split.

    Raises `DataError` listing lines that cannot be rendered or are too long, or when no pair has two different completions.
    """
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    origins = origin(path.parent, split)
    pairs: list[Pair] = []
    problems: list[str] = []
    long: list[str] = []
    longest = 0
    for index, line in enumerate(lines):
        try:
            pair = encode_pair(parse_example(json.loads(line), "dpo"), renderer, index)
        except RenderError as error:
            problems.append(f"{origins[index]} {error}")
            continue
        size = max(len(side) for side in pair.sides)
        longest = max(longest, size)
        if size > request.max_length:
            long.append(f"{origins[index]} is {size:,} tokens long")
        else:
            pairs.append(pair)
        progress(index + 1)
    if problems:
        raise DataError(listed(f"{split} data cannot be used with this model", problems))
    if long and request.overlength != "drop":
        raise DataError(
            listed(f"{len(long)} {split} pairs are longer than local.max_length = {request.max_length:,}", long),
            hint="Raise local.max_length, shorten them, or set local.overlength: drop. A pair is never cut.",
        )
    if not pairs:
        raise DataError(f"no {split} pair is left after local.overlength: {request.overlength}.")
    notes = tuple(_doubts(pairs, split, origins))
    return EncodedSplit(tuple(pairs), dropped=tuple(long), notes=notes, longest=longest)


def _doubts(pairs: Sequence[Pair], split: str, origins: Sequence[str]) -> list[str]:
    """Pairs that teach nothing or contradict each other. Raises `DataError` where no pair of a training split teaches."""
    same = [origins[pair.index] for pair in pairs if pair.chosen.input_ids == pair.rejected.input_ids]
    if len(same) == len(pairs) and split == "train":
        raise DataError(
            "both completions of every train pair are the same, so there is no preference to learn.",
            hint="Check that preferred_output and non_preferred_output were not filled from one column.",
        )
    distinct = {(pair.chosen.input_ids, pair.rejected.input_ids) for pair in pairs}
    turned = [
        origins[pair.index]
        for pair in pairs
        if (pair.rejected.input_ids, pair.chosen.input_ids) in distinct
        and pair.chosen.input_ids != pair.rejected.input_ids
    ]
    doubts = []
    if same:
        doubts.append(_few(f"{len(same)} {split} pairs have the same completion twice and teach nothing", same))
    if turned:
        doubts.append(_few(f"{len(turned)} {split} pairs are there in both orders and contradict each other", turned))
    return doubts


def _few(text: str, lines: Sequence[str]) -> str:
    return f"{text}: {', '.join(lines[:5])}{' …' if len(lines) > 5 else ''}"


# From tokens to log-probabilities


def cut(forward: Forward, pairs: Sequence[Pair], budget: int, *, shared: bool) -> list[list[Pair]]:
    """Micro-batches of whole pairs, of at most `budget` tokens as this way of running the model counts them."""
    if forward.way == "alone":
        return [[pair] for pair in pairs]
    if forward.way == "packed":
        parts = cut_packed([pair.n_shared if shared else len(pair) for pair in pairs], budget)
    else:
        parts = cut_padded([2 * max(len(side) for side in pair.sides) for pair in pairs], budget)
    return [[pairs[i] for i in part] for part in parts]


def completion_log_probabilities(forward: Forward, pairs: Sequence[Pair], *, shared: bool, seed: int = 0) -> Tensor:
    """Log-probability in nats of each completion, summed over its tokens, its end of turn included: (pairs, 2), float32.

    Column 0 is the chosen completion, 1 the rejected one.
    """
    counts = [side.num_loss_tokens for pair in pairs for side in pair.sides]
    if shared:
        values = forward.log_probabilities_at(*_shared_inputs(forward, pairs))
    elif forward.way == "alone":
        values = torch.cat([forward.log_probabilities([side], seed=seed) for pair in pairs for side in pair.sides])
    else:
        values = forward.log_probabilities([side for pair in pairs for side in pair.sides], seed=seed)
    owner = torch.repeat_interleave(torch.tensor(counts)).to(values.device)
    sums = torch.zeros(len(counts), dtype=values.dtype, device=values.device).index_add(0, owner, values)
    return sums.view(len(pairs), 2)


def _shared_inputs(forward: Forward, pairs: Sequence[Pair]) -> tuple[dict[str, Any], Tensor, Tensor]:
    return shared_inputs(forward, [(pair.prompt, pair.sides) for pair in pairs])


def shared_inputs(
    forward: Forward, groups: Sequence[tuple[int, Sequence[Encoded]]]
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """A packed micro-batch in which each prompt stands once; the places before trained tokens; those tokens.

    A group is the number of tokens that its conversations begin with alike, and the conversations.
    """
    ids: list[int] = []
    before: list[int] = []
    target: list[int] = []
    for prompt, sides in groups:
        start = len(ids)
        ids += sides[0].input_ids[:prompt]
        for side in sides:
            base = len(ids) - prompt  # where the conversation would begin, if its prompt stood before it
            ids += side.input_ids[prompt:]
            for length in range(1, len(side)):
                if side.loss_mask[length]:
                    before.append(base + length - 1 if length > prompt else start + length - 1)
                    target.append(side.input_ids[length])
    where = forward.device.torch
    layout = attention.Layout.branched([(prompt, *map(len, sides)) for prompt, sides in groups], where)
    inputs = {
        "input_ids": torch.tensor([ids]).to(where),
        "position_ids": layout.position_ids,
        "use_cache": False,
        "packed_layout": layout,
    }
    return inputs, torch.tensor(before).to(where), torch.tensor(target).to(where)


def shares_prompts(forward: Forward, pairs: Sequence[Pair], note: Callable[[str], None] = lambda _: None) -> bool:
    """Whether the model, run packed, computes a prompt once for two completions as it would for each alone.

    Proved on a few of the user's own pairs: the log-probabilities agree with those of separate conversations, other chosen
    tokens leave the states of the rejected ones as they are, exactly, and the rejected completion's log-probability has a
    gradient of exactly 0.0 on the chosen one. `note` hears why not. Leaves the model in train mode.
    """
    if forward.way != "packed":
        return False
    sample = sorted((pair for pair in pairs if pair.prompt > 1), key=len)[:PROVED]
    if not sample:
        return False
    forward.model.eval()
    try:
        reason = _disagreement(forward, sample)
    except proof.FAILURES as error:
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}"
    finally:
        forward.model.train()
    if reason is not None:
        note(f"prompts are computed twice, once for each completion: {reason}")
    return reason is None


def _disagreement(forward: Forward, sample: Sequence[Pair]) -> str | None:
    with torch.no_grad():
        apart = completion_log_probabilities(forward, sample, shared=False)
        together = completion_log_probabilities(forward, sample, shared=True)
    tokens = torch.tensor([[side.num_loss_tokens for side in pair.sides] for pair in sample], device=apart.device)
    means = apart / tokens
    off = (together / tokens - means).abs() / means.abs().clamp(min=1.0)
    if not float(off.max()) <= proof.TOLERANCE[forward.device.compute]:
        return f"their log-probabilities differ by {float(off.max()):.2g} of a nat when the prompt is shared"
    return _leak(forward, max(sample, key=lambda pair: len(pair.chosen) - pair.prompt))


def _leak(forward: Forward, pair: Pair) -> str | None:
    """How the chosen completion reaches the rejected one, or None where it does not."""
    embeddings = causal(forward.model).get_input_embeddings()
    draw = random.Random(0)
    others = tuple(draw.randrange(embeddings.weight.shape[0]) for _ in pair.chosen.input_ids[pair.prompt :])
    changed = replace(pair, chosen=replace(pair.chosen, input_ids=pair.chosen.input_ids[: pair.prompt] + others))
    with torch.no_grad():
        states = []
        for one in (pair, pair, changed):
            inputs, _, _ = _shared_inputs(forward, [one])
            hidden = forward.hidden_of(inputs)
            states.append(torch.cat([hidden[: pair.prompt], hidden[len(pair.chosen) :]]))
    noise, change = (float((one - states[0]).abs().max()) for one in states[1:])
    if not change <= proof.NOISE * noise:
        return f"other tokens in one completion change the states of the other (by up to {change:.2g})"
    with proof.gradients_on(embeddings) as leaves:
        values = completion_log_probabilities(forward, [pair], shared=True)
        (gradient,) = torch.autograd.grad(values[0, 1], leaves, allow_unused=True)
    leaked = 0.0 if gradient is None else float(gradient[0, pair.prompt : len(pair.chosen)].abs().max())
    return None if leaked == 0.0 else f"one completion depends on the other (gradient {leaked:.2g})"
