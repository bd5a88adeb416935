"""What replay takes, reckoned before anything is completed: completions of the base model, and the tokens trained of them.

completions  = replay examples of an epoch, where steps mix them times epochs; at most as many as there are prompts
read         = tokens of their prompts
written      = completions x a fifth of data.replay.max_completion_tokens, up to all of it
training     = replay examples of an epoch x epochs x (tokens of a prompt + of a completion)
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.replay import PROMPTS, prompts_needed, replay_count
from ftbridge.data.tokens import count_texts, example_texts
from ftbridge.planning.rollouts import SHORTEST
from ftbridge.spec import JobSpec


class ReplayPlan(BaseModel):
    """Completions that the base model gives to replay prompts before training, and the tokens trained of them, from and to."""

    model_config = ConfigDict(frozen=True)

    prompts: int = Field(description="Prompts that there are.")
    completions: int = Field(description="Prompts that the base model completes.")
    examples: int = Field(description="Replay examples that training sees in all, the same one as often as it comes.")
    read: int = Field(description="Tokens of the prompts that are completed.")
    written: tuple[int, int] = Field(description="Tokens of their completions, from short ones to the longest.")
    training_tokens: tuple[int, int] = Field(description="Tokens of all replay examples in training, prompts included.")


def replay_plan(
    spec: JobSpec, data: Path, examples: int, epochs: int, encoding: str, *, mixed: bool
) -> ReplayPlan | None:
    """The replay of a job of so many training examples and epochs, whose data lie in `data`; None for a job without it.

    `mixed`: the provider mixes replay into its steps; else it trains on one file with the lines of an epoch.
    """
    settings = spec.data.replay
    if settings is None:
        return None
    sizes = _prompt_tokens(data / PROMPTS, encoding)
    each_epoch = replay_count(examples, settings.share)
    completions = prompts_needed(examples, epochs, settings.share, len(sizes), mixed=mixed)
    count = (each_epoch if mixed else min(each_epoch, completions)) * epochs
    read = sum(sizes[:completions])
    longest = settings.max_completion_tokens
    prompts = count * read / completions
    return ReplayPlan(
        prompts=len(sizes),
        completions=completions,
        examples=count,
        read=read,
        written=(round(SHORTEST * completions * longest), completions * longest),
        training_tokens=(round(prompts + SHORTEST * count * longest), round(prompts + count * longest)),
    )


def _prompt_tokens(path: Path, encoding: str) -> list[int]:
    """Tokens of each prompt, with its tools."""
    fixed, texts, lines = [], [], []
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        document = json.loads(line)
        size, words = example_texts(document["messages"], document)
        fixed.append(size)
        texts += words
        lines += [index] * len(words)
    for index, count in zip(lines, count_texts(texts, encoding), strict=True):
        fixed[index] += count
    return fixed
