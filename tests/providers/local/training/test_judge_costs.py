"""What the plan says that judges of a reinforcement job cost, beside what the job then pays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.tokens import count_texts
from ftbridge.planning.money import REPLY_TOKENS
from ftbridge.planning.rollouts import Rollouts, rollouts_of
from ftbridge.planning.tokens import SplitTokens
from ftbridge.prices import load_prices
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.loop import train
from support import practice_cases
from support.priced_judge import HOST, Judge

ENCODING = "o200k_base"


@pytest.mark.parametrize("reply", REPLY_TOKENS)
def test_judges_cost_what_the_plan_says(reply: int, tmp_path: Path, base_model_dir: Path, judge: Judge) -> None:
    """Completions that all reach their limit, as a random model's do; a judge that writes as little, and as much, as is planned.

    Short replies to completions of this length lie between the plan's two ends, which short completions and long ones make.
    """
    paid: list[tuple[int, int]] = []

    def usage(body: dict[str, Any]) -> tuple[int, int]:
        """All that the judge is sent to read: messages, and the form that its reply must have."""
        texts = [message["content"] for message in body["messages"]]
        paid.append((sum(count_texts([*texts, json.dumps(body.get("response_format", ""))], ENCODING)), reply))
        return paid[-1]

    judge.usage = usage
    model = practice_cases.small_model(tmp_path / "model", base_model_dir)
    planned = whole_job(tmp_path, model, judge.grader)
    assert planned.judges_usd is not None
    assert len(paid) <= planned.questions
    assert len(paid) > 0.8 * planned.questions, "one completion to one prompt is graded once, however often it is drawn"
    usd = load_prices().judge_usd
    spent = sum(usd(judge.grader["model"], f"http://{HOST}/v1", *tokens) or 0.0 for tokens in paid)
    low, high = planned.judges_usd
    assert low <= spent <= 1.2 * high
    if reply == max(REPLY_TOKENS):
        assert spent == pytest.approx(high, rel=0.2)


def whole_job(folder: Path, model: Path, grader: dict[str, Any]) -> Rollouts:
    """Train a whole job; what was planned for it."""
    settings = {"eval_interval": 2, "group_size": 4, "max_completion_tokens": 24}
    lines = practice_cases.rows(6)
    trainer, _ = practice_cases.trainer_of(
        folder, model, lines=lines, n_epochs=2, grader=grader, settings=settings, learning_rate=1e-5
    )
    train(trainer, TrainingState())
    prompts = SplitTokens(examples=len(lines), tokens=20 * len(lines), trained=0, longest=20, over_limit=0)
    planned = rollouts_of(trainer.request, folder / "data", load_prices(), ENCODING, prompts)
    assert planned is not None
    return planned
