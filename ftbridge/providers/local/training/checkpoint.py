"""Checkpoints that are whole or absent.

    checkpoints/step-000120/
      adapter_model.safetensors, adapter_config.json   peft's own format (or model files, for full tuning)
      optimizer.pt                                     optimizer and loss-scaler state, tensors only
      sharded/                                         instead of it: every worker's part of weights and moments (shards.py)
      state.json                                       step, best validation loss, early-stopping count
      COMPLETE.json                                    size and SHA-256 of each file, written last

Written under a temporary name, flushed, renamed. A folder without COMPLETE.json, or that does not match it, does not exist.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from ftbridge.files import disk_full_is_an_error, sha256_file, sync_folder, write_json
from ftbridge.providers.local.training import shards
from ftbridge.providers.local.training.parallel import ALONE, Parallel

MARKER = "COMPLETE.json"


class TrainingState(BaseModel):
    """Where training stands: everything that is not a tensor and not fixed by the request.

    `best_valid_loss` is the lowest validation loss so far, at `best_step`. `patience_loss` is the last one that fell by more
    than `min_delta`; `bad_validations` counts the validations since. Where scores are measured, not losses, `best_scores` are
    the highest with their steps, the best first, which is `best_step`; `patience_loss` is a negated score.
    """

    model_config = ConfigDict(frozen=True)
    step: int = 0
    best_step: int | None = None
    best_valid_loss: float | None = None
    best_scores: tuple[tuple[int, float], ...] = ()
    patience_loss: float | None = None
    bad_validations: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    tokens_per_pass: int | None = None
    stopped_early: bool = False


def save(
    folder: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    state: TrainingState,
    parallel: Parallel = ALONE,
) -> Path:
    """Write a checkpoint for `state.step` under `folder` and return it. All workers call this together. Raises `DiskFull`."""
    target = folder / f"step-{state.step:06d}"
    temporary = folder / f".{target.name}.tmp"
    is_adapter = hasattr(model, "get_base_model")
    norms = shards.norms(model, parallel) if is_adapter else {}
    try:
        with disk_full_is_an_error(folder):
            parallel.from_main(partial(_begin, temporary))
            weights = None
            if parallel.sharded:
                shards.save(temporary / shards.FOLDER, model, optimizer)
                weights = shards.gathered(model, keep=parallel.is_main) if is_adapter else None
            parallel.from_main(
                partial(_finish, temporary, target, model, optimizer, scaler, state, parallel.sharded, weights, norms)
            )
    finally:
        if parallel.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _begin(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _finish(
    temporary: Path,
    target: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    state: TrainingState,
    sharded: bool,
    weights: dict[str, torch.Tensor] | None,
    norms: dict[str, tuple[tuple[int, ...], float]],
) -> None:
    try:
        if weights is not None or not sharded:
            model.save_pretrained(temporary, safe_serialization=True, state_dict=weights)
        if not sharded:
            torch.save({"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}, temporary / "optimizer.pt")
    except RuntimeError as error:
        # safetensors and torch.save report a full disk as a RuntimeError; give it back its number.
        if "No space left" in str(error) or "os error 28" in str(error) or "file write failed" in str(error):
            raise OSError(28, "No space left on device") from error
        raise
    if norms:
        shards.require_saved(temporary, model, norms)
    (temporary / "README.md").unlink(missing_ok=True)
    (temporary / "state.json").write_text(state.model_dump_json(indent=2))
    marker = {}
    for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        marker[path.relative_to(temporary).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(temporary / MARKER, marker)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    sync_folder(target.parent)


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint is complete: marked, and each file of the size and hash the marker names."""
    try:
        marker = json.loads((folder / MARKER).read_text())
        return all(
            (folder / name).stat().st_size == facts["bytes"] and sha256_file(folder / name) == facts["sha256"]
            for name, facts in marker.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def latest(folder: Path) -> tuple[Path, TrainingState] | None:
    """The newest whole checkpoint and its state, or None. Broken ones are passed over."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if is_complete(path):
            return path, TrainingState.model_validate_json((path / "state.json").read_text())
    return None


def has_shards(path: Path) -> bool:
    """Whether a checkpoint was written by workers that each held a part."""
    return (path / shards.FOLDER).is_dir()


def restore(path: Path, model: Any, optimizer: torch.optim.Optimizer, scaler: Any, parallel: Parallel = ALONE) -> None:
    """Load a checkpoint's tensors into a model and optimizer built from the same request, sharded or whole, as it is now."""
    if has_shards(path):
        shards.load(path / shards.FOLDER, model, optimizer)
        return
    saved = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    if parallel.sharded:
        shards.scatter(model, optimizer, _whole_weights(path, model), saved["optimizer"])
        return
    load_weights(path, model)
    optimizer.load_state_dict(saved["optimizer"])
    scaler.load_state_dict(saved["scaler"])


def load_weights(path: Path, model: Any, parallel: Parallel = ALONE) -> None:
    """Load a checkpoint's weights: the adapter into a peft model, or every weight into a plain one."""
    from safetensors.torch import load_file

    if has_shards(path):
        shards.load(path / shards.FOLDER, model, None)
        return
    if parallel.sharded:
        shards.fill(model, _whole_weights(path, model))
        return
    if hasattr(model, "get_base_model"):
        from peft import set_peft_model_state_dict

        outcome = set_peft_model_state_dict(model, load_file(path / "adapter_model.safetensors"))
        missing, unexpected = [name for name in outcome.missing_keys if "lora_" in name], outcome.unexpected_keys
    else:
        # The names on disk are the hub's, which transformers may rename, split or join on loading: load as it does.
        saved = type(model).from_pretrained(path, dtype=next(model.parameters()).dtype, use_safetensors=True)
        missing, unexpected = model.load_state_dict(saved.state_dict(), strict=False)
    if unexpected or missing:
        raise ValueError(f"checkpoint {path} does not fit the model: missing {missing}, unexpected {unexpected}")


def _whole_weights(path: Path, model: Any) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint by the names of the model's trained parameters."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    if hasattr(model, "get_base_model"):
        saved = load_file(path / "adapter_model.safetensors")
        return {name: saved[key] for name, key in shards.names_in_file(model).items()}
    saved_model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    return dict(saved_model.named_parameters())


def prune(folder: Path, keep: int, always: Iterable[int | None]) -> None:
    """Remove all but the `keep` newest checkpoints and the steps in `always`."""
    protected = {f"step-{step:06d}" for step in always if step is not None}
    for path in sorted(folder.glob("step-*"), reverse=True)[keep:]:
        if path.name not in protected:
            shutil.rmtree(path, ignore_errors=True)
