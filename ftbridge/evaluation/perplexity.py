"""Perplexity of the reference answers: how well a model foresaw them, where its provider can tell.

    exp( nats of all reference tokens, the end of turn included / their number )

Over all items together, so that long answers count by their length. Tokenizers cut differently: only models with one tokenizer
can be compared. Kept in a file beside the answers, under a hash of the items: what was computed is not computed again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftbridge.evaluation.items import Item
from ftbridge.files import sha256_bytes, write_json
from ftbridge.providers.base import Prompt, Scorer


def perplexity(items: Sequence[Item], scorer: Scorer, path: Path, *, batch_size: int) -> float:
    """Of the items' references, from `path` when it holds them, else from the model. Raises what the scorer raises."""
    if (cached := read_perplexity(items, path)) is not None:
        return cached
    prompts = [Prompt(key=item.key, messages=item.prompt, tools=item.tools) for item in items]
    references = [str(item.fields["reference"]) for item in items]
    nats, tokens = 0.0, 0
    for log_likelihoods in scorer.score(prompts, references, batch_size=batch_size):
        nats, tokens = nats + log_likelihoods.nats, tokens + log_likelihoods.tokens
    write_json(path, {"items": _name(items), "nats": nats, "tokens": tokens})
    return math.exp(nats / tokens)


def read_perplexity(items: Sequence[Item], path: Path) -> float | None:
    """What was computed for just these items; None when it was not."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return math.exp(document["nats"] / document["tokens"]) if document["items"] == _name(items) else None
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def _name(items: Sequence[Item]) -> str:
    return sha256_bytes("\n".join(f"{item.key} {item.fields['reference']}" for item in items).encode())
