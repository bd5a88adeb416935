"""Candidates: who answers the items. A name, and how an item becomes the prompt that is asked.

    base        the base model, asked with the item's own prompt
    zero_shot   the same, under the name people look for: it shares base's answers and generates nothing
    few_shot    the base model, shown training examples first
    tuned       the tuned model, asked with the item's own prompt

What a candidate runs on is the caller's business: it hands a sampler to `answer`.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftbridge.data.examples import ChatExample, Message
from ftbridge.evaluation.items import Item, parse_line, read_lines, without_weight
from ftbridge.files import sha256_bytes
from ftbridge.providers.base import Prompt
from ftbridge.spec import JobSpec


@dataclass(frozen=True)
class Candidate:
    """`prompt` turns an item into what the model is asked; `shares` names the candidate whose answers these are too."""

    name: str
    prompt: Callable[[Item], Prompt]
    shares: str | None = None


def candidates_of(spec: JobSpec, train: Path) -> list[Candidate]:
    """The candidates a spec asks for: base first, then its baselines, tuned last.

    `train` is the canonical training split; it is read only when `few_shot` first asks.
    """
    baselines = {
        "zero_shot": Candidate("zero_shot", plain, shares="base"),
        "few_shot": few_shot(train, examples=spec.evaluation.few_shot_examples, seed=spec.seed),
    }
    asked = [candidate for name, candidate in baselines.items() if name in spec.evaluation.baselines]
    return [Candidate("base", plain), *asked, Candidate("tuned", plain)]


def plain(item: Item) -> Prompt:
    """The item's own prompt."""
    return Prompt(key=item.key, messages=item.prompt, tools=item.tools)


def instructed(system: str) -> Candidate:
    """The candidate that is asked with a system message of your own, instead of the item's."""

    def prompt(item: Item) -> Prompt:
        own = (Message(role="system", content=system),)
        return Prompt(key=item.key, messages=(*own, *itertools.dropwhile(_is_system, item.prompt)), tools=item.tools)

    return Candidate("zero_shot", prompt)


def few_shot(train: Path, *, examples: int, seed: int) -> Candidate:
    """The candidate that is shown `examples` training examples, as earlier turns, before the item's own.

    The examples are the first in the order of SHA-256(seed, line): the choice depends neither on the order of the file
    nor on Python's random numbers, and is the same for every item, so that services can cache the beginning. Their own
    system messages are left out; the item's come first. Not shown: an example whose turns are the item's own (the next
    one is shown instead), a second answer to the same turns, answers of weight 0, and answers that call a tool, since a
    call without its result is no conversation. When training has fewer usable examples, all of them are shown.
    """
    pool = functools.cache(lambda: _pool(train, examples + 1, seed))

    def prompt(item: Item) -> Prompt:
        shown = [shot for shot in pool() if _turns(shot.prompt) != _turns(item.prompt)][:examples]
        system = list(itertools.takewhile(_is_system, item.prompt))
        turns = [without_weight(turn) for shot in shown for turn in shot.messages if not _is_system(turn)]
        messages = (*system, *turns, *item.prompt[len(system) :])
        return Prompt(key=item.key, messages=messages, tools=item.tools)

    return Candidate("few_shot", prompt)


def _pool(train: Path, size: int, seed: int) -> list[ChatExample]:
    """The first usable examples by rank, no two with the same turns: so an item's own turns exclude at most one."""
    ranked = sorted(enumerate(read_lines(train), 1), key=lambda entry: sha256_bytes(b"%d\n%s" % (seed, entry[1])))
    chosen: dict[str, ChatExample] = {}
    for number, line in ranked:
        example = parse_line(line, train, number)
        if example.answer.trained and not (example.answer.tool_calls or example.answer.function_call):
            chosen.setdefault(_turns(example.prompt), example)
        if len(chosen) == size:
            break
    return list(chosen.values())


def _turns(prompt: Sequence[Message]) -> str:
    """A prompt's turns for comparison, without system messages."""
    told = [
        message.model_dump(mode="json", exclude={"weight"}, exclude_none=True)
        for message in prompt
        if not _is_system(message)
    ]
    return json.dumps(told, sort_keys=True)


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")
