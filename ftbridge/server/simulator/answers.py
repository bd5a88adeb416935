"""Answers from the script, or an echo of the last message; at the pace that the scenario sets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftbridge.data.tokens import count_texts
from ftbridge.providers.local.inference.requests import (
    Embedding,
    GenerationRequest,
    StreamDelta,
    StreamEnd,
    StreamEvent,
    StreamStart,
)
from ftbridge.server.simulator.account import AccountModel
from ftbridge.server.simulator.instances import instance
from ftbridge.server.simulator.scenario import Answer, Scenario

Texts = Callable[[GenerationRequest, int], str | None]
"""The text of one choice of a chat, None where there is none for its prompt."""


async def scripted_events(
    scenario: Scenario, model: str, ask: GenerationRequest, texts: Texts = lambda _ask, _index: None
) -> AsyncIterator[StreamEvent]:
    """One chat with `ask.n` choices, all the same unless `texts` has its own. A scripted word is certain: its logprob is 0."""
    prompt = ask.messages[-1].text if ask.messages else "".join(_split(ask.prompt))
    if ask.embed:
        yield StreamStart(prompt_tokens=_prompt_tokens(ask))
        yield Embedding(values=vector(prompt, ask.dimensions or DIMENSIONS))
        yield StreamEnd(index=0, finish_reason="stop", completion_tokens=0)
        return
    rule, scripted = _reply(scenario, model, prompt)
    calls = _calls(rule, ask) if rule is not None and rule.tool_calls else _forced(ask)
    thought = _split(rule.reasoning) if rule is not None and ask.effort != "none" else []
    yield StreamStart(prompt_tokens=_prompt_tokens(ask))
    await asyncio.sleep(scenario.chat.first_token_seconds)
    for index in range(ask.n):
        text = texts(ask, index)
        words, reason = _words(ask, rule if text is None else None, scripted if text is None else text)
        for word_index, word in enumerate(_split(ask.prompt) if ask.echo else ()):
            yield _piece(index, word, ask.logprobs, first=word_index == 0)
        for word in thought:
            yield StreamDelta(index=index, text="", reasoning=word)
        for word in words:
            if scenario.chat.tokens_per_second:
                await asyncio.sleep(1 / scenario.chat.tokens_per_second)
            yield _piece(index, word, ask.logprobs)
        for delta in _deltas(calls, index):
            yield StreamDelta(index=index, text="", tool_calls=[delta])
        yield StreamEnd(
            index=index,
            finish_reason="length" if reason == "length" else "stop",
            completion_tokens=len(thought) + len(words) or 1,
            reasoning_tokens=len(thought),
        )


def _words(ask: GenerationRequest, rule: Answer | None, text: str) -> tuple[list[str], str]:
    """The words of a completion, as the request limits them, and why it ends."""
    text, cut = _stopped(text, ask.stop)
    words = _split(text)
    if ask.max_tokens is not None and len(words) > ask.max_tokens:
        words, cut = words[: ask.max_tokens], False
        reason = "length"
    else:
        reason = "stop" if rule is None or cut else rule.finish_reason
    if ask.json_schema is not None and (rule is None or not _is_json(text)):
        words = re.findall(r"\s*\S+", json.dumps(_json(ask.json_schema, text), ensure_ascii=False))
        reason = "stop"
    return ([] if ask.must_call else words), reason


def _piece(index: int, word: str, logprobs: int | None, *, first: bool = False) -> StreamDelta:
    """A word of an answer. The first of a prompt has no log probability, since nothing precedes it."""
    if logprobs is None:
        return StreamDelta(index=index, text=word)
    if first:
        return StreamDelta(index=index, text=word, token=word)
    return StreamDelta(index=index, text=word, token=word, logprob=0.0, top=[(word, 0.0)] if logprobs else [])


def _split(text: str | list[int] | None) -> list[str]:
    """What a script takes for tokens: words with the space before them; ids stand for themselves, one word each."""
    if isinstance(text, list):
        return [f" {token}" for token in text]
    return re.findall(r"\s*\S+|\s+$", text or "")


def _prompt_tokens(ask: GenerationRequest) -> int:
    """An estimate for text, with three more for each message and for the reply; the number of ids for ids."""
    if isinstance(ask.prompt, list):
        return len(ask.prompt)
    if ask.prompt is not None:
        return sum(count_texts([ask.prompt]))
    return sum(count_texts([message.text for message in ask.messages])) + 3 * len(ask.messages) + 3


def dataset_texts(behaves: AccountModel, seed: int) -> Texts:
    """What a model says that learnt a chat dataset: the completion of the line whose last user message it is given.

    Of sampled choices (temperature above 0) a share `noise` are those of another line, drawn from the seed and the prompt.
    """
    assert behaves.completions is not None
    completions = _dataset(behaves.completions)
    every = list(dict.fromkeys(completions.values()))

    def text(ask: GenerationRequest, index: int) -> str | None:
        prompt = next((message.text for message in reversed(ask.messages) if message.role == "user"), "")
        if (completion := completions.get(prompt.strip())) is None:
            return None
        dice = random.Random(f"{seed}:{prompt}:{ask.seed}:{index}")
        if ask.temperature > 0 and dice.random() < behaves.noise and len(every) > 1:
            return dice.choice([other for other in every if other != completion])
        return completion

    return text


@lru_cache(maxsize=16)
def _dataset(path: Path) -> dict[str, str]:
    completions = {}
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            messages = json.loads(line)["messages"]
            users = [message["content"] for message in messages if message["role"] == "user"]
            if users and messages[-1]["role"] == "assistant" and isinstance(users[-1], str):
                completions[users[-1].strip()] = str(messages[-1].get("content") or "")
    return completions


def _reply(scenario: Scenario, model: str, prompt: str) -> tuple[Answer | None, str]:
    if (scripted := scenario.answer_for(model, prompt)) is None:
        return None, prompt
    rule, match = scripted
    return rule, match.expand(rule.reply) if rule.reply is not None else ""


def _stopped(text: str, stops: list[str]) -> tuple[str, bool]:
    places = [end for stop in stops if (end := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _calls(rule: Answer, ask: GenerationRequest) -> list[dict[str, Any]]:
    """The script's calls, of which a forced choice leaves those that it names."""
    scripted = [
        {
            "name": str(call.get("name", "")),
            "arguments": call["arguments"]
            if isinstance(call.get("arguments"), str)
            else json.dumps(call.get("arguments", {}), ensure_ascii=False),
        }
        for call in rule.tool_calls
    ]
    chosen = [call for call in scripted if ask.must_call is None or call["name"] in ask.must_call]
    chosen = chosen if ask.parallel else chosen[:1]
    return _named(chosen, ask) if chosen else _forced(ask)


