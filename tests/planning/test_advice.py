"""Advice: each rule fires on what it is about, and is silent else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftbridge.planning.advice import Facts, MeasuredRun, advise
from ftbridge.planning.evidence import losses_advice
from ftbridge.planning.plan import plan
from ftbridge.planning.tokens import SplitTokens
from ftbridge.providers.local.defaults import width_factor
from ftbridge.spec import JobSpec, SpecFile
from support.paths import REPOSITORY


def split(examples: int, loss_tokens: int = 20) -> SplitTokens:
    return SplitTokens(
        examples=examples, tokens=100 * examples, trained=loss_tokens * examples, longest=120, over_limit=0
    )


def advice(
    *,
    examples: int = 2000,
    measured: tuple[MeasuredRun, ...] = (),
    loss_tokens: int = 20,
    steps: int = 300,
    rate_factor: float = 1.0,
    **changes: Any,
) -> dict[str, str]:
    document: dict[str, Any] = {
        "name": "t",
        "data": {"train": "t.jsonl", "validation": 0.1, "test": "e.jsonl"},
        "model": {"local": "m"},
        "evaluation": {"baselines": ["few_shot"]},
    }
    for dotted, value in changes.items():
        node = document
        *parents, last = dotted.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    splits = {"train": split(examples, loss_tokens), "validation": split(50), "test": split(50)}
    facts = Facts(JobSpec.from_dict(document), splits, 3, steps, measured, rate_factor)
    return {piece.id: piece.level for piece in advise(facts)}


SMALL = width_factor(576, "llama")
PAIRS: dict[str, Any] = {"method": "dpo", "hyperparameters.learning_rate_multiplier": 60.0}
REWARDS: dict[str, Any] = {"method": "reinforcement", "hyperparameters.learning_rate_multiplier": 20.0}


def run(candidate: str, score: float, p95: float | None = None) -> MeasuredRun:
    return MeasuredRun("earlier", candidate, score, p95)


@pytest.mark.parametrize(
    ("id", "fires", "silent"),
    [
        ("too-few-examples", {"examples": 99}, {"examples": 100}),
        ("few-examples", {"examples": 499}, {"examples": 500}),
        ("few-examples-for-a-domain", {"examples": 900, "plan.task": "domain"}, {"examples": 1000, "plan.task": "domain"}),
        ("no-baseline", {"evaluation.baselines": []}, {}),
        ("large-batch", {"examples": 100, "hyperparameters.batch_size": 11}, {"examples": 100, "hyperparameters.batch_size": 10}),
        ("learning-rate", {"hyperparameters.learning_rate_multiplier": 11.0}, {"hyperparameters.learning_rate_multiplier": 10.0}),
        ("learning-rate", {"local.base_learning_rate": 1e-5}, {"local.base_learning_rate": 1e-4}),
        ("learning-rate", {"local.tuning": "full", "local.base_learning_rate": 2e-3}, {"local.tuning": "full", "local.base_learning_rate": 2e-5}),
        ("learning-rate", {"local.base_learning_rate": 1e-2}, {"local.base_learning_rate": 1e-2, "rate_factor": SMALL}),
        ("learning-rate", {**PAIRS, "rate_factor": 1.0, "steps": 300}, {**PAIRS, "rate_factor": SMALL, "steps": 16}),
        ("learning-rate", {**PAIRS, "rate_factor": SMALL, "steps": 300}, {**PAIRS, "rate_factor": SMALL, "steps": 40}),
        ("learning-rate", {**REWARDS, "rate_factor": 1.0}, {**REWARDS, "rate_factor": SMALL}),
        ("rank", {"plan.task": "format", "local.lora": {"r": 64, "alpha": 128}}, {"plan.task": "format", "local.lora": {"r": 8, "alpha": 16}}),
        ("rank", {"plan.task": "domain", "local.lora": {"r": 8, "alpha": 16}}, {"plan.task": "domain", "local.lora": {"r": 64, "alpha": 128}}),
        ("alpha", {"local.lora": {"r": 16, "alpha": 8}}, {"local.lora": {"r": 16, "alpha": 32}}),
        ("facts", {"plan.facts_change": "weekly"}, {"plan.facts_change": "never", "loss_tokens": 500}),
        ("facts", {"loss_tokens": 401}, {"loss_tokens": 400}),
        ("slow-answers", {"plan.p95_seconds": 1.0, "measured": (run("base", 0.1, 1.5),)}, {"plan.p95_seconds": 1.0, "measured": (run("base", 0.1, 0.9),)}),
        ("latency-not-measured", {"plan.p95_seconds": 1.0}, {"plan.p95_seconds": 1.0, "measured": (run("base", 0.1, 0.9),)}),
        ("prompting-is-enough", {"evaluation.target": 0.8, "measured": (run("few_shot", 0.8),)}, {"evaluation.target": 0.8, "measured": (run("few_shot", 0.7),)}),
        ("prompting-is-enough", {"measured": (run("few_shot", 0.8), run("tuned", 0.8))}, {"measured": (run("few_shot", 0.7), run("tuned", 0.8))}),
        ("prompting-is-enough", {"evaluation.target": 0.1, "measured": (run("retrieval", 0.2),)}, {"evaluation.target": 0.1, "measured": (run("base", 0.9),)}),
    ],
)  # fmt: skip
def test_a_rule_fires_and_is_silent(id: str, fires: dict[str, Any], silent: dict[str, Any]) -> None:
    assert id in advice(**fires)
    assert id not in advice(**silent)


def test_a_sound_job_gets_no_advice_and_warnings_come_first() -> None:
    assert advice() == {}
    assert next(iter(advice(examples=60, **{"evaluation.baselines": []}).values())) == "warning"


@pytest.mark.parametrize("example", ["preferences", "reinforcement"])
def test_the_rates_of_the_examples_are_usual_for_a_small_model_and_few_steps(
    example: str, base_model_dir: Path
) -> None:
    path, config = REPOSITORY / "examples" / example / "job.yaml", base_model_dir / "config.json"
    estimate = plan(SpecFile.of(path), config=config)
    assert "learning-rate" not in {piece.id for piece in estimate.advice}
    far_too_high = plan(SpecFile.of(path, ["hyperparameters.learning_rate_multiplier=5000"]), config=config)
    (piece,) = [piece for piece in far_too_high.advice if piece.id == "learning-rate"]
    assert piece.text.endswith("with lora and this model.")


@pytest.mark.parametrize(
    ("train", "valid", "id"),
    [
        ([], [(10, 0.9), (20, 0.5), (30, 0.6)], "overfitting"),
        ([], [(10, 0.9), (20, 0.5), (30, 0.505)], None),
        ([], [(10, 0.9), (20, 0.7), (30, 0.5)], "underfitting"),
        ([], [(10, 0.9), (20, 0.5), (30, 0.495)], None),
        ([(n, 2.0) for n in range(20)], [], "nothing-learnt"),
        ([(n, 2.0 - n / 20) for n in range(20)], [], None),
        ([(1, 2.0)], [(1, 2.0)], None),
        ([], [], None),
    ],
)
def test_what_losses_say_after_a_run(
    train: list[tuple[int, float]], valid: list[tuple[int, float]], id: str | None
) -> None:
    assert [piece.id for piece in losses_advice(train, valid)] == ([id] if id else [])
