"""The policy gradient against formulas: advantages, a bandit, autograd on plain logits, other algorithms' losses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ftbridge.providers.local.training.policy_gradient import PolicyGradient, advantages, first_values, trained_values
from support import architectures, practice_cases, preference_cases

SHAPES = ((9, 4, 0.75), (9, 7, -0.25), (5, 3, -0.25), (12, 6, -0.25), (1, 5, 0.5), (20, 2, -0.5))


def test_advantages_are_centred_by_group_and_not_divided_by_its_deviation() -> None:
    assert advantages([1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]
    assert advantages([5.0, 1.0], width=4.0) == [0.5, -0.5]


def test_a_constant_added_to_rewards_and_the_order_of_samples_change_nothing() -> None:
    plain = advantages([0.1, 0.9, 0.5])
    assert advantages([7.1, 7.9, 7.5]) == pytest.approx(plain)
    assert advantages([0.5, 0.1, 0.9]) == pytest.approx([plain[2], plain[0], plain[1]])


@pytest.mark.parametrize("rewards", [
    [1.0, 1.0, 1.0], [0.1 + 0.2, 0.3, 0.3], [1.0], [1.0, None], [None, None], [None, 0.5, 0.5], [],
])  # fmt: skip
def test_a_group_without_differences_among_its_rewards_is_not_learnt_from(rewards: list[float | None]) -> None:
    assert advantages(rewards) == [None] * len(rewards)


def test_a_sample_without_a_reward_leaves_its_group_as_if_it_had_not_been_drawn() -> None:
    with_failed = advantages([1.0, None, 0.0, 0.5])
    assert with_failed == [0.5, None, -0.5, 0.0]
    assert [one for one in with_failed if one is not None] == advantages([1.0, 0.0, 0.5])
    assert with_failed != advantages([1.0, 0.0, 0.0, 0.5]), "a failed judge is not a reward of 0"


def test_the_gradient_is_the_analytic_one_on_a_bandit() -> None:
    """p_j (r_j - sum p r), times (G - 1)/G since a sample is in its own baseline; within 3 standard errors of 20,000 groups."""
    torch.manual_seed(0)
    logits, arms, group, groups = torch.tensor([0.3, -0.5, 1.0, 0.0]), torch.tensor([1.0, 0.2, 0.0, 0.6]), 8, 20_000
    p = torch.softmax(logits, 0)
    drawn = torch.multinomial(p, group * groups, replacement=True).view(groups, group)
    estimates = torch.zeros(groups, 4)
    for where, row in enumerate(arms[drawn].tolist()):
        weights = advantages(row)
        if weights[0] is None:
            continue
        for arm, weight in zip(drawn[where].tolist(), weights, strict=True):
            slope = -p.clone()
            slope[arm] += 1
            estimates[where] += weight * slope / group
    expected = (group - 1) / group * p * (arms - (p * arms).sum())
    error = estimates.std(0) / math.sqrt(groups)
    assert ((estimates.mean(0) - expected).abs() <= 3 * error).all()
    assert (expected.abs() > 3 * error).any(), "the test can tell the gradient from none"


@pytest.fixture
def forward(tmp_path: Path):
    one = preference_cases.forward_of(tmp_path, practice_cases.request())
    preference_cases.stir(one.model)
    one.model.train()
    return one


def by_hand(forward, trials, kl=0.0, reference=None) -> torch.Tensor:
    """-sum A log pi / N on plain logits, each completion alone."""
    total, count = torch.zeros(()), sum(one.num_loss_tokens for one in trials)
    for where, one in enumerate(trials):
        ids = torch.tensor([one.example.input_ids])
        layout = dict(forward._packed_inputs([one.example]), input_ids=ids)
        logits = forward.model(**layout).logits[0, :-1]
        values = torch.log_softmax(logits.float(), -1).gather(1, ids[0, 1:, None])[:, 0]
        settings = values[torch.tensor(one.example.loss_mask[1:])]
        total = total - one.advantage * settings.sum()
        if kl:
            difference = reference[where] - settings
            total = total + kl * (torch.exp(difference) - difference - 1).sum()
    return total / count


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("budget", [30, 60, 4000])
def test_the_gradient_of_a_step_is_that_of_plain_logits_however_it_is_cut(forward, budget: int, shared: bool) -> None:
    trials = practice_cases.drawn_trials(SHAPES)
    by_hand(forward, trials).backward()
    expected = preference_cases.gradients(forward.model).clone()
    forward.model.zero_grad()
    goal = PolicyGradient(shared)
    assert forward.way == "packed"
    assert sorted(len(one) for part in goal.cut(forward, trials, budget) for one in part) == sorted(map(len, trials))
    for part in goal.cut(forward, trials, budget):
        (goal.sums(forward, part).loss / goal.size(trials)).backward()
    assert torch.allclose(preference_cases.gradients(forward.model), expected, rtol=1e-4, atol=1e-7)
    assert goal.size(trials) == 27


def test_a_groups_prompt_is_computed_once(forward) -> None:
    """Two groups of four: the prompt of 9 once for three rows of 4, 7 and 3 tokens, the prompt of 20 once for two."""
    one = practice_cases.drawn_trials(((9, 4, 0.5),))[0]
    group = [practice_cases.like(one, length) for length in (4, 7, 3)]
    other = practice_cases.drawn_trials(((20, 2, 0.5),), seed=9)[0]
    trials = [*group, other, practice_cases.like(other, 5)]
    tokens = []
    read = forward.log_probabilities_at
    object.__setattr__(
        forward,
        "log_probabilities_at",
        lambda inputs, *places: (tokens.append(inputs["input_ids"].numel()), read(inputs, *places))[1],
    )
    goal = PolicyGradient(True)
    parts = goal.cut(forward, trials, 1000)
    values = goal.sums(forward, parts[0])
    assert tokens == [9 + 14 + 20 + 7]
    assert float(values.loss.detach()) == pytest.approx(
        float(PolicyGradient().sums(forward, parts[0]).loss.detach()), rel=1e-5
    )
    assert [len(part) for part in goal.cut(forward, trials, 16)] == [1, 1, 1, 1, 1]


def test_rloo_is_the_same_gradient_times_g_over_g_minus_1() -> None:
    rewards = [1.0, 0.0, 0.25, 0.5]
    others = [reward - (sum(rewards) - reward) / 3 for reward in rewards]
    assert others == pytest.approx([4 / 3 * one for one in advantages(rewards)])


def test_the_distance_to_the_first_model_is_zero_at_the_start_and_has_the_gradient_of_its_formula(
    tmp_path: Path,
) -> None:
    forward = preference_cases.forward_of(tmp_path, practice_cases.request())
    trials = practice_cases.drawn_trials(SHAPES)
    goal = PolicyGradient(True, 0.1, trained_values(forward.model))
    sums = goal.sums(forward, trials)
    assert float(sums.more["kl"]) == 0.0
    with torch.no_grad():
        reference = [forward.log_probabilities([one.example]) for one in trials]
    preference_cases.stir(forward.model)
    moved = goal.sums(forward, trials)
    assert float(moved.more["kl"]) > 0
    (moved.loss / goal.size(trials)).backward()
    got = preference_cases.gradients(forward.model).clone()
    forward.model.zero_grad()
    by_hand(forward, trials, 0.1, reference).backward()
    assert torch.allclose(got, preference_cases.gradients(forward.model), rtol=1e-4, atol=1e-7)


def test_the_models_own_values_are_back_after_the_first_ones_were_used(forward) -> None:
    settings = practice_cases.trained_numbers(forward)
    zeros = {name: torch.zeros_like(value) for name, value in trained_values(forward.model).items()}
    with first_values(forward.model, zeros):
        assert not practice_cases.trained_numbers(forward).any()
    assert torch.equal(practice_cases.trained_numbers(forward), settings)


def test_how_far_sampling_and_training_disagree_is_reported_a_token(forward) -> None:
    trials = practice_cases.drawn_trials(SHAPES)
    goal = PolicyGradient()
    sums = goal.sums(forward, trials)
    figures = goal.figures(float(sums.loss.detach()), {name: float(value) for name, value in sums.more.items()}, trials)
    assert figures["log_prob_shift"] == pytest.approx(math.log(architectures.VOCABULARY) - 1, rel=0.2)