def _forced(ask: GenerationRequest) -> list[dict[str, Any]]:
    """The first function that may be called, with arguments of its schema, where one must be called."""
    if not ask.must_call:
        return []
    functions = {tool["function"]["name"]: tool["function"] for tool in ask.tools}
    name = ask.must_call[0]
    arguments = instance(functions[name].get("parameters") or {"type": "object"})
    return _named([{"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}], ask)


def _named(functions: list[dict[str, Any]], ask: GenerationRequest) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{ask.id[-12:]}_{index}", "type": "function", "function": function}
        for index, function in enumerate(functions)
    ]


def _deltas(calls: list[dict[str, Any]], index: int) -> Iterator[dict[str, Any]]:
    """Calls as OpenAI streams them: the name first, then the arguments in pieces."""
    for call_index, call in enumerate(calls):
        function = call["function"]
        name = f"{call['id']}{index or ''}"
        yield {"index": call_index, "id": name, "type": "function", "function": {**function, "arguments": ""}}
        for start in range(0, len(function["arguments"]), _PIECE):
            piece = function["arguments"][start : start + _PIECE]
            yield {"index": call_index, "function": {"arguments": piece}}


_PIECE = 16
"""Characters of arguments in one piece."""


def vector(text: str, dimensions: int) -> list[float]:
    """A vector of length 1, the same for the same text; texts that share words are near each other.

    Each word adds 1 or -1 at eight places that its hash draws (feature hashing).
    """
    values = [0.0] * dimensions
    for word in text.lower().split() or [text]:
        digest = hashlib.blake2b(word.encode(), digest_size=32).digest()
        for start in range(0, 32, 4):
            dimension, sign = int.from_bytes(digest[start : start + 3], "big") % dimensions, digest[start + 3] & 1
            values[dimension] += 1.0 if sign else -1.0
    if not any(values):
        values[0] = 1.0
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


DIMENSIONS = 1536
"""Values of a vector for a client that does not say how many it wants: those of OpenAI's small embedding model."""


def _json(schema: dict[str, Any], text: str) -> Any:
    """JSON of the schema; where it only wants an object, one with the text."""
    return {"text": text} if schema == {"type": "object"} else instance(schema)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
