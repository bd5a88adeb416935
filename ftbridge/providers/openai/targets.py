"""Services that speak OpenAI's fine-tuning dialect, and what each can do: known before a run, not found out half-way.

Sources: OpenAI's API reference; Microsoft's Foundry fine-tuning guides; Nebius Token Factory's cookbook. A `custom` address is
taken to do what OpenAI does, except that it may drop `metadata`, and is asked for no more than it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["openai", "azure", "nebius", "custom"]

MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """One service. Sizes are bytes; `None` is "no such limit" or "not published".

    `keeps_metadata`: a job's `metadata` surely comes back and can be listed by; elsewhere jobs are also matched by model,
    file and place in the list. `hyperparameters`: under `method.TYPE`, or at the top as before December 2024.
    `serves_tuned`: a tuned model answers under its own name; elsewhere it must be deployed first.
    """

    name: Name
    title: str
    base_url: str | None
    keys: tuple[str, ...]
    methods: tuple[str, ...] = ("supervised", "dpo", "reinforcement")
    hyperparameters: Literal["method", "top"] = "method"
    keeps_metadata: bool = True
    pause: bool = True
    checkpoints: bool = True
    events: bool = True
    result_files: bool = True
    batch: bool = True
    serves_tuned: bool = True
    byte_order_mark: bool = False
    suffix_length: int = 40
    largest_file: int | None = None
    upload_in_parts_above: int | None = None
    max_tokens: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"


TARGETS: dict[str, Target] = {
    "openai": Target(
        "openai", "OpenAI", "https://api.openai.com/v1", ("OPENAI_API_KEY",),
        largest_file=8_000 * MB, upload_in_parts_above=512 * MB,
    ),
    "azure": Target(
        "azure", "Azure", None, ("AZURE_OPENAI_API_KEY", "OPENAI_API_KEY"),
        keeps_metadata=False, serves_tuned=False, byte_order_mark=True,
        largest_file=8_000 * MB, upload_in_parts_above=150 * MB,
    ),
    "nebius": Target(
        "nebius", "Nebius", "https://api.tokenfactory.nebius.com/v1/", ("NEBIUS_API_KEY",),
        methods=("supervised",), hyperparameters="top", keeps_metadata=False, pause=False, result_files=False,
        batch=False, serves_tuned=False, largest_file=5_000 * MB, max_tokens="max_tokens",
    ),
    "custom": Target(
        "custom", "the service", None, ("OPENAI_API_KEY",),
        keeps_metadata=False, suffix_length=64, max_tokens="max_tokens",
    ),
}  # fmt: skip
"""By the name that a spec gives in `openai.target`."""
