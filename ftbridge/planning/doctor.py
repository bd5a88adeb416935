"""What this machine can do, what is missing, and the command that mends it. Imports nothing heavy, sends nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import __version__, files
from ftbridge.extras import EXTRAS

KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "NEBIUS_API_KEY")
_FREE_GB = 5


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "missing", "warning"]
    told: str = Field(description="What was found.")
    mend: str | None = Field(default=None, description="The command, or the setting, that mends it.")


def examine() -> list[Finding]:
    """Everything, in the order in which a run needs it. Never raises."""
    return [
        Finding(
            name="ftbridge",
            state="ok",
            told=f"{__version__} on Python {platform.python_version()}, {platform.platform()}",
        ),
        _memory(),
        _room(),
        *(_extra(name, purpose, modules) for name, (purpose, modules) in EXTRAS.items()),
        _card(),
        *_keys(),
    ]


def _extra(name: str, purpose: str, modules: tuple[str, ...]) -> Finding:
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        description = f"{purpose}: without {', '.join(absent)}"
        return Finding(name=f"extra {name}", state="missing", told=description, mend=f"pip install 'ftbridge[{name}]'")
    return Finding(name=f"extra {name}", state="ok", told=f"{purpose}: {', '.join(_versions(modules))}")


def _versions(modules: tuple[str, ...]) -> Iterator[str]:
    for module in modules[:3]:
        try:
            yield f"{module} {metadata.version(module)}"
        except metadata.PackageNotFoundError:
            yield module


def _card() -> Finding:
    """The graphics card, as the driver tells it; on Apple's machines the processor's own."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Finding(name="card", state="ok", told="Apple silicon (mps); 4-bit weights need CUDA or the CPU")
    command = shutil.which("nvidia-smi")
    if command is None:
        description = (
            "none that NVIDIA's driver knows: training runs on the CPU, which suits models up to a billion parameters"
        )
        return Finding(name="card", state="warning", told=description)
    try:
        query = [command, "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name="card", state="warning", told=f"nvidia-smi does not answer ({error})", mend="nvidia-smi")
    description = "; ".join(line.strip() for line in done.stdout.splitlines())
    if _torch_is_for_the_cpu():
        fix = "install torch's CUDA build: https://pytorch.org/get-started"
        return Finding(name="card", state="warning", told=f"{description}; but torch is built for the CPU", mend=fix)
    return Finding(name="card", state="ok", told=description)


def _torch_is_for_the_cpu() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def _memory() -> Finding:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return Finding(name="machine", state="ok", told=f"{os.cpu_count()} processors, {size:.0f} GB of memory")
    return Finding(name="machine", state="ok", told=f"{os.cpu_count()} processors")


def _room() -> Finding:
    home = files.home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    description = f"{home}: {free:.0f} GB free"
    if free < _FREE_GB:
        return Finding(name="runs", state="warning", told=description, mend="point FTBRIDGE_HOME at a larger disk")
    return Finding(name="runs", state="ok", told=description)


def _keys() -> Iterator[Finding]:
    present = [name for name in KEYS if os.environ.get(name)]
    if present:
        yield Finding(name="keys", state="ok", told=f"{', '.join(present)} set (not shown, not tried)")
    else:
        yield Finding(
            name="keys",
            state="warning",
            told="no service's key is set: --provider openai needs one",
            mend="export OPENAI_API_KEY=…",
        )
