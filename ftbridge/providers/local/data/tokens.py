"""Text to tokens and loss masks, cut at the borders of completions.

No token straddles a cut, so the tokens before a completion are those that the model is prompted with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from ftbridge.providers.local.data.marks import Guard

Edges = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """Tokens of one conversation; `loss_mask[i]` says that the loss is computed on predicting token i."""

    input_ids: list[int]
    loss_mask: list[bool]

    @property
    def n_tokens(self) -> int:
        """All tokens."""
        return len(self.input_ids)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens the loss falls on."""
        return sum(self.loss_mask)


class CutTokenizer:
    """Tokenizes texts in parts. `tokenizer` is a fast tokenizer, or a `LightTokenizer`: one that has offsets."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def rendered(self, text: str, cuts: Sequence[int], spans: Sequence[Edges], guard: Guard) -> Rendered:
        """Tokens of the text, cut at the answers; a token is trained when it begins within a span."""
        text, move = guard.open(text)
        spans = [(move(start), move(end)) for start, end in spans]
        edges = sorted({0, len(text), *(move(cut) for cut in cuts), *guard.cuts})
        ids: list[int] = []
        flags: list[bool] = []
        for part, offsets in self._encode([text[left:right] for left, right in pairwise(edges)]):
            ids += part
            flags += [False] * len(part)
            first = len(flags) - len(part)
            for start, end in spans:
                for index, (left, right) in enumerate(offsets, first):
                    if left < end and (left >= start or right > start):
                        flags[index] = True
        return Rendered(ids, flags)

    def ids(self, text: str) -> list[int]:
        """Tokens of a text by itself."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _encode(self, parts: Sequence[str]) -> list[tuple[list[int], list[Edges]]]:
        """Each part's tokens and the characters of the whole text they cover."""
        if not self._prepends_space or len(parts) == 1:
            encoded = self.tokenizer(list(parts), add_special_tokens=False, return_offsets_mapping=True)
            encoded_parts, shift = [], 0
            for part, ids, offsets in zip(parts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
                encoded_parts.append((list(ids), _covered(offsets, shift)))
                shift += len(part)
            return encoded_parts
        encoded_parts, shift = self._encode(parts[:1]), len(parts[0])
        for part in parts[1:]:
            tail = self._continued(part, shift)
            if tail is None:
                return self._encode(["".join(parts)])
            encoded_parts.append(tail)
            shift += len(part)
        return encoded_parts

    def _continued(self, part: str, shift: int) -> tuple[list[int], list[Edges]] | None:
        """Tokens of text that goes on, for tokenizers that put a space before a text; None if they cannot be had."""
        for anchor in ("\n", self.tokenizer.eos_token or ".", "."):
            lead = self.ids(anchor)
            encoded = self.tokenizer(anchor + part, add_special_tokens=False, return_offsets_mapping=True)
            offsets = encoded["offset_mapping"][len(lead) :]
            if encoded["input_ids"][: len(lead)] == lead and all(left >= len(anchor) for left, _ in offsets):
                shifted = [(left - len(anchor), right - len(anchor)) for left, right in offsets]
                return list(encoded["input_ids"][len(lead) :]), _covered(shifted, shift)
        return None

    @cached_property
    def _prepends_space(self) -> bool:
        """Whether the tokenizer puts a space before every text, as SentencePiece's do: a part is not such a text."""
        return bool(self.ids("a") != self.ids("\na")[-len(self.ids("a")) :])


def _covered(offsets: Sequence[Edges], shift: int) -> list[Edges]:
    """Characters each token covers, with the white space before it, which some tokenizers leave out of their offsets."""
    covered: list[Edges] = []
    reached = 0
    for left, right in offsets:
        covered.append((min(left, reached) + shift, right + shift))
        reached = max(reached, right)
    return covered
