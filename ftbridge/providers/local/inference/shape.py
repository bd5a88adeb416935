"""Answers that are JSON of a schema, by construction: before each token, those that cannot lead to such JSON are ruled out.

    schema ─▶ grammar ─▶ matcher ── mask ──▶ logits ── choose ──▶ token ── consume ──▶ matcher

The grammar engine is llguidance's (guidance-ai); the end of the turn is one of its tokens, allowed when the JSON is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ftbridge import extras
from ftbridge.errors import UsageError

_BLANK = r"[ \n]{0,2}"
"""White space between tokens of JSON: bounded, since small models may not stop writing it."""

MOST_CALLS = 16
"""Calls in one answer that has to call."""


class Shapes:
    """Makes the shapes of one model's answers."""

    def __init__(self, tokenizer: Any, end_of_turn: Collection[int]) -> None:
        self._tokenizer, self._ends = tokenizer, sorted(end_of_turn)
        self._known: Any = None

    def shape(self, schema: dict[str, Any], *, lenient: bool = False) -> Shape:
        """A shape for one answer.

        `lenient` passes over keywords that cannot be followed (`not`, `uniqueItems`, unknown formats) instead of refusing them.
        Raises `UsageError` for a schema that cannot be followed, `MissingDependency`.
        """
        self._require()
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_options(lenient))
        return self._of(grammar, "this JSON schema")

    def calls(self, tools: Sequence[dict[str, Any]], names: Sequence[str], *, one: bool) -> Shape:
        """A shape of forced calls: the arguments alone where `one` call of a named function is all there can be, else a
        call, or a list of calls. Schemas that are not strict are followed as far as they can be.
        """
        lenient = not any(tool["function"].get("strict") for tool in tools if tool["function"]["name"] in names)
        functions = {function["name"]: function for function in (tool["function"] for tool in tools)}
        schemas = {name: self._arguments(functions[name], lenient=lenient) for name in names}
        if one and len(names) == 1:
            return self.shape(schemas[names[0]], lenient=lenient)
        definitions: dict[str, Any] = {}
        calls = [_call_schema(name, schema, definitions) for name, schema in schemas.items()]
        schema = {"anyOf": calls} if one else {"type": "array", "items": {"anyOf": calls}, "minItems": 1}
        most = {} if one else {"maxItems": MOST_CALLS}
        return self.shape({**schema, **most, **({"$defs": definitions} if definitions else {})}, lenient=lenient)

    def strict_calls(self, tools: Sequence[dict[str, Any]]) -> Shape | None:
        """A shape of text with calls in Hermes' notation whose arguments follow their schemas; None if no tool is strict."""
        if not any(tool["function"].get("strict") for tool in tools):
            return None
        self._require()
        from llguidance import StructTag

        special = self._tokenizer.convert_tokens_to_ids("<tool_call>") not in (None, self._tokenizer.unk_token_id)
        tags = [
            StructTag(
                trigger="<tool_call>",
                begin=f'<tool_call>\n{{"name": {json.dumps(function["name"])}, "arguments": ',
                grammar={
                    **self._arguments(function, lenient=not function.get("strict")),
                    "x-guidance": _options(not function.get("strict")),
                },
                end="}\n</tool_call>",
            )
            for function in (tool["function"] for tool in tools)
        ]
        return self._of(StructTag.to_grammar(tags, assume_special=special), "the tools")

    def _arguments(self, function: dict[str, Any], *, lenient: bool) -> dict[str, Any]:
        """The schema of a function's arguments: an object; any object for one that is not strict and cannot be followed.

        Raises `UsageError` for a strict one that cannot be followed.
        """
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        schema = schema if "type" in schema or "$ref" in schema or "anyOf" in schema else {"type": "object", **schema}
        try:
            self.shape(schema, lenient=lenient)
        except UsageError as error:
            if function.get("strict"):
                raise UsageError(
                    f"the parameters of {function['name']!r} cannot be enforced: {error.message}"
                ) from None
            return {"type": "object"}
        return dict(schema)

    def _require(self) -> None:
        extras.require("serve", "a completion of a JSON schema", "llguidance")
        if self._known is None:
            import llguidance.hf

            self._known = llguidance.hf.from_tokenizer(self._tokenizer, eos_token=self._ends)

    def _of(self, grammar: str, what: str) -> Shape:
        from llguidance import LLMatcher

        if problem := LLMatcher.validate_grammar(grammar, self._known):
            raise UsageError(f"{what} cannot be enforced: {problem}")
        return Shape(LLMatcher(self._known, grammar), frozenset(self._ends))


def _options(lenient: bool) -> dict[str, Any]:
    return {"whitespace_pattern": _BLANK, **({"lenient": True, "coerce_one_of": True} if lenient else {})}


def _call_schema(name: str, arguments: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A call as an object of a name and arguments; the schema's own definitions go to `definitions`, named after it."""
    for group in ("$defs", "definitions"):
        for key, schema in (arguments.get(group) or {}).items():
            definitions[f"{name}.{key}"] = _renamed(schema, name)
    bare = {key: value for key, value in arguments.items() if key not in ("$defs", "definitions", "$schema")}
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": _renamed(bare, name)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _renamed(schema: Any, name: str) -> Any:
    """A schema whose references to definitions look for those of `name`."""
    if isinstance(schema, dict):
        return {
            key: re.sub(r"^#/(\$defs|definitions)/", f"#/$defs/{name}.", value)
            if key == "$ref" and isinstance(value, str)
            else _renamed(value, name)
            for key, value in schema.items()
        }
    return [_renamed(part, name) for part in schema] if isinstance(schema, list) else schema


class Shape:
    """How far one answer is."""

    def __init__(self, matcher: Any, ends: frozenset[int]) -> None:
        self._matcher, self._ends = matcher, ends

    def copy(self) -> Shape:
        """The same shape for another answer, from where this one is."""
        return Shape(self._matcher.deep_copy(), self._ends)

    def rule_out(self, logits: Tensor) -> Tensor:
        """The logits, shape (vocabulary,), with -inf for every token that the schema does not allow here."""
        if self._matcher.is_error():
            raise UsageError(f"the completion's grammar failed: {self._matcher.get_error()}")
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
