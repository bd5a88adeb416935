"""What prepared data are: examples, tokens and the SHA-256 of each split, as manifest.json and the journal hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ftbridge.errors import DataError

SplitName = Literal["train", "validation", "test", "replay"]
"""`replay` holds prompts alone: what the base model completes (`ftbridge.data.replay`)."""


class Split(BaseModel):
    """One split: how many examples and `o200k_base` tokens, the SHA-256 of its file, the sources it was read from."""

    model_config = ConfigDict(frozen=True)
    examples: int
    tokens: int
    sha256: str
    sources: list[str]


class Manifest(BaseModel):
    """What was prepared. `notes` are warnings; `recipe` and `lines_sha256` tell whether a folder is still this one."""

    model_config = ConfigDict(frozen=True)
    splits: dict[SplitName, Split]
    notes: list[str]
    recipe: str
    lines_sha256: str


def load_manifest(out: Path) -> Manifest:
    """The manifest of a prepared folder. Raises `DataError` when there is none, or it cannot be read."""
    path = out / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = "is not a manifest" if isinstance(error, ValidationError) else "cannot be read"
        raise DataError(f"{path} {what}; the data of this run is not prepared.", hint="Start the run again.") from None
