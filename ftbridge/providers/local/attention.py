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
and passes its keyword arguments on can train packed; `ftbridge.providers.local.forward` proves it on real examples first.
"""

from __future__ import annotations

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
    """The model's attention has a term this kernel does not compute (soft-capping, sinks)."""


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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' interface: (1, heads, tokens, width) in, (1, tokens, heads, width) out.

    Raises `PackedAttentionUnsupported` for terms it does not compute.
    """
    if packed_layout is None or query.shape[0] != 1:
        raise PackedAttentionUnsupported("the model does not pass packed_layout on to its attention")
    if kwargs.get("softcap") or kwargs.get("s_aux") is not None:
        raise PackedAttentionUnsupported("soft-capped attention or attention sinks")
    window = _window(sliding_window, packed_layout, query.device)
    q, k, v = (_cut(states, packed_layout) for states in (query, key, value))
    dropout = dropout if module.training else 0.0
    if q.device.type == "cpu" and q.shape[2] <= SHORT and window is None and not dropout:
        out = _short_attention(q, k, v, scaling if scaling is not None else q.shape[-1] ** -0.5)
    else:
        out = F.scaled_dot_product_attention(
            q, k, v, window, dropout, window is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    tokens = out.transpose(1, 2).reshape(-1, out.shape[1], out.shape[3])
    return tokens.index_select(0, packed_layout.scatter)[None], None


def _short_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention written out in float32; heads that share keys are multiplied together."""
    rows, heads, length, width = q.shape
    groups = k.shape[1]
    together = (q.float() * scale).reshape(rows, groups, heads // groups * length, width)
    scores = (together @ k.float().transpose(-1, -2)).view(rows, heads, length, length)
    future = torch.full((length, length), float("-inf"), dtype=scores.dtype).triu_(1)
    weights = torch.softmax(scores + future, -1).view(rows, groups, -1, length)
    return (weights @ v.float()).view(rows, heads, length, width).to(q.dtype)


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
