"""What this machine can do: device, compute type, memory, and how it says that memory ran out."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from ftbridge.errors import UsageError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Device:
    """Where tensors live and the type they are computed in."""

    torch: torch.device
    compute: torch.dtype

    @property
    def kind(self) -> str:
        """cuda, mps or cpu."""
        return self.torch.type

    def free_bytes(self) -> int:
        """Memory that can still be taken, in bytes."""
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info(self.torch)[0])
        return int(psutil.virtual_memory().available)

    def peak_gb(self) -> float:
        """Most memory held so far, in GB: allocated on the card, or resident in this process."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated(self.torch) / 1e9
        try:
            import resource
        except ImportError:
            return psutil.Process().memory_info().rss / 1e9
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    def empty_cache(self) -> None:
        """Return freed blocks to the system: passes differ in size, and allocators keep what does not fit the next."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)

    def describe(self) -> str:
        """One phrase for people."""
        name = torch.cuda.get_device_name(self.torch) if self.kind == "cuda" else f"{torch.get_num_threads()} threads"
        return f"{self.kind} ({name}), {str(self.compute).removeprefix('torch.')}"


def pick(device: str, precision: Literal["auto", "bf16", "fp16", "fp32"]) -> Device:
    """The device asked for, or the best there is; and the best compute type it has.

    Raises `UsageError` for a device this machine, or this build of torch, does not have.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    elif not has[device]:
        raise UsageError(
            f"local.device is {device}, but torch {torch.__version__} finds none on this machine.",
            hint="Set local.device: auto, or install a build of torch for your GPU.",
        )
    where = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)
    return Device(where, PRECISIONS[precision] if precision != "auto" else _best_precision(device))


def _best_precision(device: str) -> torch.dtype:
    """bf16 where the hardware multiplies it, else fp16 on cards and fp32 on CPUs (bf16 emulation is slow there)."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device == "mps":
        return torch.bfloat16
    multiplies_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if multiplies_bf16 else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is memory running out: on a card, in the CPU allocator, or in Python."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS) and "descriptor" not in text


_SIGNS = (
    "can't allocate memory",
    "out of memory",
    "could not create a memory",
    "could not create a primitive",
    "bad_alloc",
)
"""How torch's allocator, and oneDNN when it cannot map memory for its code or buffers, say that there is none."""
