"""The optional parts of the installation: what each brings, and the one error that names the command when it is missing.

A base install lints, converts, plans, and trains on a hosted provider. Whatever needs more names the extra here, so that
`doctor` and every `MissingDependency` say the same.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Literal, NamedTuple

from ftbridge.errors import MissingDependency

ExtraName = Literal["local", "eval", "serve", "convert"]


class Extra(NamedTuple):
    """What an extra is for, and the modules that show whether it is installed."""

    purpose: str
    modules: tuple[str, ...]


EXTRAS: dict[str, Extra] = {
    "local": Extra(
        "fine-tuning on this machine",
        ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "huggingface_hub", "gguf", "psutil", "scipy"),
    ),
    "serve": Extra("the server and the simulator", ("starlette", "uvicorn", "python_multipart", "llguidance")),
    "eval": Extra(
        "intervals and verdicts, text similarity and JSON Schema graders",
        ("scipy", "rapidfuzz", "sacrebleu", "nltk", "jsonschema", "bm25s"),
    ),
    "convert": Extra("Parquet, Excel and zstd", ("pyarrow", "openpyxl", "zstandard")),
}


def missing(extra: ExtraName, purpose: str, *packages: str) -> MissingDependency:
    """The error for packages of an extra that are not installed: "PURPOSE needs A and B", with the command as its hint."""
    return MissingDependency(f"{purpose} needs {' and '.join(packages)}.", hint=f"pip install 'ftbridge[{extra}]'")


def require(extra: ExtraName, purpose: str, *modules: str) -> None:
    """Raise `MissingDependency` that names the modules of `modules` that are not installed. Imports none of them."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        raise missing(extra, purpose, *absent)


def load(extra: ExtraName, purpose: str, module: str) -> Any:
    """A module of an extra, imported. Raises `MissingDependency` when its package is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(extra, purpose, (error.name or module).partition(".")[0]) from None
