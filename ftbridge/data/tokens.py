"""Token counts without a network and without the model: what an example costs in OpenAI's vocabularies.

The arithmetic of a chat example is OpenAI's cookbook's (examples/Chat_finetuning_data_prep.ipynb): the text of role,
content and name, 3 more for each message, 1 for each name, 3 for each example. Tools, tool calls and content parts that are
not text are counted as their JSON, which is an estimate: the service's own wording of them is not published. Image parts
count as nothing here; what an image costs depends on its size and the model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftbridge.data.examples import ChatExample

TOKENS_PER_MESSAGE = 3
TOKENS_PER_NAME = 1
TOKENS_PER_REPLY = 3

DEFAULT_ENCODING = "o200k_base"
"""The vocabulary of gpt-4o, gpt-4.1 and later."""

_PIECE = 50_000
"""Characters encoded at once. One tokenizer refuses more than 200,000 tokens, and no character makes more than four."""


def encoding_for(model: str | None) -> str:
    """The vocabulary a hosted model reads: cl100k_base before gpt-4o, o200k_base since; o200k_base when not named."""
    base = (model or "").removeprefix("ft:")
    old = base.startswith(("gpt-3.5", "gpt-4-", "davinci", "babbage")) or base == "gpt-4" or base.startswith("gpt-4:")
    return "cl100k_base" if old else DEFAULT_ENCODING


def count_tokens(examples: Iterable[ChatExample]) -> int:
    """Tokens of all examples in `o200k_base`, by the cookbook's arithmetic."""
    return sum(count_example(example) for example in examples)


def count_example(example: ChatExample) -> int:
    """Tokens of one example in `o200k_base`."""
    document = example.model_dump(mode="json", exclude_unset=True)
    fixed, texts = example_texts(document.get("messages") or [], document)
    return fixed + sum(count_texts(texts))


def count_texts(texts: Sequence[str], encoding: str = DEFAULT_ENCODING) -> list[int]:
    """Tokens of each text, special tokens read as plain text. `encoding` is o200k_base or cl100k_base."""
    return _counter(encoding)(texts)


def example_texts(messages: Sequence[Any], holder: dict[str, Any]) -> tuple[int, list[str]]:
    """What an example is counted by: tokens that are the same whatever it says, and the texts to count.

    `messages` may hold anything (what is not a message is not counted); `holder` is the object with tools and functions.
    """
    fixed, texts = TOKENS_PER_REPLY, []
    for key in ("tools", "functions"):
        if holder.get(key):
            texts.append(_json(holder[key]))
    for message in messages:
        if isinstance(message, dict):
            more, more_texts = message_texts(message)
            fixed += more
            texts += more_texts
    return fixed, texts


def message_texts(message: dict[str, Any]) -> tuple[int, list[str]]:
    """The same for one message."""
    fixed, texts = TOKENS_PER_MESSAGE, []
    role = message.get("role")
    if isinstance(role, str):
        if role in _ONE_TOKEN:
            fixed += 1
        else:
            texts.append(role)
    if isinstance(message.get("name"), str):
        fixed += TOKENS_PER_NAME
        texts.append(message["name"])
    return fixed, [*texts, *_content_texts(message)]


_ONE_TOKEN = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
"""Roles, each one token in both vocabularies (a test counts them)."""


def _content_texts(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        text = part.get("text") or part.get("refusal")
        if isinstance(text, str):
            yield text
        elif part.get("type") != "image_url":
            yield _json(part)
    if isinstance(message.get("refusal"), str):
        yield message["refusal"]
    for call in message.get("tool_calls") or () if isinstance(message.get("tool_calls"), list) else ():
        yield _json(call)
    if message.get("function_call") is not None:
        yield _json(message["function_call"])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@functools.lru_cache(maxsize=4)
def _counter(encoding: str) -> Callable[[Sequence[str]], list[int]]:
    """The fastest exact counter that is installed: toktok needs Python 3.11, bpe-openai does not."""
    try:
        import toktok
    except ImportError:
        return _slow_counter(encoding)

    def count(texts: Sequence[str]) -> list[int]:
        try:
            counts: list[int] = toktok.batch_count(texts, encoding, threads=1)
        except UnicodeEncodeError:
            counts = toktok.batch_count([_encodable(text) for text in texts], encoding, threads=1)
        return counts

    return count


def _slow_counter(encoding: str) -> Callable[[Sequence[str]], list[int]]:
    import bpe_openai  # takes 0.2 s, which only those who count should wait for

    encode = bpe_openai.get_encoding(encoding).encode_ordinary

    def count(texts: Sequence[str]) -> list[int]:
        return [sum(len(encode(piece)) for piece in _pieces(_encodable(text))) for text in texts]

    return count


def _encodable(text: str) -> str:
    """The text with lone surrogates replaced, since tokenizers read UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _pieces(text: str) -> Iterator[str]:
    """The text, cut before a space where it is too long, since the vocabulary's words begin with their space."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind(" ", start + 1, start + _PIECE)
        end = end if end > start else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]
