"""Causal attention over examples laid end to end, without cross-talk and without work for padding.

    one pass        a a a a b b c c c        nine tokens, three examples, no padding
    attention       a                        each example attends to itself alone: the sequence is
                    a a                      cut, the pieces are right-padded into a small batch, and
                    a a a                    one causal kernel runs over it. A real token never sees
                    a a a a                  the padding, because the padding comes after it.
                            b
                            b b
                                c …

A full nine-by-nine mask would cost as much as one long example; short rows in a large pass would spend most of the step
on blocks that are masked away. Registered with transformers' attention interface, so any model that uses the interface
and passes its keyword arguments on can train packed;
`ftbridge.providers.local.training.forward` proves it on real examples first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_utils import AttentionInterface

NAME = "ftbridge_packed"
SHORT = 192
"""On a CPU, torch's fused kernel costs about 17 ms backward per block however short the examples are (torch 2.13, 1,024
tokens in all); written out in float32, 64-token examples take 5 ms, and the two meet at about 200 tokens."""


class PackedAttentionUnsupported(Exception):
    """The model does not hand its attention what packing needs."""


@dataclass(frozen=True)
class Layout:
    """Where the examples of one pass lie. `lengths` sums to the pass's tokens.

    `gather` (examples x longest) points from the padded batch into the pass, `scatter` (tokens) back.
    """

    lengths: tuple[int, ...]
    gather: Tensor
    scatter: Tensor
    position_ids: Tensor

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> Layout:
        """The layout of examples with these lengths, in order."""
        longest = max(lengths)
        sizes = torch.tensor(lengths)
        starts = torch.cumsum(sizes, 0) - sizes
        columns = torch.arange(longest)
        inside = columns < sizes[:, None]
        gather = torch.where(inside, starts[:, None] + columns, starts[:, None])
        scatter = torch.arange(len(lengths) * longest).view(len(lengths), longest)[inside]
        positions = columns.expand(len(lengths), longest)[inside]
        return cls(tuple(lengths), gather.to(device), scatter.to(device), positions[None].to(device))

    @classmethod
    def branched(cls, branches: Sequence[Sequence[int]], device: torch.device) -> Layout:
        """The layout of rows that share a prompt: for each prompt, its tokens, then those of each row that begins with it.

        In the pass a group is its first row, then each other one without the prompt. A padded batch holds all rows whole; the
        prompt's outputs are those of the first row.
        """
        lengths = [length for _, *rows in branches for length in rows]
        longest = max(lengths)
        gathered, positions, outputs = [], [], []
        start = number = 0
        for prompt, *rows in branches:
            shared = torch.arange(start, start + prompt)
            end = start + prompt
            for index, length in enumerate(rows):
                branch = torch.arange(end, end + length - prompt)
                row = torch.cat([shared, branch])
                gathered.append(torch.cat([row, row.new_full((longest - length,), start)]))
                written = torch.arange(prompt if index else 0, length)
                positions.append(written)
                outputs.append(written + number * longest)
                end += length - prompt
                number += 1
            start = end
        gather, scatter, position_ids = torch.stack(gathered), torch.cat(outputs), torch.cat(positions)[None]
        return cls(tuple(lengths), gather.to(device), scatter.to(device), position_ids.to(device))


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_layout: Layout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' interface: (1, heads, tokens, width) in, (1, tokens, heads, width of the values) out.

    `softcap` bounds the scores (Gemma 2), `s_aux` holds one sink logit a head (gpt-oss); both are written out. Raises
    `PackedAttentionUnsupported` where the model does not pass the layout on.
    """
    if packed_layout is None or query.shape[0] != 1:
        raise PackedAttentionUnsupported("the model does not pass packed_layout on to its attention")
    window = _window(sliding_window, packed_layout, query.device)
    q, k, v = (_cut(states, packed_layout) for states in (query, key, value))
    dropout = dropout if module.training else 0.0
    short = q.device.type == "cpu" and q.shape[2] <= SHORT and window is None and not dropout
    if short or softcap or s_aux is not None:
        scale = scaling if scaling is not None else q.shape[-1] ** -0.5
        out = _written_out(q, k, v, scale, window=window, softcap=softcap, sinks=s_aux, dropout=dropout)
    else:
        out = F.scaled_dot_product_attention(
            q, k, v, window, dropout, window is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    tokens = out.transpose(1, 2).reshape(-1, out.shape[1], out.shape[3])
    return tokens.index_select(0, packed_layout.scatter)[None], None


def _written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    *,
    window: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Causal attention written out in float32; heads that share keys are multiplied together.

    A sink takes its share of a head's softmax and gives nothing.
    """
    rows, heads, length, width = q.shape
    groups = k.shape[1]
    together = (q.float() * scale).reshape(rows, groups, heads // groups * length, width)
    scores = (together @ k.float().transpose(-1, -2)).view(rows, heads, length, length)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if window is None:
        scores = scores + torch.full((length, length), float("-inf"), device=q.device).triu_(1)
    else:
        scores = scores.masked_fill(~window, float("-inf"))
    if sinks is not None:
        column = sinks.float().view(1, heads, 1, 1).expand(rows, heads, length, 1)
        weights = torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]
    else:
        weights = torch.softmax(scores, -1)
    if dropout:
        weights = F.dropout(weights, dropout)
    mixed = weights.reshape(rows, groups, -1, length) @ v.float()
    return mixed.view(rows, heads, length, v.shape[-1]).to(q.dtype)


def _cut(states: Tensor, layout: Layout) -> Tensor:
    """(1, heads, tokens, width) to (examples, heads, longest, width)."""
    tokens = states[0].transpose(0, 1)
    rows, longest = layout.gather.shape
    cut = tokens.index_select(0, layout.gather.reshape(-1))
    return cut.view(rows, longest, *tokens.shape[1:]).transpose(1, 2)


def _window(width: int | None, layout: Layout, device: torch.device) -> Tensor | None:
    """A causal mask with a sliding window, or None where every example fits in the window."""
    longest = layout.gather.shape[1]
    if not width or longest <= width:
        return None
    positions = torch.arange(longest, device=device)
    distance = positions[:, None] - positions[None, :]
    return (distance >= 0) & (distance < width)


AttentionInterface.register(NAME, packed_attention)
