"""Linear layers whose 16-bit weights lie as this processor multiplies them: laid out once, instead of in every product.

On a CPU with bf16 instructions, oneDNN lays a weight out again for each product. For the few rows of a decoding step, that
costs as much as the product. With weights laid out ahead, all products of a 135M model take 0.65 to 0.75 of the time
(8 to 32 rows, torch 2.13). The numbers are the same. It takes a second copy of the weights, so it is done only if memory
allows it.

Only while the model generates: training keeps its own forward. A plain LoRA layer of peft around such a layer is written out
as one product and two small ones, with the adapter's weights of now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.fused import is_plain_lora

COPY_SHARE = 0.25
"""Share of the free memory that the copy may take."""
ROWS = 32
"""Rows that the layout is made for."""

Product = Callable[[Tensor], Tensor]


class PackedLinears:
    """The linear layers of one model that are worth it, by name; none where this processor or torch has no use for it."""

    def __init__(self, model: nn.Module, device: Device) -> None:
        self._model = model
        self.products: dict[str, Product] = {}
        """The product of each layer, by its name in the model; filled while the model generates."""
        self._packed: dict[str, Product] | None = None
        self._device = device

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Replace the forward of these layers, and put back what was there."""
        if self._packed is None:
            self._packed = self._pack()
        self.products.update(self._packed)
        replaced: list[tuple[nn.Module, Any, Any]] = []
        for name, module in self._model.named_modules():
            if (product := self._product(name, module)) is not None:
                ours = MethodType(_forward(product), module)
                replaced.append((module, ours, module.__dict__.get("forward")))
                module.__dict__["forward"] = ours
        try:
            yield
        finally:
            for module, ours, before in replaced:
                if module.__dict__.get("forward") is not ours:
                    continue  # an adapter was put around it meanwhile
                if before is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = before
            self.products.clear()

    def _product(self, name: str, module: Any) -> Product | None:
        assert self._packed is not None
        if hasattr(module, "lora_A"):
            base = self._packed.get(f"{name}.base_layer")
            return None if base is None or not is_plain_lora(module) else _with_adapter(base, module)
        return self._packed.get(name) if "forward" not in module.__dict__ else None

    def _pack(self) -> dict[str, Product]:
        if self._device.kind != "cpu" or self._device.compute != torch.bfloat16:
            return {}
        layers = {name: one for name, one in self._model.named_modules() if _is_frozen(one)}
        size = sum(one.weight.numel() * one.weight.element_size() for one in layers.values())
        if size > COPY_SHARE * self._device.free_bytes():
            return {}
        packed: dict[str, Product] = {}
        try:
            for name, layer in layers.items():
                packed[name] = _packed(layer)
                if len(packed) == 1 and not _agrees(layer, packed[name]):
                    return {}
        except (RuntimeError, AttributeError):  # another build of torch
            return {}
        return packed


def _is_frozen(module: Any) -> bool:
    return type(module) is nn.Linear and module.weight.dtype == torch.bfloat16 and not module.weight.requires_grad


def _packed(layer: nn.Linear) -> Product:
    with torch.no_grad():
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
    multiply, bias = torch.ops.mkldnn._linear_pointwise, layer.bias

    def product(x: Tensor) -> Tensor:
        y: Tensor = multiply(x, weight, bias, "none", [], "")
        return y

    return product


def _agrees(layer: nn.Linear, product: Product) -> bool:
    with torch.no_grad():
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0)).bfloat16()
        return torch.allclose(product(x).float(), layer(x).float(), rtol=0.02, atol=0.02)


def _with_adapter(base: Product, module: Any) -> Product:
    """A peft layer's product with its active adapter, whose weights are cast once."""
    (name,) = module.active_adapters
    a, b = (part[name].weight.detach().bfloat16().t() for part in (module.lora_A, module.lora_B))
    scale = float(module.scaling[name])

    def product(x: Tensor) -> Tensor:
        return base(x).add_((x @ a @ b).mul_(scale))

    return product


def _forward(product: Product) -> Callable[..., Tensor]:
    def forward(_module: Any, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return product(x)

    return forward
