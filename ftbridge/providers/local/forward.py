"""From examples to a summed loss, the fastest way that is proved right for this model.

    way               attention            output head                   for
    packed            ftbridge_packed      plain linear, masked rows     nearly every decoder
    padded            the model's own      plain linear, masked rows     packing: false, or attention with its own terms
    plain             the model's own      the model's own               heads that scale or cap their logits

`prove` computes the loss of a few real examples one by one with nothing but the model's own forward, and takes the first
way that agrees. A model whose attention cannot be packed, or whose head is unusual, trains slower, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local import attention
from ftbridge.providers.local.batches import Encoded, cut_packed, cut_padded
from ftbridge.providers.local.device import Device
from ftbridge.providers.local.fused import DropoutPool
from ftbridge.providers.local.loss import cross_entropy_sum, logits_cross_entropy_sum

Way = Literal["packed", "padded", "plain"]
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.03}
"""Largest difference in an example's mean loss that counts as agreement, as a share of the loss (of 1 nat, if it is
less): rounding of the compute type, not meaning."""


@dataclass(frozen=True)
class Forward:
    """A model, and one way to run it over examples."""

    model: Any
    device: Device
    way: Way
    autocast: bool
    pool: DropoutPool | None = None

    def cut(self, examples: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
        """Cut a batch into passes of at most `budget` tokens, counted as this way counts them."""
        cutter = cut_packed if self.way == "packed" else cut_padded
        return [[examples[i] for i in part] for part in cutter([len(example) for example in examples], budget)]

    def loss_sum(self, examples: Sequence[Encoded], *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Summed loss in nats over trained tokens, and how many of them were the most likely token.

        `seed` fixes the dropout of this pass.
        """
        if self.model.training and self.pool is not None:
            torch.manual_seed(seed)
            self.pool.draw(seed, sum(len(example) for example in examples), _widest(self.model))
        elif self.model.training:
            torch.manual_seed(seed)
        with self._autocast():
            if self.way == "packed":
                return self._packed(examples)
            return self._padded(examples)

    def _packed(self, examples: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        where = self.device.torch
        layout = attention.Layout.of([len(example) for example in examples], where)
        ids = torch.tensor([token for example in examples for token in example.input_ids])
        trained = torch.tensor([flag for example in examples for flag in (False, *example.trained[1:])])
        places = trained.nonzero()[:, 0]
        hidden = _decoder(self.model)(
            input_ids=ids[None].to(where), position_ids=layout.position_ids, use_cache=False, packed_layout=layout
        )[0]
        return self._head(hidden[0].index_select(0, (places - 1).to(where)), ids[places].to(where))

    def _padded(self, examples: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        where, longest = self.device.torch, max(len(example) for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        present, trained = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, example in enumerate(examples):
            ids[row, : len(example)] = torch.tensor(example.input_ids)
            trained[row, 1 : len(example)] = torch.tensor(example.trained[1:])
            present[row, : len(example)] = 1
        rows, places = trained.nonzero(as_tuple=True)
        target, rows, before = ids[rows, places].to(where), rows.to(where), (places - 1).to(where)
        inputs = {"input_ids": ids.to(where), "attention_mask": present.to(where), "use_cache": False}
        if self.way == "plain":
            return logits_cross_entropy_sum(self.model(**inputs).logits[rows, before], target)
        return self._head(_decoder(self.model)(**inputs)[0][rows, before], target)

    def _head(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        head = _causal(self.model).get_output_embeddings()
        if self.autocast:
            hidden = hidden.to(self.device.compute)
        with torch.autocast(self.device.kind, enabled=False):
            return cross_entropy_sum(hidden, head.weight, getattr(head, "bias", None), target)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.autocast or self.device.compute == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.kind, dtype=self.device.compute)


def prove(
    forward: Forward, examples: Sequence[Encoded], *, packing: bool, note: Callable[[str], None] = lambda _: None
) -> Forward:
    """The first way whose losses agree with the model's own forward on a few short real examples.

    `note` hears why a faster way was passed over. Leaves the model in train mode with the matching attention.
    Raises `ModelUnavailable` when the model's own loss is not finite.
    """
    sample = sorted(examples, key=len)[:3]
    forward.model.eval()
    with torch.no_grad():
        _use_attention(forward.model, "sdpa")
        alone = replace(forward, way="plain")
        wanted = [float(alone.loss_sum([example])[0]) / max(1, example.n_trained) for example in sample]
        if not all(loss == loss and abs(loss) != float("inf") for loss in wanted):
            raise ModelUnavailable(
                f"the model's own loss on the first examples is {wanted}, not finite numbers.",
                hint="Set local.precision: fp32, or use another base model.",
            )
        ways: list[Way] = ["packed", "padded"] if packing else ["padded"]
        for way in ways:
            trial = replace(forward, way=way)
            reason = _disagreement(trial, sample, wanted)
            if reason is None:
                forward.model.train()
                return trial
            note(f"{way} training is passed over: {reason}")
    _use_attention(forward.model, "sdpa")
    forward.model.train()
    return replace(forward, way="plain")


def _disagreement(trial: Forward, sample: Sequence[Encoded], wanted: Sequence[float]) -> str | None:
    """Why this way does not agree, or None if it does.

    Each example is put behind the others and behind a copy of itself, which are not trained: if anything leaked from one
    example into the next, a model would copy, and its loss would fall far below what the example costs alone.
    """
    try:
        _use_attention(trial.model, attention.NAME if trial.way == "packed" else "sdpa")
        for example, alone in zip(sample, wanted, strict=True):
            company = [*(_silent(other) for other in sample), example]
            loss = float(trial.loss_sum(company)[0]) / max(1, example.n_trained)
            if not abs(loss - alone) <= TOLERANCE[trial.device.compute] * max(1.0, alone):
                return f"an example's loss is {loss:.4f} in company and {alone:.4f} alone"
    except (attention.PackedAttentionUnsupported, TypeError, AttributeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


def _silent(example: Encoded) -> Encoded:
    return replace(example, trained=(False,) * len(example))


def _use_attention(model: Any, name: str) -> None:
    _causal(model).set_attn_implementation(name)


def _causal(model: Any) -> Any:
    """The transformers model inside peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _decoder(model: Any) -> Any:
    return _causal(model).get_decoder()


def _widest(model: Any) -> int:
    """The widest input of an adapted layer."""
    return max((module.in_features for module in model.modules() if hasattr(module, "lora_A")), default=0)
