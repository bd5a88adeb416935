"""Tokens of prepared data: those read, and those the loss falls on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.tokens import count_texts, example_texts
from ftbridge.evaluation.items import Item


class SplitTokens(BaseModel):
    """One split, counted in the hosted model's own vocabulary."""

    model_config = ConfigDict(frozen=True)

    examples: int
    tokens: int
    trained: int = Field(description="In assistant messages of weight 1: where the loss falls.")
    longest: int
    over_limit: int = Field(
        description="Examples longer than the model's limit: OpenAI cuts them at the end, without an error."
    )


def split_tokens(path: Path, encoding: str, limit: int | None) -> SplitTokens:
    """Count one canonical split. By the cookbook's arithmetic (`ftbridge.data.tokens`)."""
    fixed, texts, counts, loss_tokens = [], [], [], []
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        document = json.loads(line)
        messages = _messages(document)
        size, texts_of_line = example_texts(messages, document.get("input") or document)
        completions = [m for m in messages if m.get("role") == "assistant" and m.get("weight") != 0]
        answer_size, answer_said = example_texts(completions, {})
        fixed.append((size, len(texts_of_line)))
        loss_tokens.append((answer_size if completions else 0, len(answer_said)))
        texts += [*texts_of_line, *answer_said]
    numbers = iter(count_texts(texts, encoding))
    answer_counts = []
    for (size, n), (answer_size, m) in zip(fixed, loss_tokens, strict=True):
        counts.append(size + sum(next(numbers) for _ in range(n)))
        answer_counts.append(answer_size + sum(next(numbers) for _ in range(m)))
    return SplitTokens(
        examples=len(counts),
        tokens=sum(counts),
        trained=sum(answer_counts),
        longest=max(counts, default=0),
        over_limit=sum(count > limit for count in counts) if limit else 0,
    )


def prompt_tokens(items: Sequence[Item], encoding: str) -> tuple[int, int]:
    """Tokens of all prompts with the tools that go with them, and of all reference answers.

    Counted as the examples of a file are (`ftbridge.data.tokens`).
    """
    fixed, texts = 0, []
    for item in items:
        messages = [message.model_dump(mode="json", exclude_none=True) for message in item.prompt]
        size, words = example_texts(messages, {"tools": list(item.tools)})
        fixed += size
        texts += words
    references = [str(item.fields.get("reference", "")) for item in items]
    counts = count_texts([*texts, *references], encoding)
    return sum(counts[: len(texts)]) + fixed, sum(counts[len(texts) :])


def _messages(document: dict[str, object]) -> list[dict[str, object]]:
    """The messages of a line of any method; both answers of a preference are read."""
    holder = document.get("input")
    messages: list[object] = list(
        _list(holder.get("messages") if isinstance(holder, dict) else document.get("messages"))
    )
    for key in ("preferred_output", "non_preferred_output"):
        messages += _list(document.get(key))
    return [message for message in messages if isinstance(message, dict)]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
