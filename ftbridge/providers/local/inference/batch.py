"""The running answers of one model as one batch: rows join and leave between two tokens.

Rows are padded on the left. A row that joins is read in a pass of its own; then its keys and values are put beside the
others', the shorter padded. Columns that no row needs any more are cut off.

    row 0   · · · A A A A A a a      A prompt, a answer, · padding
    row 1   B B B B B B b b b b
    row 2   · · · · · · · C C c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ftbridge.providers.local.device import Device
from ftbridge.providers.local.inference.adapters import Adapters
from ftbridge.providers.local.inference.sampling import Choice, Drawing, choose, with_logprobs


@dataclass(eq=False)
class Row:
    """One completion under way: the tokens of its prompt and those that came since, its adapter, how tokens are drawn.

    The last token was not read by the model yet. A row that has to join again is read whole, with what it has.
    """

    tokens: list[int]
    adapter: str | None
    drawing: Drawing


_SCORED_TOKENS = 512
"""Tokens whose logits are made at once when a prompt is scored."""


class Batch:
    """Rows, and their keys and values. One model's; not for several threads."""

    def __init__(self, model: Any, adapters: Adapters, device: Device, pad: int) -> None:
        self._model, self._adapters, self._device, self._pad = model, adapters, device, pad
        self.rows: list[Row] = []
        self._cache: DynamicCache | None = None
        self._mask: Tensor = torch.empty(0)
        self._positions: Tensor = torch.empty(0)
        self.token_bytes = 0
        """Bytes one token of one row takes; known once a row has joined."""

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> list[Choice]:
        """Read new rows' prompts; their first tokens."""
        longest = max(len(row.tokens) for row in rows)
        where = self._device.torch
        ids = torch.tensor([[self._pad] * (longest - len(row.tokens)) + row.tokens for row in rows], device=where)
        mask = torch.tensor([[0] * (longest - len(row.tokens)) + [1] * len(row.tokens) for row in rows], device=where)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache()
        self._adapters.use([row.adapter for row in rows])
        logits = self._forward(ids, mask, positions, cache)
        choices = self._take(rows, logits)
        self.token_bytes = bytes_per_token(cache)
        self._merge(list(rows), cache, mask, positions[:, -1:] + 1)
        return choices

    @torch.inference_mode()
    def step(self) -> list[Choice]:
        """One more token for every row."""
        assert self._cache is not None
        ids = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._device.torch)
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        self._adapters.use([row.adapter for row in self.rows])
        logits = self._forward(ids, self._mask, self._positions, self._cache)
        self._positions = self._positions + 1
        return self._take(self.rows, logits)

    @torch.inference_mode()
    def score(self, prompt: list[int], adapter: str | None, count: int) -> list[Choice]:
        """Each token of a prompt but the first, with its log probability and the `count` likeliest in its place."""
        self._adapters.use([adapter])
        cache = DynamicCache()
        found: list[Choice] = []
        for start in range(0, len(prompt) - 1, _SCORED_TOKENS):  # logits of a whole long prompt would not fit
            part = prompt[start : start + _SCORED_TOKENS]
            ids = torch.tensor([part], device=self._device.torch)
            positions = torch.arange(start, start + len(part), device=self._device.torch)[None]
            logits = self._model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True).logits[0]
            following = prompt[start + 1 : start + 1 + len(part)]
            found += [with_logprobs(logits[place], token, count) for place, token in enumerate(following)]
        return found

    @torch.inference_mode()
    def embed(self, prompt: list[int], adapter: str | None) -> list[float]:
        """The mean of the last layer's states over a prompt's tokens, with length 1."""
        ids = torch.tensor([prompt], device=self._device.torch)
        self._adapters.use([adapter])
        out = self._model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=1,
        )
        mean = out.hidden_states[-1][0].float().mean(0)
        values: list[float] = torch.nn.functional.normalize(mean, dim=0).tolist()
        return values

    @torch.inference_mode()
    def leave(self, gone: set[int]) -> None:
        """Drop rows by their place, and columns that only they needed."""
        kept = [place for place in range(len(self.rows)) if place not in gone]
        self.rows = [self.rows[place] for place in kept]
        if not kept:
            self._cache = None
            return
        assert self._cache is not None
        index = torch.tensor(kept, device=self._device.torch)
        self._mask, self._positions = self._mask[index], self._positions[index]
        start = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, start:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index, :, start:]
            layer.values = layer.values[index, :, start:]

    @property
    def columns(self) -> int:
        """Tokens each row takes, padding included."""
        return int(self._mask.shape[1]) if self.rows else 0

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def _take(self, rows: Sequence[Row], logits: Tensor) -> list[Choice]:
        choices = choose(logits, [row.drawing for row in rows])
        for row, choice in zip(rows, choices, strict=True):
            row.tokens.append(choice.token)
        return choices

    def _merge(self, rows: list[Row], cache: DynamicCache, mask: Tensor, positions: Tensor) -> None:
        if self._cache is None:
            self.rows, self._cache, self._mask, self._positions = rows, cache, mask, positions
            return
        width = max(self._mask.shape[1], mask.shape[1])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys = torch.cat([_widened(old.keys, width), _widened(new.keys, width)])
            old.values = torch.cat([_widened(old.values, width), _widened(new.values, width)])
        self._mask = torch.cat([_padded(self._mask, width), _padded(mask, width)])
        self._positions = torch.cat([self._positions, positions])
        self.rows = [*self.rows, *rows]


def bytes_per_token(cache: DynamicCache) -> int:
    """What one column of one row takes. Raises `TypeError` for caches that are not plain keys and values.

    State spaces and compressed caches are not: their rows can neither be padded nor be put side by side.
    """
    size = 0
    for layer in cache.layers:
        for values in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if not isinstance(values, Tensor) or values.dim() != 4 or values.shape[2] != cache.get_seq_length():
                raise TypeError(type(layer).__name__)
            size += values.shape[1] * values.shape[3] * values.element_size()
    return size


def _widened(values: Tensor, width: int) -> Tensor:
    """Keys or values (rows, heads, columns, size) with zeros on the left."""
    return torch.nn.functional.pad(values, (0, 0, width - values.shape[2], 0))


def _padded(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
