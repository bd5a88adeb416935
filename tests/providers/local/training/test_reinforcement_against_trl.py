"""The same completions and rewards through TRL's GRPOTrainer and through ours: the same gradient of every LoRA matrix.

Runs where trl is installed (`pip install 'ftbridge[bench]'`); the formulas themselves are tested without it in
test_policy_gradient.py. TRL's settings that compute what ours does: loss_type dapo (a sum over the step's tokens), scale_rewards
none, beta 0, one iteration. Every group is live, since TRL counts the tokens of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from ftbridge.providers.local.models.fused import unfuse
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.training.policy_gradient import PolicyGradient, Trial, advantages, trial
from support import practice_cases, preference_cases

trl = pytest.importorskip("trl")

GROUPS = (((1.0, 0.0, 0.25), (4, 7, 3), 9), ((0.0, 0.5, 1.0), (6, 2, 5), 14))
"""Rewards and lengths of completions, and tokens of the prompt, of each group."""


def trials() -> list[Trial]:
    items = []
    for number, (rewards, lengths, prompt) in enumerate(GROUPS):
        first = practice_cases.drawn_trials(((prompt, 1, 0.0),), seed=number)[0]
        for weight, length in zip(advantages(rewards), lengths, strict=True):
            one = practice_cases.like(first, length)
            items.append(
                trial(one.example.input_ids[:prompt], one.example.input_ids[prompt:], weight or 0.0, one.drawn)
            )
    return items


def padded(rows: list[list[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    ids = [pad + row if left else row + pad for pad, row in zip(fill, rows, strict=True)]
    ones = [[1] * len(row) for row in rows]
    mask = [pad + one if left else one + pad for pad, one in zip(fill, ones, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo"])
def test_one_update_has_the_gradient_of_trls(tmp_path: Path, base_model_dir: Path, loss: str) -> None:
    forward = preference_cases.forward_of(tmp_path, practice_cases.request())
    preference_cases.stir(forward.model)
    batch = trials()
    goal = PolicyGradient(shared=True)
    forward.model.train()
    (goal.sums(forward, batch).loss / goal.size(batch)).backward()
    ours = preference_cases.gradients(forward.model).clone()
    forward.model.zero_grad()

    unfuse(forward.model)
    use_own_attention(forward.model)
    trainer = trainer_of(forward.model, AutoTokenizer.from_pretrained(base_model_dir), tmp_path, loss)
    prompts, prompt_mask = padded([list(one.example.input_ids[: one.prompt]) for one in batch], left=True)
    completions, completion_mask = padded([list(one.example.input_ids[one.prompt :]) for one in batch], left=False)
    inputs = {
        "prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": completions,
        "completion_mask": completion_mask, "advantages": torch.tensor([one.advantage for one in batch]),
        "num_items_in_batch": torch.tensor(float(goal.size(batch))),
    }  # fmt: skip
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, inputs).backward()
    theirs = preference_cases.gradients(trainer.model)
    if loss == "dr_grpo":  # its constant normaliser: completions times their longest length
        theirs = theirs * (len(batch) * trainer.max_completion_length / goal.size(batch))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert float(ours.abs().max()) > 0


def trainer_of(model: Any, tokenizer: Any, folder: Path, loss: str) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(folder / "trl"), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=6, num_generations=3, max_completion_length=8, beta=0.0, loss_type=loss,
        scale_rewards="none", temperature=1.0, use_vllm=False,
    )  # fmt: skip
    return GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * 6),
        processing_class=tokenizer,
    )
