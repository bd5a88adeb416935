"""What reinforcement here draws, asks and pays, reckoned before anything is drawn.

completions  = steps x prompts of a step x group size  +  (validations + the base model's) x validation prompts x samples
questions    = completions x questions that the grader asks of judges          at most: one answer is graded once
tokens       = completions x a fifth of local.reinforcement.max_completion_tokens, up to all of it
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.evaluation.items import load_items
from ftbridge.graders import judges_of
from ftbridge.planning.money import judge_money
from ftbridge.planning.tokens import SplitTokens
from ftbridge.prices import PriceList
from ftbridge.providers.local.request import LocalRequest, ReinforcementRequest
from ftbridge.spec.graders import PairwiseGrader

SHORTEST = 0.2
"""Share of the longest completion that short ones are reckoned at."""


class Rollouts(BaseModel):
    """Completions that training draws, and what grading them takes."""

    model_config = ConfigDict(frozen=True)

    steps: int
    step_completions: int = Field(description="Completions of a step.")
    completions: int = Field(description="Completions in all, those of validation prompts included.")
    tokens: tuple[int, int] = Field(description="Tokens of all completions, from short ones to the longest.")
    step_tokens: int = Field(
        description="Tokens of a step's update: each prompt once, its completions at their longest."
    )
    trained_share: float = Field(description="Share of these that the loss falls on.")
    attention_rows: float = Field(
        default=1.0, description="Tokens that attention reads for one of these: a prompt once for each completion."
    )
    longest: int = Field(description="Tokens of the longest completion with its prompt.")
    questions: int = Field(description="Requests to judges, at most; 0 if the grader uses none.")
    judges_usd: tuple[float, float] | None = Field(description="Cost of the judges; null if a price is not known.")


def rollouts_of(
    request: LocalRequest, data: Path, prices: PriceList, encoding: str, prompts: SplitTokens
) -> Rollouts | None:
    """The rollouts of a local job whose data lie in `data`; None for a job of another method. `prompts`: the training split."""
    settings = request.reinforcement
    if settings is None:
        return None
    train = load_items(data / "train.jsonl")
    held_out = load_items(data / "validation.jsonl") if (data / "validation.jsonl").exists() else []
    steps = request.n_epochs * -(-len(train) // request.batch_size)
    seen = request.n_epochs * settings.group_size, (1 + _validations(settings, steps)) * settings.eval_samples
    completions = seen[0] * len(train) + seen[1] * len(held_out)
    judges = judges_of([settings.grader])
    each = sum(2 if isinstance(judge, PairwiseGrader) else 1 for judge in judges)
    costs = [
        judge_money(prices, [settings.grader], items, times, settings.max_completion_tokens, encoding)
        for items, times in ((train, seen[0]), (held_out, seen[1]))
        if items and judges
    ]
    unknown = any(cost.unknown for cost in costs)
    longest = completions * settings.max_completion_tokens
    in_step = min(request.batch_size, len(train))
    updated = in_step * settings.group_size * settings.max_completion_tokens
    step_tokens = updated + round(in_step * prompts.tokens / max(1, prompts.examples))
    return Rollouts(
        steps=steps,
        step_completions=settings.group_size * in_step,
        completions=completions,
        tokens=(round(SHORTEST * longest), longest),
        step_tokens=step_tokens,
        trained_share=updated / step_tokens,
        attention_rows=1 + (settings.group_size - 1) * (step_tokens - updated) / step_tokens,
        longest=prompts.longest + settings.max_completion_tokens,
        questions=each * completions,
        judges_usd=None if unknown else (sum(cost.low for cost in costs), sum(cost.high for cost in costs)),
    )


def _validations(settings: ReinforcementRequest, steps: int) -> int:
    every = max(1, steps // 10) if settings.eval_interval == "auto" else settings.eval_interval
    return -(-steps // every)
