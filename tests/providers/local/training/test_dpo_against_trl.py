"""The same token ids through TRL's DPOTrainer and through ours: the same loss, log-probabilities, rewards and gradients.

Runs where trl is installed (`pip install 'ftbridge[bench]'`); the formulas themselves are tested without it in test_dpo.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftbridge.providers.local.models.fused import unfuse
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.request import DpoRequest
from ftbridge.providers.local.training.dpo import Preference
from ftbridge.providers.local.training.pairs import Pair, completion_log_probabilities
from ftbridge.providers.local.training.reference import with_reference
from support import preference_cases as cases

trl = pytest.importorskip("trl")


def rows(pairs: list[Pair]) -> list[dict[str, list[int]]]:
    return [
        {
            "prompt_ids": list(pair.chosen.input_ids[: pair.prompt]),
            "chosen_ids": list(pair.chosen.input_ids[pair.prompt :]),
            "rejected_ids": list(pair.rejected.input_ids[pair.prompt :]),
        }
        for pair in pairs
    ]


def trainer_of(model: Any, tokenizer: Any, pairs: list[Pair], folder: Path, **options: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Tokenized(DPOTrainer):  # type: ignore[misc]
        """The rows are token ids already, the same as ours."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    config = DPOConfig(
        output_dir=str(folder / "trl"), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=len(pairs), **options,
    )  # fmt: skip
    return Tokenized(model=model, args=config, train_dataset=Dataset.from_list(rows(pairs)), processing_class=tokenizer)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (DpoRequest(loss="sigmoid", beta=0.1), {"loss_type": ["sigmoid"], "beta": 0.1}),
        (DpoRequest(loss="ipo", beta=0.1), {"loss_type": ["ipo"], "beta": 0.1}),
        (DpoRequest(loss="length_normalised", beta=1.0), {"loss_type": ["sigmoid_norm"], "beta": 1.0}),
        (
            DpoRequest(loss="sigmoid", beta=0.1, nll_weight=0.5),
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.1},
        ),
    ],
    ids=["sigmoid", "ipo", "length-normalised", "nll"],
)
def test_loss_log_probabilities_rewards_and_gradients_equal_trls(
    tmp_path: Path, base_model_dir: Path, ours: DpoRequest, theirs: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    forward = cases.forward_of(tmp_path, cases.request(dpo={"loss": ours.loss, "beta": ours.beta}))
    # TRL reads the loss of a prompt of no token otherwise, and its NLL term is a mean over all tokens: equal lengths agree.
    shapes = ((9, 7, 12), (1, 7, 3), (24, 7, 6), (15, 7, 9))
    pairs = with_reference(
        forward, cases.pairs(shapes), cases.KEY, tmp_path / "reference.jsonl", shared=True, budget=200, begun=False
    )
    cases.stir(forward.model)
    sums = Preference(ours, shared=True).sums(forward, pairs)
    (sums.loss / len(pairs)).backward()
    gradients = {name: p.grad.clone() for name, p in forward.model.named_parameters() if p.grad is not None}
    log_probabilities = completion_log_probabilities(forward, pairs, shared=True).detach()

    unfuse(forward.model)
    use_own_attention(forward.model)
    forward.model.zero_grad()
    cases.stir(forward.model, 0.0)  # TRL takes a copy of the adapter that it is given as the reference
    trainer = trainer_of(forward.model, AutoTokenizer.from_pretrained(base_model_dir), pairs, tmp_path, **theirs)
    cases.stir(trainer.model)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows(pairs)))
    loss.backward()
    figures = {name: sum(values) / len(values) for name, values in trainer._metrics["train"].items()}

    assert float(sums.loss.detach()) / len(pairs) == pytest.approx(float(loss.detach()), abs=1e-5)
    for side, name in enumerate(("chosen", "rejected")):
        assert float(log_probabilities[:, side].mean()) == pytest.approx(figures[f"logps/{name}"], rel=1e-5)
        if ours.loss == "sigmoid":
            reward = float(sums.more[f"{name}_reward"]) / len(pairs)
            assert reward == pytest.approx(figures[f"rewards/{name}"], abs=1e-5)
    by_name = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert by_name.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert float((gradient - by_name[name]).norm()) <= 1e-4 * float(by_name[name].norm()) + 1e-8, name
