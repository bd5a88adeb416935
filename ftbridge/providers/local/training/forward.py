"""From examples to a summed loss: the ways to run a model over a micro-batch. `proof.py` chooses the fastest right one.

    way               attention            output head                   for
    packed            ftbridge_packed      linear, or the model's own    nearly every decoder
    padded            the model's own      linear, trained rows only     packing: false, or a model that carries state
    plain             the model's own      the model's own               padded, and the head scales or caps its logits
    alone             the model's own      the model's own               padding changes what the model computes

A linear head runs on the trained rows only, in chunks (`loss.py`). A head of the model's own runs inside the model's
forward: it scales or caps the logits, or it carries an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ftbridge.providers.local.data.batches import Encoded, cut_packed, cut_padded
from ftbridge.providers.local.models import attention
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.fused import DropoutPool
from ftbridge.providers.local.models.parts import causal as _causal
from ftbridge.providers.local.models.parts import decoder as _decoder
from ftbridge.providers.local.models.parts import keeps_logits, use_own_attention
from ftbridge.providers.local.models.parts import use_attention as _use_attention
from ftbridge.providers.local.models.sharding import inside
from ftbridge.providers.local.training import proof
from ftbridge.providers.local.training.loss import CROSS_ENTROPY, LOG_PROBABILITIES, Reduction

TOLERANCE = proof.TOLERANCE
Way = Literal["packed", "padded", "plain", "alone"]
T = TypeVar("T")


@dataclass(frozen=True)
class Forward:
    """A model, and one way to run it over examples. `own_head`: packed micro-batches too leave the logits to the model."""

    model: Any
    device: Device
    way: Way
    autocast: bool
    pool: DropoutPool | None = None
    own_head: bool = False

    def cut(self, examples: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
        """Cut a batch into passes of at most `budget` tokens, counted as this way counts them."""
        if self.way == "alone":
            return [[example] for example in examples]
        cutter = cut_packed if self.way == "packed" else cut_padded
        return [[examples[i] for i in part] for part in cutter([len(example) for example in examples], budget)]

    def loss_sum(self, examples: Sequence[Encoded], *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Summed loss in nats over trained tokens, and how many of them were the most likely token.

        `seed` fixes the dropout of this pass.
        """
        return self._reduce(examples, CROSS_ENTROPY, seed)

    def log_probabilities(self, examples: Sequence[Encoded], *, seed: int = 0) -> Tensor:
        """The log-probability of each trained token, in nats, float32: (trained tokens), example after example."""
        return self._reduce(examples, LOG_PROBABILITIES, seed)

    def log_probabilities_at(self, inputs: dict[str, Any], before: Tensor, target: Tensor) -> Tensor:
        """The same for a packed micro-batch laid out by the caller: of `target` (tokens) after the places `before`."""
        with self.in_compute_type():
            return self._read(inputs, before, target, LOG_PROBABILITIES)

    def _reduce(self, examples: Sequence[Encoded], reduction: Reduction[T], seed: int) -> T:
        if self.model.training and self.pool is not None:
            torch.manual_seed(seed)
            lengths = [len(example) for example in examples]
            tokens = sum(lengths) if self.way == "packed" else len(lengths) * max(lengths)
            self.pool.draw(seed, tokens, _widest(self.model))
        elif self.model.training:
            torch.manual_seed(seed)
        with self.in_compute_type():
            if self.way == "packed":
                return self._packed(examples, reduction)
            return self._padded(examples, reduction)

    def hidden(self, examples: Sequence[Encoded]) -> Tensor:
        """The decoder's last hidden states of a packed micro-batch: (tokens, width)."""
        return self.hidden_of(self._packed_inputs(examples))

    def hidden_of(self, inputs: dict[str, Any]) -> Tensor:
        """The same for a packed micro-batch laid out by the caller."""
        hidden: Tensor = _decoder(self.model)(**inputs)[0]
        return hidden[0]

    def _packed_inputs(self, examples: Sequence[Encoded]) -> dict[str, Any]:
        where = self.device.torch
        layout = attention.Layout.of([len(example) for example in examples], where)
        ids = torch.tensor([[token for example in examples for token in example.input_ids]])
        return {
            "input_ids": ids.to(where),
            "position_ids": layout.position_ids,
            "use_cache": False,
            "packed_layout": layout,
        }

    def _packed(self, examples: Sequence[Encoded], reduction: Reduction[T]) -> T:
        loss_mask = torch.tensor([flag for example in examples for flag in (False, *example.loss_mask[1:])])
        places = loss_mask.nonzero()[:, 0].to(self.device.torch)
        target = torch.tensor([token for example in examples for token in example.input_ids])
        return self._read(self._packed_inputs(examples), places - 1, target.to(places.device)[places], reduction)

    def _read(self, inputs: dict[str, Any], before: Tensor, target: Tensor, reduction: Reduction[T]) -> T:
        """What a reduction makes of the logits at the places `before` of a packed micro-batch."""
        if not self.own_head:
            return self._head(self.hidden_of(inputs).index_select(0, before), target, reduction)
        if keeps_logits(self.model):
            return reduction.of_logits(self.model(**inputs, logits_to_keep=before).logits[0], target)
        return reduction.of_logits(self.model(**inputs).logits[0].index_select(0, before), target)

    def _padded(self, examples: Sequence[Encoded], reduction: Reduction[T]) -> T:
        where, longest = self.device.torch, max(len(example) for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        present, loss_mask = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, example in enumerate(examples):
            ids[row, : len(example)] = torch.tensor(example.input_ids)
            loss_mask[row, 1 : len(example)] = torch.tensor(example.loss_mask[1:])
            present[row, : len(example)] = 1
        rows, places = loss_mask.nonzero(as_tuple=True)
        target, rows, before = ids[rows, places].to(where), rows.to(where), (places - 1).to(where)
        inputs = {"input_ids": ids.to(where), "attention_mask": present.to(where), "use_cache": False}
        if self.way in ("plain", "alone"):
            return reduction.of_logits(self.model(**inputs).logits[rows, before], target)
        return self._head(_decoder(self.model)(**inputs)[0][rows, before], target, reduction)

    def _head(self, hidden: Tensor, target: Tensor, reduction: Reduction[T]) -> T:
        head = _causal(self.model).get_output_embeddings()
        if self.autocast:
            hidden = hidden.to(self.device.compute)

        def reduced(states: Tensor) -> T:
            return reduction.of_hidden(states, head.weight, getattr(head, "bias", None), target)

        with torch.autocast(self.device.kind, enabled=False):
            value: T = inside(head, reduced, hidden)
        return value

    def in_compute_type(self) -> AbstractContextManager[Any]:
        """What the model runs under: autocast, where layers are left to it."""
        if not self.autocast or self.device.compute == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.kind, dtype=self.device.compute)


