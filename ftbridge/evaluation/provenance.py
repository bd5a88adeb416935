"""What is not the same for all candidates of a comparison, beside the weights: noted in every result that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """Where a candidate's completions come from.

    `name` is a provider or an address, `base` the base model. `hosted`: a service renders the prompts, by a chat template that
    only it knows.
    """

    name: str
    base: str
    hosted: bool


def differences(places: Sequence[Place]) -> list[str]:
    """Notes on candidates whose completions come from several places, or stand on several base models."""
    notes = []
    names = sorted({index.name for index in places})
    models = sorted({index.base for index in places if not index.hosted})
    if len(names) > 1:
        notes.append(
            f"Candidates answered in different places ({', '.join(names)}): items, messages and greedy decoding are the "
            "same; chat template, tokenizer and arithmetic are each side's own, so token counts do not compare."
        )
    if len(models) > 1:
        notes.append(
            f"Candidates stand on different base models ({', '.join(models)}), each with its own chat template and tokenizer."
        )
    return notes
