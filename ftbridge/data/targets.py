"""Where a fine-tuning file can go, and what each place takes: the figures that lint rules judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TargetName = Literal["openai", "azure", "nebius", "local"]

MB = 1_000_000


@dataclass(frozen=True)
class UploadTarget:
    """One service, or this machine. Sizes are bytes, counts are examples, `None` is "no such limit".

    `bom` says what a byte order mark does: `"breaks"` (readers miss the first line), `"needed"`, or `"ignored"`.
    """

    name: TargetName
    title: str
    minimum_examples: int
    largest_file: int | None
    upload_in_parts_above: int | None
    images_per_example: int | None
    image_examples: int | None
    bom: Literal["breaks", "needed", "ignored"]
    refuses_special_tokens: bool


TARGETS: dict[str, UploadTarget] = {
    "openai": UploadTarget("openai", "OpenAI", 10, 8_000 * MB, 512 * MB, 10, 50_000, "breaks", True),
    "azure": UploadTarget("azure", "Azure", 10, 8_000 * MB, 150 * MB, 64, 50_000, "needed", True),
    "nebius": UploadTarget("nebius", "Nebius", 1, 5_000 * MB, None, 10, None, "breaks", False),
    "local": UploadTarget("local", "this machine", 2, None, None, None, None, "ignored", False),
}
"""Sources: OpenAI's files, uploads, supervised and vision fine-tuning guides; Microsoft's Foundry fine-tuning guides
(files with a byte order mark, 64 images an example, single uploads that fail above about 150 MB); Nebius Token Factory's
cookbook (files up to 5 GB). Nebius publishes no minimum."""

LONGEST_EXAMPLE = {
    "gpt-4.1": 65_536,
    "gpt-4o": 65_536,
    "gpt-3.5-turbo": 16_385,
    "gpt-3.5-turbo-0613": 4_096,
}
"""Tokens of one training example by the model's name or its longest known beginning; the rest is cut off without an
error. Sources: OpenAI's fine-tuning best practices (gpt-4.1 family, gpt-4o-2024-08-06, gpt-4o-mini) and the early-2025
fine-tuning guide (gpt-3.5-turbo)."""

DEFAULT_LONGEST_EXAMPLE = 65_536
"""For a hosted model that is not named: the limit of every model that OpenAI still trains."""


def longest_example(model: str | None) -> int:
    """The most tokens of one training example that `model` reads; `ft:` names count as their base model."""
    base = (model or "").removeprefix("ft:").split(":")[0]
    prefixes = [name for name in LONGEST_EXAMPLE if base.startswith(name)]
    return LONGEST_EXAMPLE[max(prefixes, key=len)] if prefixes else DEFAULT_LONGEST_EXAMPLE
