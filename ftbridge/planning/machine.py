"""This machine, without torch: its cards as NVIDIA's driver tells them, what others hold of them, and its memory."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess

from pydantic import BaseModel, ConfigDict, Field

GIB = 1 << 30
_PATIENCE = 5.0
"""Seconds for nvidia-smi: a driver in trouble may never answer."""
_BUSY = 0.1


class Card(BaseModel):
    """One graphics card."""

    model_config = ConfigDict(frozen=True)

    name: str
    gib: float = Field(description="All of its memory.")
    free_gib: float = Field(description="What nobody holds right now.")

    @property
    def busy(self) -> bool:
        """Whether others hold more than a tenth of it."""
        return self.free_gib < (1 - _BUSY) * self.gib


class Machine(BaseModel):
    """What trains here."""

    model_config = ConfigDict(frozen=True)

    cards: list[Card]
    memory_gib: float | None = Field(description="All memory of the processor; null where the system does not tell.")
    free_memory_gib: float | None
    notes: list[str]


def this_machine() -> Machine:
    """Look. Never raises: what cannot be seen is told in `notes`."""
    cards, notes = _cards()
    notes += [
        f"{card.name}: others hold {card.gib - card.free_gib:.1f} of {card.gib:.0f} GiB right now."
        for card in cards
        if card.busy
    ]
    total, free = _memory()
    return Machine(cards=cards, memory_gib=total, free_memory_gib=free, notes=notes)


def _cards() -> tuple[list[Card], list[str]]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return [], []
    query = [command, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except subprocess.TimeoutExpired:
        return [], [f"nvidia-smi did not answer within {_PATIENCE:g} s: this machine's cards are not known."]
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        return [], [f"nvidia-smi fails ({error}): this machine's cards are not known."]
    try:
        rows = [row for row in csv.reader(io.StringIO(done.stdout), skipinitialspace=True) if row]
        return [Card(name=name, gib=float(total) / 1024, free_gib=float(free) / 1024) for name, total, free in rows], []
    except ValueError:
        return [], [f"nvidia-smi answers {done.stdout[:60]!r}, which tells no memory: its cards are not known."]


def _memory() -> tuple[float | None, float | None]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(name) / GIB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None, None
    try:  # what Linux would give back counts as free
        with open("/proc/meminfo", encoding="ascii") as stream:  # noqa: PTH123 - not a file of ours
            told = dict(line.split(":", 1) for line in stream)
        free = int(told["MemAvailable"].split()[0]) / (1 << 20)
    except (OSError, KeyError, ValueError):
        pass
    return total, free
