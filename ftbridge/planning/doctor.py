"""What this machine can do, what is missing, and the command that fixes it. Imports nothing heavy, sends nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import __version__, files
from ftbridge.extras import EXTRAS
from ftbridge.planning.machine import read_gpus
from ftbridge.redaction import without_secrets

KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "NEBIUS_API_KEY")
_FREE_GB = 5


class Examined(BaseModel):
    """One thing that was examined: its state, and what to do about it."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "missing", "warning"]
    message: str
    fix: str | None = Field(default=None, description="The command, or the setting, that fixes it.")


def examine() -> list[Examined]:
    """Everything, in the order in which a run needs it. Never raises."""
    return [
        Examined(
            name="ftbridge",
            state="ok",
            message=f"{__version__} on Python {platform.python_version()}, {platform.platform()}",
        ),
        _memory(),
        _room(),
        *(_extra(name, purpose, modules) for name, (purpose, modules) in EXTRAS.items()),
        _gpu(),
        *_clusters(),
        *_keys(),
    ]


def _extra(name: str, purpose: str, modules: tuple[str, ...]) -> Examined:
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        description = f"{purpose}: without {', '.join(absent)}"
        return Examined(
            name=f"extra {name}", state="missing", message=description, fix=f"pip install 'ftbridge[{name}]'"
        )
    return Examined(name=f"extra {name}", state="ok", message=f"{purpose}: {', '.join(_versions(modules))}")


def _versions(modules: tuple[str, ...]) -> Iterator[str]:
    for module in modules[:3]:
        try:
            yield f"{module} {metadata.version(module)}"
        except metadata.PackageNotFoundError:
            yield module


def _gpu() -> Examined:
    """The GPUs: NVIDIA's, or the processor's own on Apple's machines."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Examined(name="GPU", state="ok", message="Apple silicon (mps); 4-bit weights need CUDA or the CPU")
    notes: list[str] = []
    gpus = read_gpus(notes)
    if not gpus and notes:
        return Examined(name="GPU", state="warning", message=" ".join(notes), fix="nvidia-smi")
    if not gpus:
        message = "no NVIDIA GPU: training runs on the CPU, which suits models of up to a billion parameters"
        return Examined(name="GPU", state="warning", message=message)
    message = "; ".join(
        f"{gpu.name}, {gpu.total >> 20:,} MiB ({gpu.free >> 20:,} free), driver {gpu.driver}" for gpu in gpus
    )
    if _torch_is_for_the_cpu():
        fix = "install torch's CUDA build: https://pytorch.org/get-started"
        return Examined(name="GPU", state="warning", message=f"{message}; but torch is built for the CPU", fix=fix)
    return Examined(name="GPU", state="ok", message=message)


def _torch_is_for_the_cpu() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def _memory() -> Examined:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return Examined(name="machine", state="ok", message=f"{os.cpu_count()} processors, {size:.0f} GB of memory")
    return Examined(name="machine", state="ok", message=f"{os.cpu_count()} processors")


def _room() -> Examined:
    home = files.home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    description = f"{home}: {free:.0f} GB free"
    if free < _FREE_GB:
        return Examined(name="runs", state="warning", message=description, fix="point FTBRIDGE_HOME at a larger disk")
    return Examined(name="runs", state="ok", message=description)


def _clusters() -> Iterator[Examined]:
    """Slurm where any of its commands is installed, and Ray where its address is set; nothing on most machines."""
    from ftbridge.providers.ray import scheduler as ray  # these load an HTTP client, which the rest does without
    from ftbridge.providers.slurm import scheduler as slurm

    absent = slurm.absent_commands()
    if not absent:
        yield Examined(name="slurm", state="ok", message="--provider slurm: its commands are installed (not tried)")
    elif len(absent) < len(slurm.COMMANDS):
        message = f"--provider slurm: {', '.join(absent)} is not on PATH"
        yield Examined(name="slurm", state="warning", message=message, fix="install Slurm's client commands")
    if address := os.environ.get(ray.ADDRESS_VARIABLE):
        message = f"--provider ray: {without_secrets(address)}, from {ray.ADDRESS_VARIABLE} (not tried)"
        yield Examined(name="ray", state="ok", message=message)


def _keys() -> Iterator[Examined]:
    present = [name for name in KEYS if os.environ.get(name)]
    if present:
        yield Examined(name="keys", state="ok", message=f"{', '.join(present)} set (not shown, not tried)")
    else:
        yield Examined(
            name="keys",
            state="warning",
            message="no service's key is set: --provider openai needs one",
            fix="export OPENAI_API_KEY=…",
        )
