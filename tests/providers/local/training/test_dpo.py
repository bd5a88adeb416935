"""Preference tuning: losses by their formulas, log-probabilities by plain logits, and the loop on a two-layer model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftbridge.errors import TrainingFailed
from ftbridge.providers.local.models import attention, load
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.fused import DropoutPool, fuse
from ftbridge.providers.local.models.parts import use_attention, use_own_attention
from ftbridge.providers.local.request import DpoRequest
from ftbridge.providers.local.training import checkpoint, dpo, loop, loss
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.dpo import (
    Preference,
    first_step_limits,
    loss_without_a_difference,
    preference_loss,
)
from ftbridge.providers.local.training.forward import Forward, prove, use_way
from ftbridge.providers.local.training.optim import optimizer_for
from ftbridge.providers.local.training.pairs import Pair, completion_log_probabilities, cut, shares_prompts
from ftbridge.providers.local.training.reference import with_reference
from ftbridge.providers.local.training.repeatable import Rounding
from support import architectures
from support import preference_cases as cases
from support.tiny_training import Steps

# The loss, by its formula


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def by_hand(options: DpoRequest, s: list[float], ref: list[float], n: list[float]) -> float:
    """Equation 7 of the DPO paper and its variants, for one pair, in Python's own numbers."""
    ratio = [s[0] - ref[0], s[1] - ref[1]]
    if options.loss != "sigmoid":
        ratio = [ratio[0] / n[0], ratio[1] / n[1]]
    d = ratio[0] - ratio[1]
    if options.loss == "ipo":
        return (d - 1 / (2 * options.beta)) ** 2
    e = options.label_smoothing
    return -(1 - e) * log_sigmoid(options.beta * d) - e * log_sigmoid(-options.beta * d)


OPTIONS = [
    DpoRequest(loss="sigmoid", beta=0.1),
    DpoRequest(loss="sigmoid", beta=2.0),
    DpoRequest(loss="sigmoid", beta=0.1, label_smoothing=0.2),
    DpoRequest(loss="length_normalised", beta=1.0),
    DpoRequest(loss="length_normalised", beta=1.0, label_smoothing=0.1),
    DpoRequest(loss="ipo", beta=0.1),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: f"{one.loss}-{one.beta}-{one.label_smoothing}")
