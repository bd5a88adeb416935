"""Services that speak OpenAI's fine-tuning API, and what each can do: known before a run, not found out half-way.

What each takes as a file is in `ftbridge.data.targets`, which the linter reads too.

Sources: OpenAI's API reference; Microsoft's Foundry fine-tuning guides; Nebius Token Factory's cookbook. A `custom` address is
taken to do what OpenAI does, except that it may drop `metadata`, and is asked for no more than it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ftbridge.data import targets as data_targets

Name = Literal["openai", "azure", "nebius", "custom"]


@dataclass(frozen=True)
class Target:
    """One service. Sizes are bytes; `None` means that there is no limit, or that none is published.

    `keeps_metadata`: a job's `metadata` surely comes back and can be listed by; elsewhere jobs are also matched by model,
    file and place in the list. `hyperparameters`: under `method.TYPE`, or at the top as before December 2024.
    `serves_tuned`: a tuned model answers under its own name; elsewhere it must be deployed first.
    `chooses`: it takes "auto" for epochs and batch size and chooses itself; elsewhere it gets numbers.
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
    chooses: bool = True
    suffix_length: int = 40
    max_tokens: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"

    @property
    def largest_file(self) -> int | None:
        """Bytes of the largest file that can be uploaded, as the linter has it."""
        return None if self._files is None else self._files.largest_file

    @property
    def upload_in_parts_above(self) -> int | None:
        """Bytes above which a file is uploaded in parts, as the linter has it."""
        return None if self._files is None else self._files.upload_in_parts_above

    @property
    def byte_order_mark(self) -> bool:
        """Whether a file needs a byte order mark."""
        return self._files is not None and self._files.bom == "needed"

    @property
    def _files(self) -> data_targets.UploadTarget | None:
        return data_targets.TARGETS.get(self.name)


TARGETS: dict[str, Target] = {
    "openai": Target(
        "openai", "OpenAI", "https://api.openai.com/v1", ("OPENAI_API_KEY",),
    ),
    "azure": Target(
        "azure", "Azure", None, ("AZURE_OPENAI_API_KEY", "OPENAI_API_KEY"),
        keeps_metadata=False, serves_tuned=False,
    ),
    "nebius": Target(
        "nebius", "Nebius", "https://api.tokenfactory.nebius.com/v1/", ("NEBIUS_API_KEY",),
        methods=("supervised",), hyperparameters="top", keeps_metadata=False, pause=False, result_files=False,
        batch=False, serves_tuned=False, chooses=False, max_tokens="max_tokens",
    ),
    "custom": Target(
        "custom", "the service", None, ("OPENAI_API_KEY",),
        keeps_metadata=False, suffix_length=64, max_tokens="max_tokens",
    ),
}  # fmt: skip
"""By the name that a spec gives in `openai.target`."""
