"""Log-probabilities of completions by the reference model: computed once, before the first step, and kept in the run folder.

    RUN/reference.jsonl
        {"version": 1, "key": {model, adapter, quantization, compute, layout}}
        {"pair": "9f0c…", "chosen": -41.25, "rejected": -63.5, "chosen_tokens": 18, "rejected_tokens": 24}

The reference is the model as training finds it: the base model, or the adapter that training continues from. A fresh adapter
adds exactly nothing, so the policy before its first update *is* the reference, in the same mode, kernels and layout; no second
model is loaded. It is computed before a checkpoint is restored, so that a resumed run, too, would compute the reference and
never its own weights. The mode is that of training, in which nothing draws any more (`repeatable.py`): some layers compute
otherwise in evaluation mode, int8 ones on a CPU by 0.2 nats a token.

Rows are appended and flushed as they come, so a killed pass goes on where it was. The key names everything that the numbers
depend on beside the pair's own tokens, which name the row. A run that has begun to train against one reference never goes on
with another: what has changed is named, and the run stops.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ftbridge.errors import OutOfMemory, TrainingFailed
from ftbridge.files import disk_full_is_an_error
from ftbridge.providers.local.models.device import is_out_of_memory
from ftbridge.providers.local.process.job import JobInterrupted
from ftbridge.providers.local.training import pairs as preference_pairs
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.pairs import Pair
from ftbridge.providers.local.training.parallel import ALONE, Parallel, Turn

NAME = "reference.jsonl"
VERSION = 1
_IDENTITY = ("model", "adapter", "quantization")
_SECONDS_BETWEEN_MESSAGES = 15.0


class ReferenceKey(BaseModel):
    """What the reference log-probabilities depend on beside the tokens of a pair. `layout` names kernels and row layout."""

    model_config = ConfigDict(frozen=True)

    model: str
    adapter: str | None
    quantization: str
    compute: str
    layout: str


class ReferenceRow(BaseModel):
    """One pair: summed log-probabilities in nats, and tokens of the completions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: str
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int


def with_reference(
    forward: Forward,
    pairs: Sequence[Pair],
    key: ReferenceKey,
    path: Path,
    *,
    shared: bool,
    budget: int,
    begun: bool,
    say: Callable[[str], None] = lambda _: None,
    requested: Callable[[], Literal["pause", "cancel"] | None] = lambda: None,
    parallel: Parallel = ALONE,
) -> list[Pair]:
    """The pairs with their `reference`, from the file or computed now and added to it.

    The model must be as training finds it, and draw nothing. `begun` says that a checkpoint exists. Raises `TrainingFailed`
    where the file belongs to another model, `JobInterrupted` where `requested` says so between micro-batches. Leaves the model
    in train mode.
    """
    rows = parallel.from_main(partial(_read, path, key, begun, say))
    missing = list({pair.name: pair for pair in pairs if pair.name not in rows}.values())
    if missing:
        rows |= _compute(forward, missing, path, shared, budget, say, requested, parallel)
    return [replace(pair, reference=(rows[pair.name].chosen, rows[pair.name].rejected)) for pair in pairs]


def _read(path: Path, key: ReferenceKey, begun: bool, say: Callable[[str], None]) -> dict[str, ReferenceRow]:
    """The rows of a file that was written under this key; otherwise a new file is begun."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    header = _header(lines[0]) if lines else None
    if header is None or header != key:
        if header is not None:
            changed = [name for name in ReferenceKey.model_fields if getattr(header, name) != getattr(key, name)]
            if begun and any(name in _IDENTITY for name in changed):
                raise TrainingFailed(
                    f"{path.name} was computed with another {' and '.join(changed)} than this run has now, and "
                    "training has already begun with it; a reference that changes during training would make its "
                    "steps meaningless.",
                    hint="Restore what was there when the run began, or start a new run.",
                )
            say(f"the reference log-probabilities are computed again: {', '.join(changed)} changed")
        with disk_full_is_an_error(path.parent):
            _begin(path, key)
        return {}
    rows = {}
    complete_bytes = len(lines[0]) + 1
    for line in lines[1:-1]:
        try:
            row = ReferenceRow.model_validate_json(line)
        except ValidationError:
            break
        rows[row.pair] = row
        complete_bytes += len(line) + 1
    if complete_bytes < path.stat().st_size:  # a kill left half a line
        os.truncate(path, complete_bytes)
    return rows


def _header(line: bytes) -> ReferenceKey | None:
    try:
        document = json.loads(line)
        return ReferenceKey.model_validate(document["key"]) if document["version"] == VERSION else None
    except (ValueError, KeyError, TypeError):
        return None


def _begin(path: Path, key: ReferenceKey) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps({"version": VERSION, "key": key.model_dump()}) + "\n", encoding="utf-8")
    temporary.replace(path)


def _compute(
    forward: Forward,
    pairs: Sequence[Pair],
    path: Path,
    shared: bool,
    budget: int,
    say: Callable[[str], None],
    requested: Callable[[], Literal["pause", "cancel"] | None],
    parallel: Parallel,
) -> dict[str, ReferenceRow]:
    """Rows of all pairs, in rounds: a micro-batch on each worker, whose rows the main one then writes."""
    rows: dict[str, ReferenceRow] = {}
    clock = time.monotonic()
    parts = preference_pairs.cut(forward, pairs, parallel.budget(pairs, budget), shared=shared)
    turns = parallel.deal(parts)
    forward.model.train()
    with torch.no_grad(), disk_full_is_an_error(path.parent):
        for number in range(max(parallel.everyone(len(turns)))):
            if (request := parallel.from_main(requested)) is not None:
                raise JobInterrupted(request)
            turn = turns[number] if number < len(turns) else None
            computed = parallel.together(partial(_rows, forward, turn, shared))
            fresh = [row for one in computed for row in one]
            parallel.from_main(partial(_append, path, fresh))
            rows |= {row.pair: row for row in fresh}
            if time.monotonic() - clock > _SECONDS_BETWEEN_MESSAGES:
                clock = time.monotonic()
                say(f"reference log-probabilities: {len(rows):,} of {len(pairs):,} pairs")
    return rows


def _rows(forward: Forward, turn: Turn[Pair] | None, shared: bool) -> list[ReferenceRow]:
    """The rows of one worker's micro-batch; none where it only keeps in line."""
    if turn is None:
        return []
    rows = [
        ReferenceRow(
            pair=pair.name,
            chosen=values[0],
            rejected=values[1],
            chosen_tokens=pair.chosen.num_loss_tokens,
            rejected_tokens=pair.rejected.num_loss_tokens,
        )
        for pair, values in zip(turn.part, _values(forward, turn.part, shared), strict=True)
    ]
    return [] if turn.idle else rows


def _append(path: Path, rows: Sequence[ReferenceRow]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(row.model_dump_json() + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def _values(forward: Forward, part: Sequence[Pair], shared: bool) -> list[list[float]]:
    """Both log-probabilities of each pair; where memory runs out, in halves."""
    try:
        values: list[list[float]] = preference_pairs.completion_log_probabilities(forward, part, shared=shared).tolist()
        return values
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(part) == 1:
            raise OutOfMemory(
                f"memory ran out on a pair of {len(part[0]):,} tokens ({str(error).splitlines()[0]}).",
                hint="Lower local.max_length, set local.quantization: nf4, or use a smaller base model.",
            ) from error
        forward.device.empty_cache()
    half = len(part) // 2
    return [*_values(forward, part[:half], shared), *_values(forward, part[half:], shared)]
