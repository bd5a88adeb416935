"""LoRA's linear layer as one autograd function, with the frozen weight and the adapter side by side.

        x ──────────────── W (frozen: NF4 or 16-bit) ──┐
        │                                              + ──▶ y = x Wᵀ + s · drop(x) Aᵀ Bᵀ
        └─ drop ── A (r × in) ── B (out × r) ── · s ───┘

peft computes the same sum as a dozen separate operations, casts the input to float32 for the adapter, and draws a
dropout mask for each of the seven linear layers of a block; on a CPU that costs as much as the matrix products. Here the
products run in the compute type (what `autocast` would do), the frozen weight never gets a gradient, and the backward
pass is written out:

    dB = s · dyᵀ (drop(x) Aᵀ)      dA = (s · dy B)ᵀ drop(x)      dx = dy W + undrop((s · dy B) A)

The modules stay peft's own: only their `forward` is replaced while training, so saving, merging and loading are peft's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class DropoutPool:
    """Dropout multipliers drawn once a pass and read at a different offset by each layer.

    Drawing a fresh mask for every layer costs a CPU as much as a third of its matrix products; a slice at an offset fixed
    by (pass seed, layer) is the same Bernoulli mask for the layer, depends on nothing but its seed, and so is the same
    again when a checkpointed block is recomputed or a killed run resumes.
    """

    p: float
    dtype: torch.dtype
    device: torch.device
    values: Tensor = field(init=False)
    seed: int = 0

    def __post_init__(self) -> None:
        self.values = torch.empty(0, dtype=self.dtype, device=self.device)

    def draw(self, seed: int, tokens: int, widest: int) -> None:
        """New multipliers (0 or 1 / (1 - p)) for a pass of `tokens` tokens through layers at most `widest` wide."""
        if self.p <= 0:
            return
        self.seed = seed
        size = tokens * widest + 1_000_003
        generator = torch.Generator(device=self.device).manual_seed(seed)
        keep = torch.rand(size, generator=generator, device=self.device) >= self.p
        self.values = keep.to(self.dtype).mul_(1 / (1 - self.p))

    def mask(self, layer: int, tokens: int, width: int) -> Tensor:
        """The multipliers of one layer, shape (tokens, width)."""
        room = self.values.numel() - tokens * width
        start = (self.seed * 7_919 + (layer + 1) * 611_953) % max(1, room)
        return self.values[start : start + tokens * width].view(tokens, width)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
        weight: Weight,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        a, b = a.to(x.dtype), b.to(x.dtype)
        dropped = x if mask is None else x * mask
        low = dropped @ a.t()
        y = torch.nn.functional.linear(x, weight(x.dtype), bias)
        y.addmm_(low, b.t(), alpha=scale)
        ctx.weight, ctx.scale, ctx.mask = weight, scale, mask
        ctx.save_for_backward(x, a, b, low)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, low = ctx.saved_tensors
        mask, scale = ctx.mask, ctx.scale
        db = (dy.t() @ low).float() * scale
        dlow = (dy @ b) * scale
        dropped = x if mask is None else x * mask
        da = (dlow.t() @ dropped).float()
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ ctx.weight(dy.dtype)
            if mask is None:
                dx.addmm_(dlow, a)
            else:
                dx.addcmul_(dlow @ a, mask)
        return dx, da, db, None, None, None, None


Weight = Callable[[torch.dtype], Tensor]
"""A frozen weight (out, in) in the wanted type: kept as it is, or dequantised on the spot."""


def fuse(model: nn.Module, weight_of: Callable[[nn.Module], Weight | None], pool: DropoutPool) -> int:
    """Replace the forward of every plain LoRA linear layer in a peft model; returns how many.

    `weight_of(base_layer)` gives the layer's frozen weight, or None to leave it to peft. DoRA, more than one adapter,
    trained biases and unusual layers are left to peft too.
    """
    from peft.tuners.lora import Linear as LoraLinear

    try:
        from peft.tuners.lora.bnb import Linear4bit as Lora4bit
    except ImportError:
        kinds: tuple[type, ...] = (LoraLinear,)
    else:
        kinds = (LoraLinear, Lora4bit)

    fused = 0
    modules: list[Any] = list(model.modules())
    for module in modules:
        if not any(isinstance(module, kind) for kind in kinds) or not is_plain_lora(module):
            continue
        weight = weight_of(module.get_base_layer())
        if weight is None:
            continue
        module.forward = MethodType(_fused_forward(module, weight, pool, fused), module)
        fused += 1
    return fused


def unfuse(model: nn.Module) -> None:
    """Give every layer peft's own forward again."""
    for module in model.modules():
        if "forward" in module.__dict__ and hasattr(module, "lora_A"):
            del module.__dict__["forward"]


def is_plain_lora(module: Any) -> bool:
    """Whether a layer of peft is its base layer plus one scaled product, and nothing more."""
    name = module.active_adapters[0] if len(module.active_adapters) == 1 else None
    return (
        name in module.lora_A
        and not module.merged
        and not getattr(module, "use_dora", {}).get(name, False)
        and not getattr(module, "lora_variant", {}).get(name)
        and not module.fan_in_fan_out
        and getattr(module.lora_B[name], "bias", None) is None
    )


def _fused_forward(module: Any, weight: Weight, pool: DropoutPool, index: int) -> Callable[..., Tensor]:
    name = module.active_adapters[0]
    scale, base = float(module.scaling[name]), module.get_base_layer()

    def forward(self: Any, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        # Parameters are looked up at each call: a sharded module has others while its weights are gathered.
        a, b, bias = self.lora_A[name].weight, self.lora_B[name].weight, base.bias
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        mask = pool.mask(index, *x.shape) if self.training and pool.p > 0 else None
        y = _LoraLinear.apply(x, a, b, None if bias is None else bias.to(x.dtype), weight, scale, mask)
        return y.view(*shape[:-1], -1)

    return forward
