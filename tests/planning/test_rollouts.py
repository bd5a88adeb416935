"""What `ftbridge plan` reckons of reinforcement: completions, questions to judges, and their price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.planning.plan import Plan, plan
from ftbridge.prices import load_prices
from ftbridge.spec import SpecFile

JUDGE = {"type": "score_model", "name": "quality", "model": "gpt-4.1-mini-2025-04-14",
         "input": [{"role": "user", "content": "Rate this: {{sample.output_text}}"}]}  # fmt: skip
CHECK = {"type": "string_check", "name": "exact", "operation": "eq", "input": "{{sample.output_text}}",
         "reference": "{{item.answer}}"}  # fmt: skip


def planned(folder: Path, grader: dict[str, Any], **changes: Any) -> Plan:
    for name, count in (("train", 20), ("validation", 6)):
        rows = [{"messages": [{"role": "user", "content": f"{name} {n}?"}], "answer": str(n)} for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "name": "practise", "method": "reinforcement", "model": {"local": "nowhere/at-hand"},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "hyperparameters": {"n_epochs": 2, "batch_size": 5, "compute_multiplier": 0.5, "eval_interval": 3, "eval_samples": 2},
        "evaluation": {"graders": [grader], "max_completion_tokens": 50},
    } | changes  # fmt: skip
    (folder / "job.json").write_text(json.dumps(document))
    return plan(SpecFile.of(folder / "job.json"))


def test_completions_are_those_of_every_step_and_every_validation(tmp_path: Path) -> None:
    side = planned(tmp_path, CHECK).local
    assert side is not None
    drawn = side.rollouts
    assert drawn is not None
    assert (drawn.steps, drawn.step_completions) == (8, 20)
    assert drawn.completions == 2 * 4 * 20 + (1 + 3) * 2 * 6
    assert drawn.tokens == (round(0.2 * 50 * drawn.completions), 50 * drawn.completions)
    assert (drawn.questions, drawn.judges_usd) == (0, (0.0, 0.0))
    assert side.pace.basis == "none", "what is published of training says nothing of drawing completions"


def test_judges_are_priced_for_every_completion_at_most(tmp_path: Path) -> None:
    side = planned(tmp_path, JUDGE).local
    assert side is not None
    drawn = side.rollouts
    assert drawn is not None
    assert drawn.questions == drawn.completions == 208
    rates = load_prices().judge_rates(JUDGE["model"], None)
    assert rates is not None
    assert drawn.judges_usd is not None
    low, high = drawn.judges_usd
    assert 208 * 20 * rates.output / 1e6 < low < high < 208 * 2000 * (rates.input + rates.output) / 1e6


def test_memory_counts_what_is_drawn_and_a_whole_step_of_it_in_the_update(tmp_path: Path) -> None:
    """The pass holds each prompt once and every completion at its longest, not the prompts alone."""
    hidden = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
              "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({**hidden, "model_type": "llama"}))
    sides = [
        planned(tmp_path, CHECK, model={"local": str(tmp_path / "model")}, local={"device": "cpu"},
                evaluation={"graders": [CHECK], "max_completion_tokens": length}).local
        for length in (50, 100)
    ]  # fmt: skip
    memories = []
    for side, length in zip(sides, (50, 100), strict=True):
        assert side is not None
        assert side.rollouts is not None
        prompts = side.rollouts.step_tokens - 20 * length
        assert 0 < prompts < 20 * length
        assert side.rollouts.trained_share == pytest.approx(20 * length / side.rollouts.step_tokens)
        assert side.processor_memory is not None
        assert side.processor_memory.pass_tokens == min(2048, side.rollouts.step_tokens)
        assert side.rollouts.attention_rows == pytest.approx(
            4 * (prompts + 5 * length) / side.rollouts.step_tokens, rel=0.01
        )
        assert side.processor_memory.generation > 20 * 49152 * 12
        assert side.memory is not None
        assert side.memory.generation > 0
        memories.append(side.processor_memory.total)
    assert memories[1] > memories[0]


@pytest.mark.parametrize(("limit", "ok"), [(0.0001, False), (100.0, True)])
def test_a_budget_that_judges_pass_is_a_gate(tmp_path: Path, limit: float, ok: bool) -> None:
    estimate = planned(tmp_path, JUDGE, budget={"max_usd": limit})
    assert estimate.ok is ok
    assert [gate.side for gate in estimate.gates] == ([] if ok else ["local"])


def test_a_judge_whose_price_is_not_known_leaves_the_sum_open(tmp_path: Path) -> None:
    side = planned(tmp_path, {**JUDGE, "model": "somebody", "base_url": "https://judge.example/v1"}).local
    assert side is not None
    assert side.rollouts is not None
    assert side.rollouts.judges_usd is None