def test_losses_and_their_gradients_are_those_of_the_formulas(options: DpoRequest) -> None:
    generator = torch.Generator().manual_seed(1)
    policy, reference = (-60 * torch.rand(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(1, 30, (5, 2), generator=generator).double()
    policy.requires_grad_()
    losses = preference_loss(options, policy, reference, tokens)
    (gradient,) = torch.autograd.grad(losses.sum(), policy)
    for row in range(5):
        s, ref, n = policy[row].tolist(), reference[row].tolist(), tokens[row].tolist()
        assert float(losses[row].detach()) == pytest.approx(by_hand(options, s, ref, n), rel=1e-9)
        for side in range(2):
            up, down = list(s), list(s)
            up[side] += 1e-5
            down[side] -= 1e-5
            slope = (by_hand(options, up, ref, n) - by_hand(options, down, ref, n)) / 2e-5
            assert float(gradient[row, side]) == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_label_smoothing_has_its_lowest_loss_at_the_logit_of_its_share() -> None:
    options = DpoRequest(loss="sigmoid", beta=0.5, label_smoothing=0.2)
    best = math.log(0.8 / 0.2) / 0.5
    zero = torch.zeros(3, 2, dtype=torch.float64)
    policy = torch.tensor([[best - 0.1, 0.0], [best, 0.0], [best + 0.1, 0.0]], dtype=torch.float64)
    below, at, above = preference_loss(options, policy, zero, zero + 1).tolist()
    assert at < below
    assert at < above


@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: f"{one.loss}-{one.beta}-{one.label_smoothing}")
def test_without_a_difference_the_loss_is_ln_2_or_that_of_ipo(options: DpoRequest) -> None:
    s = torch.tensor([[-11.0, -23.0]], dtype=torch.float64)
    result = float(preference_loss(options, s, s, torch.tensor([[3.0, 9.0]])))
    assert result == pytest.approx(loss_without_a_difference(options), abs=1e-12)
    assert result == pytest.approx(25.0 if options.loss == "ipo" else math.log(2), abs=1e-12)


def test_swapping_the_completions_turns_the_sign_of_the_difference() -> None:
    policy, reference = torch.tensor([[-5.0, -9.0]]), torch.tensor([[-7.0, -8.0]])
    options, n = DpoRequest(beta=0.3), torch.ones(1, 2)
    there = preference_loss(options, policy, reference, n)
    back = preference_loss(options, policy.flip(1), reference.flip(1), n)
    assert float(there - back) == pytest.approx(-0.3 * 3.0, abs=1e-6)  # log sig(x) - log sig(-x) = x


# The log-probabilities, by plain logits


def plain(forward: Forward, pair: Pair) -> list[float]:
    """Each completion's log-probability by the model's own forward, one conversation at a time."""
    values = []
    for side in pair.sides:
        logits = forward.model(input_ids=torch.tensor([side.input_ids]), use_cache=False).logits[0].double()
        each = torch.log_softmax(logits, -1)
        values.append(sum(float(each[at - 1, side.input_ids[at]]) for at in range(1, len(side)) if side.loss_mask[at]))
    return values


@pytest.fixture(scope="module")
def stirred(tmp_path_factory: pytest.TempPathFactory) -> Forward:
    created = cases.forward_of(tmp_path_factory.mktemp("dpo"), cases.request())
    cases.stir(created.model)
    return created


@pytest.fixture
def forward(stirred: Forward) -> Forward:
    stirred.model.zero_grad()
    use_attention(stirred.model, attention.NAME)
    return stirred


def test_a_completion_is_the_sum_of_its_own_tokens_by_the_models_own_logits(forward: Forward) -> None:
    data = cases.pairs()
    together = completion_log_probabilities(forward, data, shared=True).tolist()
    apart = completion_log_probabilities(forward, data, shared=False).tolist()
    use_own_attention(forward.model)
    wanted = [plain(forward, pair) for pair in data]
    for values in (together, apart):
        for result, right in zip(values, wanted, strict=True):
            assert result == pytest.approx(right, rel=1e-5)


def test_a_prompt_computed_once_gives_the_loss_and_gradients_of_a_prompt_computed_twice(forward: Forward) -> None:
    assert shares_prompts(forward, cases.pairs())
    data = [replace(pair, reference=(-30.0, -31.0)) for pair in cases.pairs()]
    results = []
    for shared in (False, True):
        forward.model.zero_grad()
        sums = Preference(DpoRequest(), shared).sums(forward, data)
        sums.loss.backward()
        results.append((float(sums.loss.detach()), cases.gradients(forward.model)))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["mistral_window", "gemma2", "qwen3"])
def test_windows_caps_and_norms_of_other_families_share_prompts_too(tmp_path: Path, family: str) -> None:
    forward = cases.forward_of(tmp_path, cases.request(), family)
    data = cases.pairs()
    assert forward.way == "packed"
    assert shares_prompts(forward, data)
    both = [completion_log_probabilities(forward, data, shared=shared) for shared in (False, True)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-5, atol=1e-4)


