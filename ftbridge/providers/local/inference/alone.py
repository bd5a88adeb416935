"""Rows one after the other, each with the cache that the model makes for itself: right for every model that can generate.

For caches that are more than keys and values by position, which can neither be padded nor be put side by side as they are:
recurrent and convolutional states (Mamba, RWKV, hybrids such as Qwen3-Next and LFM2), compressed or indexed keys, and models
that make masks or position biases of their own (ALiBi). Slow: a pass reads the weights for one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ftbridge.providers.local.models.parts import causal

if TYPE_CHECKING:
    from ftbridge.providers.local.inference.batch import Row


class Alone:
    """The states of rows, in transformers' own terms of generation."""

    token_bytes = 0
    """Not known; and rows take turns, so that memory is that of one pass beside the states."""
    shares_prefixes = False

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._own, self._device = model, causal(model), device
        self._states: dict[Row, dict[str, Any]] = {}

    def read(self, rows: Sequence[Row], use: Any) -> Tensor:
        """Read each row's tokens from the first; logits of what follows, (rows, vocabulary)."""
        logits = []
        for row in rows:
            use([row.adapter])
            logits.append(self._forward(row, {"use_cache": True}))
        return torch.cat(logits)

    def step(self, rows: Sequence[Row], use: Any) -> Tensor:
        """Read the last token of each row; logits of what follows."""
        logits = []
        for row in rows:
            use([row.adapter])
            logits.append(self._forward(row, self._states[row]))
        return torch.cat(logits)

    def leave(self, gone: set[Row]) -> None:
        """Forget rows."""
        for row in gone:
            self._states.pop(row, None)

    def release(self) -> None:
        """Nothing is held ahead."""

    def _forward(self, row: Row, states: dict[str, Any]) -> Tensor:
        ids = torch.tensor([row.tokens], device=self._device)
        first = "attention_mask" not in states
        states["attention_mask"] = torch.ones_like(ids)
        options = {} if first else {"next_sequence_length": 1}
        inputs = self._own.prepare_inputs_for_generation(ids, is_first_iteration=first, **options, **states)
        out = self._model(**inputs, return_dict=True)
        self._states[row] = self._own._update_model_kwargs_for_generation(out, states, is_encoder_decoder=False)
        logits: Tensor = out.logits[:, -1]
        return logits
