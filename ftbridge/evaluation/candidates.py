"""Candidates: who answers the items. A name, and how an item becomes the prompt that is asked.

    base        the base model, asked with the item's own prompt
    zero_shot   with a system message of your own; without one it is base under the name people look for, and shares its answers
    few_shot    the base model, shown training examples first
    retrieval   the base model, shown passages that fit the question (retrieval.py)
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
from typing import Literal

from ftbridge.data.examples import ChatExample, Message, PreferenceExample, ReinforcementExample
from ftbridge.errors import UsageError
from ftbridge.evaluation.items import Item, parse_item, read_lines, without_weight
from ftbridge.evaluation.search import searcher
from ftbridge.files import sha256_bytes
from ftbridge.providers.base import Prompt


@dataclass(frozen=True)
class Candidate:
    """`prompt` turns an item into what the model is asked; `shares` names the candidate whose answers these are too."""

    name: str
    prompt: Callable[[Item], Prompt]
    shares: str | None = None


def plain(item: Item) -> Prompt:
    """The item's own prompt."""
    return Prompt(key=item.key, messages=item.prompt, tools=item.tools)


def instructed(system: str) -> Candidate:
    """The candidate that is asked with a system message of your own, instead of the item's."""

    def prompt(item: Item) -> Prompt:
        system_message = (Message(role="system", content=system),)
        return Prompt(
            key=item.key, messages=(*system_message, *itertools.dropwhile(_is_system, item.prompt)), tools=item.tools
        )

    return Candidate("zero_shot", prompt)


def few_shot(train: Path, *, examples: int, seed: int, by: Literal["seed", "nearest"] = "seed") -> Candidate:
    """The candidate that is shown `examples` training examples, as earlier turns, before the item's own.

    by seed      the first in the order of SHA-256(seed, line): the choice depends neither on the order of the file nor on
                 Python's random numbers, and is the same for every item, so that services can cache the beginning
    by nearest   those whose questions share most with the item's (BM25), the nearest last, next to the question

    The examples' own system messages are left out; the item's come first. Not shown: an example whose turns are the item's own
    (the next one is shown instead), a second answer to the same turns, answers of weight 0, and answers that call a tool, since
    a call without its result is not a conversation. When training has fewer usable examples, all of them are shown.
    `train` is read when an item first asks. Raises `MissingDependency` then, for nearest without bm25s.
    """
    choose = functools.cache(lambda: (_by_seed if by == "seed" else _by_nearness)(_usable(train, seed)))

    def prompt(item: Item) -> Prompt:
        prompt_turns = _turns(item.prompt)
        shown = [shot for shot in choose()(item, examples + 1) if _turns(shot.prompt) != prompt_turns][:examples]
        if by == "nearest":
            shown.reverse()
        system = list(itertools.takewhile(_is_system, item.prompt))
        turns = [without_weight(turn) for shot in shown for turn in shot.messages if not _is_system(turn)]
        messages = (*system, *turns, *item.prompt[len(system) :])
        return Prompt(key=item.key, messages=messages, tools=item.tools)

    return Candidate("few_shot", prompt)


Worked = ChatExample | PreferenceExample
"""What few_shot and retrieval can show: an example with its answer."""
_Choice = Callable[[Item, int], Sequence[Worked]]
"""The best so many examples for an item, best first."""


def _by_seed(usable: Sequence[Worked]) -> _Choice:
    return lambda _, most: usable[:most]


def _by_nearness(usable: Sequence[Worked]) -> _Choice:
    search = searcher([_said(example.prompt) for example in usable])

    def nearest(item: Item, most: int) -> Sequence[Worked]:
        ranked = search(_said(item.prompt), most)
        others = (index for index in range(len(usable)) if index not in ranked)
        return [usable[index] for index in itertools.islice(itertools.chain(ranked, others), most)]

    return nearest


def _said(prompt: Sequence[Message]) -> str:
    return " ".join(message.text for message in prompt if not _is_system(message))


def _usable(train: Path, seed: int) -> list[Worked]:
    """The usable examples by rank, no two with the same turns: so an item's own turns exclude at most one."""
    ranked = sorted(enumerate(read_lines(train), 1), key=lambda entry: sha256_bytes(b"%d\n%s" % (seed, entry[1])))
    chosen: dict[str, Worked] = {}
    for number, line in ranked:
        example = parse_item(line, train, number)
        if isinstance(example, ReinforcementExample):
            raise UsageError(
                (
                    f"few_shot and retrieval need examples with a completion; those of {train.name} end with the user's "
                    "message."
                ),
                hint="Leave few_shot out of evaluation.baselines.",
            )
        if example.completion.has_loss and not (example.completion.tool_calls or example.completion.function_call):
            chosen.setdefault(_turns(example.prompt), example)
    return list(chosen.values())


def _turns(prompt: Sequence[Message]) -> str:
    """A prompt's turns for comparison, without system messages."""
    documents = [
        message.model_dump(mode="json", exclude={"weight"}, exclude_none=True)
        for message in prompt
        if not _is_system(message)
    ]
    return json.dumps(documents, sort_keys=True)


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")