def prove(
    forward: Forward, examples: Sequence[Encoded], *, packing: bool, note: Callable[[str], None] = lambda _: None
) -> Forward:
    """The first way whose losses agree with the model's own forward on a few real examples; `proof.py` says how.

    `note` hears why a faster way was passed over. Leaves the model in train mode with the matching attention.
    Raises `ModelUnavailable` when the model's own forward fails, when its loss is not finite, or when an adapted layer gets
    no gradient.
    """
    sample = proof.sample_of(forward, examples)
    forward.model.eval()
    wanted = proof.own_losses(replace(forward, way="alone"), sample)
    own_head = proof.has_own_head(forward, sample[0])
    ways: tuple[Way, ...] = ("packed", "padded", "plain") if packing else ("padded", "plain")
    chosen = replace(forward, way="alone", own_head=own_head)
    for way in ways:
        if way == "padded" and own_head:
            continue
        trial = replace(chosen, way=way)
        reason = proof.disagreement(trial, sample, wanted)
        if reason is None:
            chosen = trial
            break
        note(f"{way} training is passed over: {reason}")
    use_way(forward.model, chosen.way)
    proof.require_gradients(chosen, sample)
    forward.model.train()
    return chosen


def use_way(model: Any, way: Way) -> None:
    """Set the attention that a way needs."""
    if way == "packed":
        _use_attention(model, attention.NAME)
    else:
        use_own_attention(model)


def _widest(model: Any) -> int:
    """The widest input of an adapted layer."""
    return max((module.in_features for module in model.modules() if hasattr(module, "lora_A")), default=0)