def test_attention_that_lets_one_completion_see_the_other_is_found_out(
    forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftbridge.providers.local.models.attention import Layout

    real = Layout.branched

    def leaking(branches: list[tuple[int, int, int]], where: torch.device) -> Layout:
        """The second completion stands behind the first, as if both were one."""
        layout = real(branches, where)
        tokens = [first + second - prompt for prompt, first, second in branches]
        return replace(Layout.of(tokens, where), position_ids=layout.position_ids)

    monkeypatch.setattr(Layout, "branched", leaking)
    notes: list[str] = []
    assert not shares_prompts(forward, cases.pairs(), notes.append)
    assert "computed twice" in notes[0]


def test_a_model_that_carries_state_computes_prompts_twice(tmp_path: Path) -> None:
    forward = cases.forward_of(tmp_path, cases.request(), "mamba2")
    assert forward.way != "packed"
    assert not shares_prompts(forward, cases.pairs())
    data = cases.pairs(((5, 4, 6), (7, 3, 2)))
    values = completion_log_probabilities(forward, data, shared=False).tolist()
    assert values == [pytest.approx(plain(forward, pair), rel=1e-4) for pair in data]


@pytest.mark.parametrize("shared", [True, False])
def test_micro_batches_hold_whole_pairs_within_their_budget(forward: Forward, shared: bool) -> None:
    data = cases.pairs()
    for budget in (10, 60, 500):
        parts = cut(forward, data, budget, shared=shared)
        assert sorted(pair.index for part in parts for pair in part) == list(range(len(data)))
        for part in parts:
            assert len(part) == 1 or sum(pair.n_shared if shared else len(pair) for pair in part) <= budget


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained_head", [False, True])
def test_chunked_log_probabilities_and_gradients_are_those_of_a_plain_log_softmax(
    monkeypatch: pytest.MonkeyPatch, trained_head: bool, bias: bool
) -> None:
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 50 * 3)
    torch.manual_seed(0)
    hidden = torch.randn(10, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=trained_head)
    offset = torch.randn(50, requires_grad=trained_head) if bias else None
    target = torch.randint(0, 50, (10,))
    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None and leaf.requires_grad]
    scalars = torch.randn(10)
    values = loss.token_log_probabilities(hidden, weight, offset, target)
    result = torch.autograd.grad((values.sin() * scalars).sum(), leaves)
    right = torch.log_softmax(torch.nn.functional.linear(hidden, weight, offset), -1).gather(1, target[:, None])[:, 0]
    wanted = torch.autograd.grad((right.sin() * scalars).sum(), leaves)
    torch.testing.assert_close(values, right)
    for one, other in zip(result, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_in_16_bits_the_targets_logit_keeps_float32_precision() -> None:
    torch.manual_seed(0)
    hidden, weight = 3 * torch.randn(200, 64), torch.randn(500, 64)
    target = torch.randint(0, 500, (200,))
    hidden, weight = hidden.bfloat16(), weight.bfloat16()
    right = torch.log_softmax(hidden.double() @ weight.double().t(), -1).gather(1, target[:, None])[:, 0]
    ours = loss.token_log_probabilities(hidden, weight, None, target)
    rounded = torch.log_softmax((hidden @ weight.t()).float(), -1).gather(1, target[:, None])[:, 0]
    assert float((ours - right).abs().mean()) < float((rounded - right).abs().mean())
    assert bool((ours <= 0).all())


# The loop


def trainer_of(folder: Path, data: list[Pair], held_out: list[Pair], **changes: Any) -> tuple[loop.Trainer, Steps]:
    response = cases.request(**{"n_epochs": 2, "batch_size": 4, **changes})
    forward = cases.forward_of(folder, response)
    optimizer = optimizer_for(forward.model.parameters(), response, architectures.CPU)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    both = with_reference(
        forward, [*data, *held_out], cases.KEY, folder / "reference.jsonl", shared=True, budget=100, begun=False
    )
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    assert response.dpo is not None
    steps = Steps()
    trainer = loop.Trainer(
        forward, optimizer, scaler, response, architectures.CPU, both[: len(data)], both[len(data) :], checkpoints,
        100, steps, lambda: None, Preference(response.dpo, shared=True),
    )  # fmt: skip
    return trainer, steps


def test_the_first_loss_is_ln_2_and_every_margin_is_exactly_0(tmp_path: Path) -> None:
    trainer, steps = trainer_of(tmp_path, cases.pairs(), cases.pairs(seed=9)[:2], batch_size=6, n_epochs=1)
    loop.train(trainer, TrainingState())
    first = steps.figures[0]
    assert first["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["train_reward_margin"] == pytest.approx(0.0, abs=1e-6)
    assert first["train_chosen_logp"] / first["train_chosen_logp_per_token"] == pytest.approx(
        40 / 6
    )  # the first of all has no token before it


def test_a_spoiled_reference_stops_the_run_before_its_first_update(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, cases.pairs(), [])
    trainer.train = [replace(pair, reference=(pair.reference[0] * 0.97, pair.reference[1])) for pair in trainer.train]  # type: ignore[attr-defined]
    before = [parameter.clone() for parameter in trainer.forward.model.parameters()]
    with pytest.raises(
        TrainingFailed, match=r"the loss of step 1 is 0\.\d+, but a model that equals its reference has ln 2"
    ):
        loop.train(trainer, TrainingState())
    assert all(map(torch.equal, before, trainer.forward.model.parameters()))


# The first step


class Noisy:
    """A model whose log-probabilities are the reference's and what `shift(pair, side)` adds, as a step reports them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, compute: torch.dtype = torch.bfloat16) -> None:
        self.shift: Callable[[Pair, int], float] = lambda *_: 0.0
        self.forward: Any = SimpleNamespace(
            device=SimpleNamespace(compute=compute, kind="cpu"), model=torch.nn.Identity()
        )
        monkeypatch.setattr(dpo.preference_pairs, "completion_log_probabilities", self.values)

    def values(self, _forward: Any, part: list[Pair], **_: Any) -> torch.Tensor:
        return torch.tensor([[pair.reference[side] + self.shift(pair, side) for side in (0, 1)] for pair in part])  # type: ignore[index]

    def check(self, options: DpoRequest, batch: list[Pair]) -> None:
        goal = Preference(options, shared=False)
        sums = goal.sums(self.forward, batch)
        figures = goal.figures(float(sums.loss), {name: float(value) for name, value in sums.more.items()}, batch)
        goal.check(self.forward, figures)


def batch_of(*lengths: tuple[int, int]) -> list[Pair]:
    """Pairs with so many tokens in either completion, at 2 nats a token."""
    drawn = cases.pairs(tuple((5, chosen, rejected) for chosen, rejected in lengths))
    return [replace(pair, reference=(-2.0 * len(pair.chosen), -2.0 * len(pair.rejected))) for pair in drawn]


FIRST_STEPS = [*OPTIONS, DpoRequest(loss="sigmoid", beta=0.1, nll_weight=1.0), DpoRequest(loss="sigmoid", beta=0.01)]


@pytest.mark.parametrize("options", FIRST_STEPS, ids=lambda one: f"{one.loss}-{one.beta}-{one.label_smoothing}")
@pytest.mark.parametrize("pairs", [1, 8, 64])
def test_rounding_of_the_measured_size_never_stops_a_first_step(
    monkeypatch: pytest.MonkeyPatch, options: DpoRequest, pairs: int
) -> None:
    """0.05 nats a token and a bias of 6e-4, as between two attention kernels in bf16; completions of 1 to 400 tokens."""
    draw, noisy = random.Random(7), Noisy(monkeypatch)
    noisy.shift = lambda pair, side: draw.gauss(6e-4 * (n := pair.sides[side].num_loss_tokens), 0.05 * math.sqrt(n))
    for _ in range(100 if pairs < 64 else 25):
        noisy.check(options, batch_of(*((draw.randint(1, 400), draw.choice((1, 30, 400))) for _ in range(pairs))))


@pytest.mark.parametrize("options", FIRST_STEPS, ids=lambda one: f"{one.loss}-{one.beta}-{one.label_smoothing}")
@pytest.mark.parametrize(
    ("shift", "compute"),
    [
        pytest.param((1.0, 0.0), torch.bfloat16, id="chosen"),
        pytest.param((0.0, -1.0), torch.bfloat16, id="rejected"),
        pytest.param((-1.0, -1.0), torch.bfloat16, id="both alike"),
        pytest.param((0.05, 0.05), torch.float32, id="a little, in float32"),
        pytest.param((math.nan, 0.0), torch.bfloat16, id="no number"),
    ],
)
def test_a_reference_that_is_off_by_a_nat_stops_the_first_step(
    monkeypatch: pytest.MonkeyPatch, options: DpoRequest, shift: tuple[float, float], compute: torch.dtype
) -> None:
    """Eight pairs of 75 tokens. The old bound let 1.8 nats through in bf16, and any number where both sides moved alike."""
    noisy = Noisy(monkeypatch, compute)
    noisy.check(options, batch_of(*[(75, 75)] * 8))
    noisy.shift = lambda _, side: shift[side]
    with pytest.raises(TrainingFailed, match=r"reference\.jsonl is not of the model that is trained"):
        noisy.check(options, batch_of(*[(75, 75)] * 8))


@pytest.mark.parametrize("options", FIRST_STEPS, ids=lambda one: f"{one.loss}-{one.beta}-{one.label_smoothing}")
def test_differences_that_cancel_out_over_the_pairs_stop_it_too(
    monkeypatch: pytest.MonkeyPatch, options: DpoRequest
) -> None:
    """Rows of a reference that went to other pairs, or noise: 3 nats up and down."""
    noisy = Noisy(monkeypatch)
    noisy.shift = lambda pair, side: 3.0 * (-1) ** (pair.index + side)
    with pytest.raises(TrainingFailed, match="is not of the model"):
        noisy.check(options, batch_of(*[(75, 75)] * 8))


def test_what_rounding_explains_grows_with_the_root_of_tokens_and_falls_with_that_of_pairs() -> None:
    rounding = Rounding(0.05, 0.0)
    one = first_step_limits(DpoRequest(), rounding, batch_of((100, 25)))
    assert one.chosen == pytest.approx(5 * 0.05 * 10)
    assert one.rejected == pytest.approx(5 * 0.05 * 5)
    assert one.spread == pytest.approx(0.05 * math.sqrt(125) * 6)
    assert first_step_limits(DpoRequest(), rounding, batch_of(*[(100, 25)] * 16)).chosen == pytest.approx(
        one.chosen / 4
    )
    by_token = first_step_limits(DpoRequest(loss="ipo"), rounding, batch_of((100, 25)))
    assert by_token.chosen == pytest.approx(5 * 0.05 / 10)
    assert first_step_limits(DpoRequest(), Rounding(0.0, 1e-3), batch_of((100, 25))) == pytest.approx(
        (0.1, 0.025, 0.125)
    )


@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: f"{one.loss}-{one.beta}-{one.label_smoothing}")
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_moe", "falcon"])
def test_in_bf16_micro_batches_of_any_shape_and_another_layout_start_from_the_reference(
    tmp_path: Path, family: str, options: DpoRequest
) -> None:
    """The reference one by one, the step together with a pair that is long enough for another attention kernel, and padded."""
    forward = bf16_forward(tmp_path, family)
    data = cases.pairs(((9, 7, 12), (24, 40, 6), (15, 30, 9), (20, 230, 210)))
    measured = with_reference(
        forward, data, cases.KEY, tmp_path / "reference.jsonl", shared=False, budget=1, begun=False
    )
    other = replace(forward, way="plain")
    for used in (forward, other):
        use_way(used.model, used.way)
        goal = Preference(options, shared=False)
        with torch.no_grad():
            sums = goal.sums(used, measured)
        figures = goal.figures(float(sums.loss), {name: float(value) for name, value in sums.more.items()}, measured)
        goal.check(used, figures)


def bf16_forward(folder: Path, family: str) -> Forward:
    """The family's small model in bf16, with weights three times as large, so that its layers count."""
    device, job = Device(torch.device("cpu"), torch.bfloat16), cases.request()
    model = load.load_base(architectures.model_of(family, folder / "model"), job, device)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    adapted = load.add_adapter(model, job)
    pool = DropoutPool(0.0, device.compute, device.torch)
    fuse(adapted, load.FrozenWeights.of(adapted, job, device).weight_of, pool)
    return prove(Forward(adapted, device, "plain", autocast=False, pool=pool), architectures.examples(), packing=True)


@pytest.mark.parametrize("dpo", [{"loss": "ipo"}, {"loss": "length_normalised", "beta": 1.0}, {"nll_weight": 0.5}])
def test_every_loss_trains_on_a_toy_and_raises_the_margin(tmp_path: Path, dpo: dict[str, Any]) -> None:
    trainer, steps = trainer_of(tmp_path, cases.pairs(), [], n_epochs=4, learning_rate=5e-3, batch_size=6, dpo=dpo)
    loop.train(trainer, TrainingState())
    assert steps.figures[-1]["train_loss"] < steps.figures[0]["train_loss"]
    assert steps.figures[-1]["train_reward_margin"] > 0
    if "nll_weight" in dpo:
        assert steps.figures[-1]["train_chosen_logp"] > steps.figures[0]["train_chosen_logp"]
        assert steps.figures[0]["train_preference_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_how_a_step_is_cut_changes_neither_losses_nor_weights(tmp_path: Path) -> None:
    results = []
    for budget in (10, 60, 1000):  # one pair, some, and all in a micro-batch; the last step holds fewer pairs
        trainer, steps = trainer_of(tmp_path, cases.pairs(), [])
        trainer.max_tokens_per_microbatch = budget
        loop.train(trainer, TrainingState())
        adapter = torch.cat([p.detach().flatten() for p in trainer.forward.model.parameters() if p.requires_grad])
        results.append(([step["train_loss"] for step in steps.figures], adapter))
    for losses, weights in results[1:]:
        assert losses == pytest.approx(results[0][0], rel=1e-5)
        torch.testing.assert_close(weights, results[0][1], rtol=1e-3, atol=1e-4)


def test_resumed_from_a_checkpoint_every_later_step_is_the_same(tmp_path: Path) -> None:
    data, held_out = cases.pairs(), cases.pairs(seed=9)[:2]
    complete, steps = trainer_of(tmp_path, data, held_out, n_epochs=3)
    loop.train(complete, TrainingState())
    reference = (tmp_path / "reference.jsonl").read_bytes()
    path = sorted((tmp_path / "checkpoints").glob("step-*"))[0]
    state = TrainingState.model_validate_json((path / "state.json").read_text())
    assert 0 < state.step < 6
    again, later = trainer_of(tmp_path, data, held_out, n_epochs=3)
    assert (tmp_path / "reference.jsonl").read_bytes() == reference
    checkpoint.restore(path, again.forward.model, again.optimizer, again.scaler)
    loop.train(again, state)
    names = ("step", "train_loss", "train_reward_margin", "train_chosen_logp", "gradient_norm")
    assert [[step[name] for name in names] for step in later.figures] == [
        [step[name] for name in names] for step in steps.figures[state.step :]
    ]


def test_the_same_completion_twice_gives_a_gradient_of_zero(forward: Forward) -> None:
    (pair,) = cases.pairs(((9, 7, 7),))
    pair = replace(pair, rejected=pair.chosen, reference=(-30.0, -30.0))
    Preference(DpoRequest(), shared=True).sums(forward, [pair]).loss.backward()
    assert float(cases.gradients(forward.model).abs().max()) < 1e-6


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_preference_is_learnt_and_carries_over_to_prompts_held_out_and_its_controls_do_not(
    tmp_path: Path, seed: int
) -> None:
    """Pairs the wrong way round move the held-out figures the other way; half of them, or a rate of nothing, not at all."""

    def marked(pair: Pair) -> Pair:
        """The chosen completion says 5 6 7 8 over and over, the rejected one 9 10 11 12; prompts are drawn."""
        sides = [
            replace(side, input_ids=side.input_ids[:8] + tuple(first + where % 4 for where in range(len(side) - 8)))
            for side, first in zip(pair.sides, (5, 9), strict=True)
        ]
        return replace(pair, chosen=sides[0], rejected=sides[1])

    def measured(name: str, turned: int, rate: float = 5e-3) -> tuple[float, float]:
        """Accuracy and margin on held-out pairs after training with every pair turned, of `turned`, every second, or none."""
        data = [marked(pair) for pair in cases.pairs(((8, 6, 6),) * 24, seed=10 * seed)]
        data = [replace(one, chosen=one.rejected, rejected=one.chosen) if turned and index % turned == 0 else one
                for index, one in enumerate(data)]  # fmt: skip
        held_out = [marked(pair) for pair in cases.pairs(((8, 6, 6),) * 16, seed=10 * seed + 1)]
        folder = tmp_path / name
        folder.mkdir()
        options = {"n_epochs": 2, "batch_size": 6, "learning_rate": rate, "evals_per_epoch": 1, "seed": seed}
        trainer, steps = trainer_of(folder, data, held_out, **options)
        loop.train(trainer, TrainingState())
        return steps.figures[-1]["valid_reward_accuracy"], steps.figures[-1]["valid_reward_margin"]

    accuracy, margin = measured("as written", 0)
    assert accuracy > 0.9
    assert margin > 0
    accuracy, swapped = measured("swapped", 1)
    assert accuracy < 0.1
    assert swapped < 0
    assert abs(measured("shuffled", 2)[1]) < margin / 3
    assert abs(measured("rate 0", 0, 1e-12)[1]) < margin / 1000
