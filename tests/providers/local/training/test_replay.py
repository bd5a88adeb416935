"""Replay in the steps of a two-layer random model: the share, the loss, what is reported, and that a resumed run has the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbridge.data.replay import replay_line
from ftbridge.errors import DataError
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.forward import use_way
from ftbridge.providers.local.training.loop import Trainer, train
from ftbridge.providers.local.training.replay import Replay, encode_replay
from support import architectures
from support.tiny_training import trainer_of

PROMPT = {"messages": [{"role": "user", "content": "Why does bread rise?"}]}


def encoded(count: int, start: int = 40) -> list[Encoded]:
    """Replay examples that no training example is like."""
    return [Encoded(tuple(range(start + n, start + n + 9)), (False,) * 4 + (True,) * 5, n) for n in range(count)]


# Which examples a step has


@pytest.mark.parametrize(("share", "batch", "total"), [(0.1, 16, 297), (0.05, 1, 40), (0.5, 4, 18), (0.25, 3, 30)])
def test_steps_have_the_share_in_all_and_every_example_as_often(share: float, batch: int, total: int) -> None:
    replay = Replay(encoded(5), share, seed=1)
    sizes = [min(batch, total - before) for before in range(0, total, batch)]
    steps = [replay.of_step(batch * index, size) for index, size in enumerate(sizes)]
    drawn = [one.index for step in steps for one in step.examples]
    assert abs(len(drawn) - total * share / (1 - share)) < 1
    assert all(step.share == pytest.approx(len(step.examples) / (len(step.examples) + size), abs=1e-12)
               for step, size in zip(steps, sizes, strict=True))  # fmt: skip
    times = [drawn.count(index) for index in range(5)]
    assert max(times) - min(times) <= 1


def test_a_step_has_the_same_examples_whatever_was_asked_before() -> None:
    def of(steps: list[int]) -> list[list[int]]:
        replay = Replay(encoded(7), 0.3, seed=9)
        return [[one.index for one in replay.of_step(4 * step, 4).examples] for step in steps]

    assert of([11])[0] == of(list(range(12)))[11]
    laps = of(list(range(30)))
    in_order = [index for step in laps for index in step]
    assert in_order[:7] == list(range(7))
    assert in_order[7:14] != list(range(7))
    assert sorted(in_order[7:14]) == list(range(7))


# What a step's loss is


def gradient(trainer: Trainer, examples: list[Encoded], weight: float) -> list[torch.Tensor]:
    """The gradient of a mean over loss tokens, times `weight`."""
    loss, _ = trainer.forward.loss_sum(examples)
    size = sum(one.num_loss_tokens for one in examples)
    parameters = [one for group in trainer.optimizer.param_groups for one in group["params"]]
    return [part * weight for part in torch.autograd.grad(loss / size, parameters)]


def test_the_gradient_is_the_mean_of_both_losses_weighted_by_numbers_of_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, steps = trainer_of(tmp_path, n_epochs=1, batch_size=6, lora_dropout=0.0, max_grad_norm=1e9)
    trainer.replay = Replay(encoded(3), 0.25, seed=1)
    task, replayed = list(trainer.train), encoded(2)
    expected = [
        one + other
        for one, other in zip(gradient(trainer, task, 6 / 8), gradient(trainer, replayed, 2 / 8), strict=True)
    ]
    with torch.no_grad():
        loss = float(trainer.forward.loss_sum(replayed)[0]) / sum(one.num_loss_tokens for one in replayed)
    seen: list[torch.Tensor] = []
    parameters = [one for group in trainer.optimizer.param_groups for one in group["params"]]
    update = trainer.optimizer.step

    def step(*arguments: Any) -> Any:
        seen.extend(one.grad.clone() for one in parameters)
        return update(*arguments)

    monkeypatch.setattr(trainer.optimizer, "step", step)
    train(trainer, TrainingState())
    for mine, theirs in zip(seen, expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)
    assert steps.figures[0]["train_replay_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_figures_of_the_task_are_those_without_replay(tmp_path: Path) -> None:
    plain, without = trainer_of(tmp_path, lora_dropout=0.0)
    train(plain, TrainingState())
    trainer, steps = trainer_of(tmp_path, lora_dropout=0.0)
    trainer.replay = Replay(encoded(3), 0.25, seed=1)
    _, state = train(trainer, TrainingState())
    first, expected = steps.figures[0], without.figures[0]
    for name in ("train_loss", "train_mean_token_accuracy", "trained_tokens"):
        assert first[name] == pytest.approx(expected[name], rel=1e-6)
    assert "train_replay_loss" not in expected
    assert state.trained_tokens == 2 * sum(one.num_loss_tokens for one in trainer.train)
    assert steps.figures[-1]["train_loss"] != pytest.approx(without.figures[-1]["train_loss"], abs=1e-9)


def test_a_resumed_run_replays_the_same_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    from ftbridge.providers.local.training import checkpoint

    def ready(folder: Path) -> Trainer:
        folder.mkdir(exist_ok=True)
        if not (folder / "model").exists():
            architectures.model_of("llama", folder / "model")
        trainer, _ = trainer_of(folder)
        trainer.replay = Replay(encoded(5), 0.3, seed=1)
        return trainer

    undisturbed = ready(tmp_path / "undisturbed")
    train(undisturbed, TrainingState())
    first = ready(tmp_path / "parts")
    requests = iter([None, None, "pause"])
    first.requested = lambda: next(requests)  # type: ignore[assignment]
    assert train(first, TrainingState())[0] == "pause"
    second = ready(tmp_path / "parts")
    path, state = checkpoint.latest(second.folder) or (None, None)
    assert path is not None
    checkpoint.restore(path, second.forward.model, second.optimizer, second.scaler)
    train(second, state)
    mine, theirs = (dict(one.forward.model.named_parameters()) for one in (second, undisturbed))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_replay_holds_the_model_where_it_was_on_what_is_replayed(tmp_path: Path) -> None:
    """A task of one token for everything: with samples of the base model it diverges less than half as far from it elsewhere."""

    def divergence(share: float) -> float:
        trainer, _ = trainer_of(tmp_path, n_epochs=12, lora_dropout=0.0, learning_rate=1e-2)
        trainer.train = [replace(one, input_ids=one.input_ids[:-8] + (7,) * 8) for one in trainer.train]
        model = trainer.forward.model
        with torch.no_grad():  # random weights are nearly indifferent between tokens, and could not stray far
            model.get_base_model().get_output_embeddings().weight.mul_(20)
        ids = torch.randint(20, 400, (96, 6), generator=torch.Generator().manual_seed(2))
        draws = torch.Generator().manual_seed(3)
        use_own_attention(model)
        with torch.no_grad():
            for _ in range(6):
                likely = torch.softmax(model(input_ids=ids).logits[:, -1].float(), -1)
                ids = torch.cat([ids, torch.multinomial(likely, 1, generator=draws)], 1)
            before = torch.log_softmax(model(input_ids=ids).logits[:, 5:-1].float(), -1)
        samples = [Encoded(tuple(row), (False,) * 6 + (True,) * 6, n) for n, row in enumerate(ids.tolist())]
        if share:
            trainer.replay = Replay(samples, share, seed=1)
        use_way(model, trainer.forward.way)
        train(trainer, TrainingState())
        use_own_attention(model)
        model.eval()
        with torch.no_grad():
            after = torch.log_softmax(model(input_ids=ids).logits[:, 5:-1].float(), -1)
        return float((before.exp() * (before - after)).sum(-1).mean())

    assert divergence(0.5) < divergence(0.0) / 2


# From lines to tokens


def write(folder: Path, *lines: str) -> Path:
    path = folder / "replay_examples.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def renderer(base_model_dir: Path) -> Renderer:
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(base_model_dir))


def test_the_end_of_a_completion_that_was_cut_is_not_trained(renderer: Renderer, tmp_path: Path) -> None:
    completion = {"content": "Yeast makes gas."}
    path = write(tmp_path, replay_line(PROMPT, completion, cut=False), replay_line(PROMPT, completion, cut=True))
    complete, cut = encode_replay(path, renderer, 200).examples
    assert complete.input_ids == cut.input_ids

    def learnt(one: Encoded) -> str:
        return str(renderer.tokenizer.decode([t for t, flag in zip(one.input_ids, one.loss_mask, strict=True) if flag]))

    assert learnt(complete).startswith("Yeast makes gas.<|im_end|>")
    assert learnt(cut) == "Yeast makes gas."


def test_what_does_not_fit_is_left_out_with_a_note_and_nothing_left_is_an_error(
    renderer: Renderer, tmp_path: Path
) -> None:
    long = replay_line(PROMPT, {"content": "gas " * 300}, cut=False)
    encoded_lines = encode_replay(
        write(tmp_path, long, replay_line(PROMPT, {"content": "Gas."}, cut=False)), renderer, 200
    )
    assert len(encoded_lines.examples) == 1
    assert "1 replay examples are left out: line 1 is" in encoded_lines.notes[0]
    with pytest.raises(DataError, match=r"no replay example can be trained on: line 1 is \d+ tokens long"):
        encode_replay(write(tmp_path, long), renderer, 200)
    assert json.loads(long)["messages"][0] == PROMPT["messages"][0]
