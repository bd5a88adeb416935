"""Load a base model for training or sampling: quantised as asked, with an adapter, and safe to evaluate in between."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.models import targets
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.fused import Weight
from ftbridge.providers.local.models.parts import own_attention
from ftbridge.providers.local.request import LocalRequest

COPY_SHARE = 0.25
"""A 16-bit copy of nf4 weights is kept when it takes at most this share of the memory that is free."""


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer."""
    return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)


def load_base(path: Path, request: LocalRequest, device: Device) -> Any:
    """The base model in the request's quantisation on the device. Raises `ModelUnavailable`."""
    options: dict[str, Any] = {"dtype": torch.float32 if request.tuning == "full" else device.compute}
    if request.quantization != "none":
        options["quantization_config"] = _quantization(request, device, path)
    if device.kind != "cpu":
        options["device_map"] = {"": device.torch}
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            trust_remote_code=request.trust_remote_code,
            use_safetensors=True,
            attn_implementation=attention_for(path, trust_remote_code=request.trust_remote_code),
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelUnavailable(f"the model in {path} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    model.config.use_cache = False
    if request.tuning == "lora" and hasattr(model.config, "rescale_every"):
        # RWKV halves the weights of later layers in place to answer, and a layer's adapter not at all.
        model.config.rescale_every = 0
    close_repacking_trap(model)
    return model


def attention_for(path: Path, *, trust_remote_code: bool) -> str:
    """The attention implementation that the model's class takes; sdpa for a class that comes with the model."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if model_class is None else own_attention(model_class)


def add_adapter(model: Any, request: LocalRequest) -> Any:
    """Wrap the model with a LoRA adapter in peft's own classes: a fresh one, fixed by the seed, or that of `continue_from`.

    Raises `ModelUnavailable` with what peft refuses.
    """
    import_peft()
    from peft import LoraConfig, get_peft_model

    if request.continue_from is not None:
        return _continued(model, Path(request.continue_from))
    chosen = targets.resolve(model, request)
    config = LoraConfig(
        r=request.lora_r,
        lora_alpha=int(request.lora_alpha) if float(request.lora_alpha).is_integer() else request.lora_alpha,
        lora_dropout=0.0 if chosen.parameters else request.lora_dropout,
        target_modules=chosen.modules,
        target_parameters=list(chosen.parameters) or None,
        use_rslora=request.use_rslora,
        use_dora=request.use_dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    names = targets.layer_names(model)
    torch.manual_seed(request.seed)
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ModelUnavailable(
            f"peft refuses an adapter on local.lora.target_modules {request.target_modules!r}: {error}",
            hint=f"The layers it could be put on are: {', '.join(names)}. Or use all-linear.",
        ) from error
    if chosen.parameters and request.lora_dropout:
        _drop_inputs(adapted, request.lora_dropout)
    return adapted


def import_peft() -> None:
    """Import peft and bitsandbytes for the first time in this process, without torch's compiler.

    bitsandbytes decorates some functions with `torch.compile` as it is imported, and so loads the compiler: 1.6 of the 7 s of a
    processor that peft takes to import (bitsandbytes 0.50, torch 2.13). Those functions stand in for kernels that CPUs and
    CUDA have.
    """
    compiler = torch.compile
    torch.compile = _uncompiled
    try:
        import peft  # noqa: F401
    finally:
        torch.compile = compiler


def _uncompiled(function: Any = None, **_options: Any) -> Any:
    return function if function is not None else lambda decorated: decorated


def require_adapter(folder: Path) -> None:
    """Raise `ModelUnavailable` when a folder contains no LoRA adapter that training can continue from."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        there = (folder / "adapter_model.safetensors").is_file() and config["peft_type"] == "LORA"
    except (OSError, ValueError, KeyError, TypeError):
        there, config = False, {}
    if not there:
        raise ModelUnavailable(
            f"local.lora.continue_from: {folder} contains no LoRA adapter (adapter_config.json, adapter_model.safetensors).",
            hint="Name the adapter folder of a run, such as .ftbridge/runs/RUN/adapter.",
        )
    if (kind := config.get("init_lora_weights", True)) not in (True, "gaussian", "eva"):
        raise ModelUnavailable(
            f"local.lora.continue_from: the adapter in {folder} was started with init_lora_weights {kind!r}, which "
            "changes the base model's weights, so the base model alone is not the model that it was trained on.",
            hint="Save it as a plain LoRA adapter first (peft: save_pretrained with path_initial_model_for_weight_conversion).",
        )


def _continued(model: Any, folder: Path) -> Any:
    import_peft()
    from peft import PeftModel

    require_adapter(folder)
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ModelUnavailable(
            f"the adapter in {folder} does not fit this model: {str(error).strip().splitlines()[0]}",
            hint="Continue from an adapter that was trained on the same base model.",
        ) from error


def _drop_inputs(adapted: nn.Module, p: float) -> None:
    """Give the adapted linear layers their dropout where the adapter's config must say 0 for the sake of fused experts."""
    for module in adapted.modules():
        if hasattr(module, "lora_dropout") and not hasattr(module, "parameter_name"):
            for name in list(module.lora_dropout):
                module.lora_dropout[name] = nn.Dropout(p)


def close_repacking_trap(model: nn.Module) -> int:
    """Keep bitsandbytes from repacking 4-bit weights for CPU inference; returns how many layers were closed.

    On CPUs with AVX512-BF16, `Linear4bit.forward` in eval mode moves its weights into an inference layout for good, and
    the backward pass of that module is wrong from then on, without an error. A validation pass is enough.
    """
    closed = 0
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", None) is not None:
            module.support_avx512bf16_for_cpu = False
            closed += 1
    return closed


@dataclass
class FrozenWeights:
    """Hands out the frozen weights of linear layers, dequantised on the spot or from a copy kept in memory."""

    keep_copy: bool
    compute: torch.dtype

    @classmethod
    def of(cls, model: nn.Module, request: LocalRequest, device: Device) -> FrozenWeights:
        """Decide whether a 16-bit copy is kept: as asked, or when it is small beside the memory that is free."""
        wanted = request.cache_dequantized_weights
        if wanted == "auto":
            elements = sum(_elements(module) for module in model.modules() if _is_4bit(module))
            wanted = elements * 2 <= COPY_SHARE * device.free_bytes()
        return cls(bool(wanted), device.compute)

    def weight_of(self, base: nn.Module) -> Weight | None:
        """The weight of one base layer, for `fused.fuse`; None for layers to be left to peft (8-bit, unusual)."""
        weight = getattr(base, "weight", None)
        if _is_4bit(base):
            dequantize = _dequantizer(base)
            if not self.keep_copy:
                return dequantize
            copy = dequantize(self.compute)
            return lambda dtype: copy if copy.dtype == dtype else copy.to(dtype)
        if type(base) is nn.Linear and isinstance(weight, Tensor) and not weight.requires_grad:
            return lambda dtype: base.weight if base.weight.dtype == dtype else base.weight.to(dtype)
        return None


def _dequantizer(module: Any) -> Callable[[torch.dtype], Tensor]:
    from bitsandbytes.functional import dequantize_4bit

    def dequantize(dtype: torch.dtype) -> Tensor:
        with torch.no_grad():
            state = getattr(module.weight, "quant_state", None) or module.quant_state  # gathered bytes have none
            return dequantize_4bit(module.weight.data, state).to(dtype)

    return dequantize


def _is_4bit(module: nn.Module) -> bool:
    return type(module).__name__ == "Linear4bit" and hasattr(module, "compute_dtype")


def _elements(module: Any) -> int:
    return int(module.in_features * module.out_features)


_READ_PAST_LAYERS = {"mamba": ["dt_proj", "lm_head"]}
"""Layers by model type whose weights the class multiplies by itself (Mamba's dt_proj), with the head: they stay in 16 bits."""


def _quantization(request: LocalRequest, device: Device, path: Path) -> BitsAndBytesConfig:
    import_peft()
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(
            f"local.quantization {request.quantization} needs bitsandbytes, which cannot be imported: {error}",
            hint="pip install 'ftbridge[local]', or set local.quantization: none.",
        ) from error
    config = AutoConfig.from_pretrained(path, trust_remote_code=request.trust_remote_code)
    left = _READ_PAST_LAYERS.get(config.model_type)
    if request.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
    return BitsAndBytesConfig(
        llm_int8_skip_modules=left,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.compute,
    )


def use_dequantized(model: nn.Module, request: LocalRequest, device: Device) -> int:
    """Replace nf4 layers by 16-bit ones holding the same numbers, when memory allows; returns how many.

    Sampling then runs at 16-bit speed on the very weights that training saw.
    """
    frozen = FrozenWeights.of(model, request, device)
    if not frozen.keep_copy:
        return 0
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not _is_4bit(child):
                continue
            bias = getattr(child, "bias", None)
            plain = nn.Linear(_in(child), _out(child), bias=bias is not None, device="meta", dtype=device.compute)
            plain.weight = nn.Parameter(_dequantizer(child)(device.compute), requires_grad=False)
            if bias is not None:
                plain.bias = nn.Parameter(bias.data.to(device.compute), requires_grad=False)
            setattr(parent, name, plain)
            replaced += 1
    return replaced


def _in(module: Any) -> int:
    return int(module.in_features)


def _out(module: Any) -> int:
    return int(module.out_features)
