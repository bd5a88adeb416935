"""Answers from the script, or an echo of the last message; at the pace that the scenario sets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from ftbridge.data.tokens import count_texts
from ftbridge.providers.local.hosting.requests import Ask, End, Piece, Start, Told
from ftbridge.server.scripted.scenario import Answer, Scenario


async def answer(scenario: Scenario, model: str, ask: Ask) -> AsyncIterator[Told]:
    """One chat, `ask.n` times the same answer. A scripted word is certain: its log probability is 0."""
    asked = ask.messages[-1].text
    rule, text = _reply(scenario, model, asked)
    text, cut = _stopped(text, ask.stop)
    words = re.findall(r"\s*\S+|\s+$", text)
    if ask.max_tokens is not None and len(words) > ask.max_tokens:
        words, cut = words[: ask.max_tokens], False
        reason = "length"
    else:
        reason = "stop" if rule is None or cut else rule.finish_reason
    if ask.json_schema is not None and not _is_json(text):
        words = [json.dumps({"text": text}, ensure_ascii=False)]
    yield Start(prompt_tokens=sum(count_texts([message.text for message in ask.messages])) + 3 * len(ask.messages) + 3)
    await asyncio.sleep(scenario.chat.first_token_seconds)
    for index in range(ask.n):
        for word in words:
            if scenario.chat.tokens_per_second:
                await asyncio.sleep(1 / scenario.chat.tokens_per_second)
            if ask.logprobs is None:
                yield Piece(index=index, text=word)
            else:
                top = [(word, 0.0)] if ask.logprobs else []
                yield Piece(index=index, text=word, token=word, logprob=0.0, top=top)
        if rule is not None and rule.tool_calls:
            yield Piece(index=index, text="", tool_calls=_calls(rule, ask.id))
        yield End(
            index=index, finish_reason="length" if reason == "length" else "stop", completion_tokens=len(words) or 1
        )


def _reply(scenario: Scenario, model: str, asked: str) -> tuple[Answer | None, str]:
    if (found := scenario.answer_for(model, asked)) is None:
        return None, asked
    rule, match = found
    return rule, match.expand(rule.reply) if rule.reply is not None else ""


def _stopped(text: str, stops: list[str]) -> tuple[str, bool]:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _calls(rule: Answer, name: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{name[-12:]}_{place}",
            "type": "function",
            "function": {
                "name": str(call.get("name", "")),
                "arguments": call["arguments"]
                if isinstance(call.get("arguments"), str)
                else json.dumps(call.get("arguments", {}), ensure_ascii=False),
            },
        }
        for place, call in enumerate(rule.tool_calls)
    ]


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
