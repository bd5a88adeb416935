"""This machine without torch: its memory and processor, and its GPUs with what other processes hold of them right now.

GPUs are read from `nvidia-smi`, which is called once and has a few seconds: if it hangs, fails or prints nonsense, the plan
has a note about it and goes on. CUDA_VISIBLE_DEVICES is respected, as in training.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.providers.local.models.footprint import Kind

SECONDS = 4.0
"""How long nvidia-smi may take; it needs a second or two where no process holds the driver."""
_QUERY = "index,uuid,name,memory.total,memory.used,memory.free,driver_version"


class Card(BaseModel):
    """One NVIDIA card. Bytes."""

    model_config = ConfigDict(frozen=True)

    index: int
    uuid: str
    name: str
    total: int
    used: int = Field(description="Held by other processes now, and by the driver.")
    free: int
    driver: str = Field(default="", description="Version of NVIDIA's driver.")


class Machine(BaseModel):
    """What training here has to do with. Bytes; null where the system does not tell."""

    model_config = ConfigDict(frozen=True)

    processor: str
    cores: int
    compute: Literal[2, 4] = Field(
        description="Bytes of the processor's best compute type: bf16 where it multiplies it."
    )
    ram_total: int | None
    ram_free: int | None
    cards: list[Card]
    notes: list[str]

    def device(self, requested: str) -> tuple[Kind, str, int | None]:
        """What `local.device` takes here: its kind, its name, and the bytes that are free on it."""
        if requested in ("auto", "cuda") and self.cards:
            return "cuda", self.cards[0].name, self.cards[0].free
        if requested == "cuda":
            return "cuda", "no card", None
        apple = sys.platform == "darwin" and platform.machine() == "arm64"
        kind: Kind = "mps" if requested == "mps" or (requested == "auto" and apple) else "cpu"
        return kind, f"{self.processor}, {self.cores} cores", self.ram_free


def this_machine(*, cards: bool = True) -> Machine:
    """Look, now."""
    notes: list[str] = []
    gpus = read_gpus(notes) if cards else []
    total, free = _memory()
    info = _read("/proc/cpuinfo")
    named = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor=named or platform.processor() or platform.machine(),
        cores=cores,
        compute=2 if "avx512_bf16" in info else 4,
        ram_total=total,
        ram_free=free,
        cards=gpus,
        notes=notes,
    )


def read_gpus(notes: list[str]) -> list[Card]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves; empty without nvidia-smi.

    `notes` receives a sentence for each reason why GPUs may be missing from the list.
    """
    path = shutil.which("nvidia-smi")
    if path is None:
        return []
    rows = _ask([path, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"], notes)
    cards: list[Card] = []
    for line in (rows or "").splitlines():
        if not line.strip():
            continue
        try:
            index, uuid, *name, total, used, free, driver = (cell.strip() for cell in line.split(","))
            sizes = [int(cell) << 20 for cell in (total, used, free)]
            card = Card(
                index=int(index),
                uuid=uuid,
                name=",".join(name),
                total=sizes[0],
                used=sizes[1],
                free=sizes[2],
                driver=driver,
            )
        except ValueError:
            notes.append(f"nvidia-smi printed a line about a GPU that cannot be read: {line.strip()[:80]!r}.")
            continue
        if not (card.name and card.total > 0 and 0 <= card.free <= card.total and card.used >= 0):
            notes.append(f"nvidia-smi printed impossible sizes of memory for a GPU: {line.strip()[:80]!r}.")
            continue
        cards.append(card)
    return _visible(cards)


def _ask(command: list[str], notes: list[str]) -> str | None:
    """What a command prints, or None with a note. Its whole process group ends with it."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        notes.append(f"nvidia-smi cannot be run ({error.strerror}); GPUs are not known.")
        return None
    with child:
        try:
            output, _ = child.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            notes.append(f"nvidia-smi did not answer within {SECONDS:g} seconds; GPUs are not known.")
            return None
    if child.returncode:
        first = next((line for line in output.splitlines() if line.strip()), f"exit status {child.returncode}")
        notes.append(f"nvidia-smi failed ({first.strip()[:120]}); GPUs are not known.")
        return None
    return output


def _visible(cards: list[Card]) -> list[Card]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, in its order; it ends at the first that is none, as CUDA has it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return cards
    chosen: list[Card] = []
    for name in (part.strip() for part in visible.split(",")):
        card = next((c for c in cards if name == str(c.index) or (name and c.uuid.startswith(name))), None)
        if card is None:
            break
        chosen.append(card)
    return chosen


def _memory() -> tuple[int | None, int | None]:
    """Total and available memory, within this container's limit where it has one."""
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    bytes_by_key = {
        parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in lines if len(parts) > 1 and parts[1].isdigit()
    }
    total, free = bytes_by_key.get("MemTotal"), bytes_by_key.get("MemAvailable")
    if total is None:
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return None, None
    for limit, used in _CGROUPS:
        most, held = _read(limit).strip(), _read(used).strip()
        if most.isdigit() and int(most) < total:
            total = int(most)
            free = min(free or total, total - int(held)) if held.isdigit() else free
    return total, free


_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
