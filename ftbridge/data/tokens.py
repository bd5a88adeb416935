"""Token counts without a network and without the model: what a chat example costs in OpenAI's `o200k_base`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator

from ftbridge.data.examples import ChatExample, Message

TOKENS_PER_MESSAGE = 3
TOKENS_PER_NAME = 1
TOKENS_PER_REPLY = 3

_PIECE = 50_000
"""Characters encoded at once. The tokenizer refuses more than 200,000 tokens, and no character makes more than four."""


def count_tokens(examples: Iterable[ChatExample]) -> int:
    """Tokens of all examples in `o200k_base`, the vocabulary of gpt-4o and later.

    The arithmetic is OpenAI's cookbook's (examples/Chat_finetuning_data_prep.ipynb): the text of role, content and
    name, 3 more for each message, 1 for each name, 3 for each example. Tools, tool calls and content parts that are not
    text are counted as their JSON, which is an estimate: the service's own wording of them is not published.
    """
    return sum(count_example(example) for example in examples)


def count_example(example: ChatExample) -> int:
    """Tokens of one example, by the rule of `count_tokens`."""
    tools = _count(_json(example.tools)) if example.tools else 0
    return TOKENS_PER_REPLY + tools + sum(_count_message(message) for message in example.messages)


def _count_message(message: Message) -> int:
    tokens = TOKENS_PER_MESSAGE + _count_word(message.role)
    if message.name is not None:
        tokens += TOKENS_PER_NAME + _count(message.name)
    return tokens + sum(_count(text) for text in _texts(message))


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    for part in message.content if isinstance(message.content, list) else ():
        yield part.text or part.refusal or _json(part.model_dump(mode="json", exclude_unset=True))
    if message.refusal is not None:
        yield message.refusal
    for call in message.tool_calls or ():
        yield _json(call.model_dump(mode="json", exclude_unset=True))
    if message.function_call is not None:
        yield _json(message.function_call.model_dump(mode="json", exclude_unset=True))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _count(text: str) -> int:
    encode = _encoder()
    return sum(len(encode(piece)) for piece in _pieces(text))


_count_word = functools.lru_cache(maxsize=16)(_count)


def _pieces(text: str) -> Iterator[str]:
    """The text, cut before a space where it is too long, since the vocabulary's words begin with their space."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind(" ", start + 1, start + _PIECE)
        end = end if end > start else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]


@functools.lru_cache(maxsize=1)
def _encoder() -> Callable[[str], list[int]]:
    import bpe_openai  # takes 0.2 s, which only those who count should wait for

    encode: Callable[[str], list[int]] = bpe_openai.get_encoding("o200k_base").encode_ordinary
    return encode
