"""Answers that are JSON of a schema, by construction: before each token, those that cannot lead to such JSON are ruled out.

    schema ─▶ grammar ─▶ matcher ── mask ──▶ logits ── choose ──▶ token ── consume ──▶ matcher

The grammar engine is llguidance's (guidance-ai); the end of the turn is one of its tokens, allowed when the JSON is whole.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from ftbridge.errors import MissingDependency, UsageError

_BLANK = r"[ \n]{0,2}"
"""White space between tokens of JSON: bounded, since small models may not stop writing it."""


class Shapes:
    """Makes the shapes of one model's answers."""

    def __init__(self, tokenizer: Any, end_of_turn: Collection[int]) -> None:
        self._tokenizer, self._ends = tokenizer, sorted(end_of_turn)
        self._known: Any = None

    def shape(self, schema: dict[str, Any]) -> Shape:
        """A shape for one answer. Raises `UsageError` for a schema that cannot be followed, `MissingDependency`."""
        if importlib.util.find_spec("llguidance") is None:
            raise MissingDependency("answers of a JSON schema need llguidance.", hint="pip install 'ftbridge[serve]'")
        import llguidance.hf
        from llguidance import LLMatcher

        if self._known is None:
            self._known = llguidance.hf.from_tokenizer(self._tokenizer, eos_token=self._ends)
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_pattern": _BLANK})
        if problem := LLMatcher.validate_grammar(grammar, self._known):
            raise UsageError(f"this JSON schema cannot be followed: {problem}")
        return Shape(LLMatcher(self._known, grammar), frozenset(self._ends))


class Shape:
    """How far one answer is."""

    def __init__(self, matcher: Any, ends: frozenset[int]) -> None:
        self._matcher, self._ends = matcher, ends

    def rule_out(self, logits: Tensor) -> Tensor:
        """The logits, shape (vocabulary,), with -inf for every token that the schema does not allow here."""
        words = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.int32)
        bits = (words[:, None] >> torch.arange(32)) & 1
        allowed = bits.flatten()[: logits.shape[-1]].bool().to(logits.device)
        room = logits.shape[-1] - allowed.shape[-1]  # vocabularies are padded beyond what the tokenizer knows
        allowed = torch.nn.functional.pad(allowed, (0, room)) if room > 0 else allowed
        return logits.masked_fill(~allowed, float("-inf"))

    def consume(self, token: int) -> None:
        """The token was chosen."""
        if token not in self._ends:
            self._matcher.consume_token(token)
