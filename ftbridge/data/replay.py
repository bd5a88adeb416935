"""Replay: general prompts with the base model's own completions, trained beside the examples so that less is forgotten.

    prompts (ours, or a file)   ── prepare ──▶  data/replay.jsonl              one prompt a line, in the order of their use
    the base model's own words  ── runner  ──▶  predictions/base.replay.jsonl  completed once
    both together               ── runner  ──▶  data/replay_examples.jsonl     chats, as supervised data has them
                                           └─▶  data/train_with_replay.jsonl   for a provider that takes one file

Training on what a network itself says to arbitrary inputs is pseudo-rehearsal (Robins 1995, "Catastrophic forgetting, rehearsal
and pseudorehearsal", Connection Science 7:123). By default completions are the likeliest ones: what the model is to go on
saying, without the noise of a draw. Drawn at temperature 1 they estimate the KL divergence from the base model to the tuned one
(at the base model's weights their expected gradient is zero), which takes many of them, and a model whose draws make sense.

A provider either mixes replay into its steps (`Capabilities.mixes_replay`) or trains on one file that holds both. In steps, the
task's loss and the replay loss are means of their own, weighted by how many examples the step has of each: the share does
not depend on the lengths of completions, and the task's figures leave replay out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ftbridge.data.convert.formats import FieldChoice, SourcedExample, data_error, read_examples
from ftbridge.data.examples import Message, ReinforcementExample
from ftbridge.errors import DataError
from ftbridge.files import sha256_bytes
from ftbridge.spec.sections import ReplaySpec

OWN_PROMPTS = "ftbridge's replay prompts"
"""What our set is called where a file would be named."""
PROMPTS, EXAMPLES, WITH_TRAIN = "replay.jsonl", "replay_examples.jsonl", "train_with_replay.jsonl"
"""Files of a run's data folder."""
CUT = "cut"
"""Key of a replay example whose completion reached the token limit: its end of turn is not what the model wrote."""


def replay_count(examples: int, share: float) -> int:
    """Replay examples that go with so many examples: `share` of both together, rounded half up, at least 1."""
    return max(1, int(examples * share / (1 - share) + 0.5))


def prompts_needed(examples: int, epochs: int, share: float, available: int, *, mixed: bool) -> int:
    """How many prompts the base model completes for a job of so many examples and epochs.

    Where a provider mixes them into its steps, each is new until all `available` were used; a file has those of one epoch.
    """
    return min(available, replay_count(examples, share) * (epochs if mixed else 1))


def read_prompts(settings: ReplaySpec, base: Path, seed: int) -> list[SourcedExample[ReinforcementExample]]:
    """The prompts in the order of their use, which is that of SHA-256(seed, line); of equal ones the first.

    Raises as `read_examples` does, and `DataError` for lines without a prompt.
    """
    prompts = _own() if settings.prompts is None else _of_file(settings.prompts, base)
    unique = {item.example.canonical(): item for item in reversed(prompts)}
    return [unique[line] for line in sorted(unique, key=lambda line: sha256_bytes(f"{seed}\n{line}".encode()))]


def _own() -> list[SourcedExample[ReinforcementExample]]:
    text = files("ftbridge.data").joinpath("replay_prompts.txt").read_text("utf-8")
    return [
        SourcedExample(_prompt([Message(role="user", content=line)]), OWN_PROMPTS, number)
        for number, line in enumerate(text.splitlines(), 1)
    ]


def _of_file(source: str, base: Path) -> list[SourcedExample[ReinforcementExample]]:
    """The prompts of a file: whole lines that end with the user's message, and of chats what comes before the last answer."""
    fields = FieldChoice(keep_item_fields=True)
    try:
        read = read_examples(source, base=base, method="reinforcement", fields=fields)
    except DataError as error:
        try:
            read = read_examples(source, base=base, method="supervised", fields=fields)
        except DataError:
            raise error from None
    prompts: list[SourcedExample[ReinforcementExample]] = []
    problems: list[str] = []
    for item in read:
        messages = item.example.prompt
        if messages and messages[-1].role == "user":
            prompts.append(SourcedExample(_prompt(messages, item.example.tools), item.file, item.line))
        else:
            problems.append(f"{item.origin} has no user message that a model could reply to.")
    if problems:
        raise DataError(data_error(problems).message, problems=problems, split="replay")
    return prompts


def _prompt(messages: Iterable[Message], tools: list[dict[str, Any]] | None = None) -> ReinforcementExample:
    plain = [message.model_dump(mode="json", exclude={"weight"}, exclude_unset=True) for message in messages]
    return ReinforcementExample.model_validate({"messages": plain, **({"tools": tools} if tools else {})})


def replay_line(prompt: Mapping[str, Any], completion: Mapping[str, Any], *, cut: bool) -> str:
    """A replay example as one JSON line: the prompt's messages and tools, and the completion as the assistant's message."""
    line = {**prompt, "messages": [*prompt["messages"], {"role": "assistant", **completion}]}
    return json.dumps({**line, CUT: True} if cut else line, ensure_ascii=False)


def with_replay(train: Sequence[str], replay: Sequence[str]) -> list[str]:
    """Lines of one training file: replay lines spread evenly among the others, so that any order has some in every part."""
    mixed: list[str] = []
    for index, line in enumerate(train):
        first, last = index * len(replay) // len(train), (index + 1) * len(replay) // len(train)
        mixed += [line, *replay[first:last]]
    return mixed
