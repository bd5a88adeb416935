"""Prompts to practise on: canonical lines whose last message is the user's, as tokens, with the item that graders see.

line      {messages, tools?, reference, difficulty, …}
└─ prompt ─┘        └─ item.reference, item.difficulty ─┘
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ftbridge.data.examples import ReinforcementExample, parse_example
from ftbridge.data.prepare import origin
from ftbridge.errors import DataError, GraderError
from ftbridge.graders import Uninformative, check
from ftbridge.graders.template import VariableMissing
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.data.encode import listed
from ftbridge.providers.local.data.encoded import EncodedSplit, StoredForm
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training.pairs import Pair


@dataclass(frozen=True)
class PracticePrompt:
    """One prompt, the unit that a batch is drawn from. `room` is how many tokens a completion may have.

    `index` is its line in the split, from 0; `item` is what graders read as `item`; `text` is the last message.
    """

    ids: tuple[int, ...]
    item: Mapping[str, Any]
    tools: tuple[dict[str, Any], ...]
    text: str
    index: int
    room: int

    @classmethod
    def of(cls, ids: Sequence[int], example: ReinforcementExample, index: int, room: int) -> PracticePrompt:
        """The prompt of a canonical line, rendered as `ids`."""
        tools = tuple(example.tools or ())
        return cls(tuple(ids), example.extra, tools, example.messages[-1].text, index, room)

    def __len__(self) -> int:
        return len(self.ids) + self.room

    @property
    def num_loss_tokens(self) -> int:
        """Tokens that a completion may have."""
        return self.room


def encode_prompts(
    path: Path, split: str, renderer: Renderer, request: LocalRequest, progress: Callable[[int], None] = lambda _: None
) -> EncodedSplit[PracticePrompt]:
    """Render every prompt of a canonical split, and hold the grader against every item.

    Raises `DataError` listing lines that cannot be rendered or leave no room for a completion, and `GraderError` for a grader
    that can grade nothing, or for lines that lack what its templates read.
    """
    assert request.reinforcement is not None
    settings = request.reinforcement
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    origins = origin(path.parent, split)
    prompts: list[PracticePrompt] = []
    problems: list[str] = []
    unfit: list[str] = []
    long: list[str] = []
    for index, line in enumerate(lines):
        example = parse_example(json.loads(line), "reinforcement")
        try:
            ids = renderer.prompt(example.messages, example.tools or ())
        except RenderError as error:
            problems.append(f"{origins[index]} {error}")
            continue
        try:
            check(settings.grader, example.extra)
        except (VariableMissing, Uninformative) as error:
            unfit.append(f"{origins[index]} {error.message}")
        if len(ids) + settings.max_completion_tokens > request.max_length:
            long.append(f"{origins[index]} has a prompt of {len(ids):,} tokens")
        else:
            prompts.append(PracticePrompt.of(ids, example, index, settings.max_completion_tokens))
        progress(index + 1)
    if problems:
        raise DataError(listed(f"{split} data cannot be used with this model", problems), split=split)
    if unfit:
        title = f"{len(unfit)} {split} items cannot be graded by {settings.grader.name}"
        raise GraderError(
            listed(title, unfit), hint="Change the grader, or add the fields that it reads to these lines."
        )
    if long and request.overlength != "drop":
        title = (
            f"{len(long)} {split} prompts leave no room for completions of {settings.max_completion_tokens:,} tokens "
            f"within local.max_length = {request.max_length:,}"
        )
        hint = "Raise local.max_length, lower local.reinforcement.max_completion_tokens, or set local.overlength: drop."
        raise DataError(listed(title, long), split=split, hint=hint)
    if not prompts:
        raise DataError(f"no {split} prompt is left after local.overlength: {request.overlength}.", split=split)
    return EncodedSplit(tuple(prompts), dropped=tuple(long))


def _sequences_of(prompts: Sequence[PracticePrompt]) -> list[Encoded]:
    return [Encoded(prompt.ids, (False,) * len(prompt.ids), prompt.index) for prompt in prompts]


def _prompts_of(sequences: list[Encoded], path: Path, request: LocalRequest) -> list[PracticePrompt]:
    """Prompts from their tokens, and from their lines what graders and tools need."""
    assert request.reinforcement is not None
    room = request.reinforcement.max_completion_tokens
    lines = path.read_text(encoding="utf-8").split("\n")
    examples = (parse_example(json.loads(lines[sequence.index]), "reinforcement") for sequence in sequences)
    return [
        PracticePrompt.of(sequence.input_ids, example, sequence.index, room)
        for sequence, example in zip(sequences, examples, strict=True)
    ]


STORED_PROMPTS = StoredForm[PracticePrompt](_sequences_of, _prompts_of)
"""How prompts are kept in a run's folder."""


def as_pairs(prompts: Sequence[PracticePrompt]) -> list[Pair]:
    """Prompts as pairs that begin with the first half of one and end with the second half of it and of its neighbour: what
    sharing of prompts is proved on before completions exist.
    """
    pairs = []
    for one, other in pairwise(prompts):
        half, second = len(one.ids) // 2, len(other.ids) // 2
        endings = one.ids[half:], other.ids[second:]
        sides = [
            Encoded(one.ids[:half] + ending, (False,) * half + (True,) * len(ending), one.index) for ending in endings
        ]
        pairs.append(Pair(sides[0], sides[1], half, one.index))
    return pairs


def as_examples(prompts: Sequence[PracticePrompt]) -> list[Encoded]:
    """Prompts as examples whose second half is trained: ways of running the model are proved before completions exist."""
    return [
        Encoded(prompt.ids, tuple(2 * index >= len(prompt.ids) for index in range(len(prompt.ids))), prompt.index)
        for prompt in prompts
        if len(prompt.ids) > 1
    ]
