"""top_k, min_p, penalties and biases choose the tokens that their definitions leave."""

import pytest
import torch

from ftbridge.providers.local.inference.sampling import Drawing, choose, likeliest

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])


def drawn(times: int = 300, **options: object) -> set[int]:
    """The tokens that come up."""
    drawing = Drawing(temperature=1.0, seed=3, **options)  # type: ignore[arg-type]
    return {choose(LOGITS[None], [drawing])[0].token for _ in range(times)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 1}, {0}),
        ({"top_k": 3}, {0, 1, 2}),
        ({"min_p": 1.0}, {0}),
        ({"min_p": 0.2}, {0, 1, 2}),  # e^-1 and e^-1.5 of the likeliest, not e^-3
        ({"logit_bias": {4: 100.0}}, {4}),
        ({"logit_bias": {0: -100.0, 1: -100.0}, "top_k": 1}, {2}),
        ({"top_k": 2, "top_p": 0.5}, {0}),
    ],
)
def test_only_the_tokens_that_are_left_are_drawn(options, expected):
    assert drawn(**options) == expected


def greedy(steps: int, **options: object) -> list[int]:
    """What is said without temperature, when the model always says the same."""
    drawing = Drawing(**options)  # type: ignore[arg-type]
    return [choose(LOGITS[None], [drawing])[0].token for _ in range(steps)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 0, 0]),
        ({"presence_penalty": 1.2}, [0, 1, 0]),  # 0 falls to 0.8 and stays there; 1 falls below it
        ({"frequency_penalty": 0.6}, [0, 0, 1]),  # 2.0, 1.4, 0.8
        ({"repetition_penalty": 3.0}, [0, 1, 0]),  # 2.0 becomes 0.67, 1.0 becomes 0.33
        ({"repetition_penalty": 5.0, "prompt": frozenset({0, 1})}, [2, 0, 0]),  # 0.4 and 0.2, then 0.1
    ],
)
def test_penalties_count_what_was_said(options, expected):
    assert greedy(3, **options) == expected


def test_a_row_that_fails_does_not_fail_the_others():
    class Broken:
        def rule_out(self, logits):
            raise ValueError("no grammar")

    choices = choose(torch.stack([LOGITS, LOGITS]), [Drawing(shape=Broken()), Drawing()])  # type: ignore[arg-type]
    assert isinstance(choices[0].failed, ValueError)
    assert (choices[1].token, choices[1].failed) == (0, None)


def test_the_likeliest_token_is_the_first_of_the_largest_in_any_type():
    drawn = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(7, 1_000, generator=drawn).to(dtype)
        logits[0, [300, 700]] = 99.0
        assert likeliest(logits) == logits.float().numpy().argmax(-1).tolist()


@pytest.mark.parametrize("options", [{}, {"top_p": 0.99}, {"top_k": 20_000}])
def test_rounding_in_the_model_hardly_ever_changes_what_is_drawn(options):
    """Stored prefixes, other rows and threads change logits in their last digits; the same seed draws the same token."""
    noise = torch.Generator().manual_seed(0)
    logits = 0.5 * torch.randn(200, 49_152, generator=noise)
    rounded = logits + 3e-4 * torch.randn(logits.shape, generator=noise)

    def tokens(values: torch.Tensor) -> list[int]:
        rows = [Drawing(temperature=1.5, seed=seed, **options) for seed in range(len(values))]
        return [choice.token for choice in choose(values, rows)]

    first, again = tokens(logits), tokens(rounded)
    assert len(set(first)) > 190
    assert sum(one != other for one, other in zip(first, again, strict=True)) <= 1


def test_tokens_are_drawn_as_often_as_their_probabilities_say():
    logits = torch.randn(1, 1_000, generator=torch.Generator().manual_seed(1)) * 2
    probabilities = torch.softmax(logits[0] / 0.7, -1)
    drawing = Drawing(temperature=0.7, seed=5)
    counts = torch.zeros(1_000)
    draws = 20_000
    for _ in range(draws):
        counts[choose(logits, [drawing])[0].token] += 1
    often = probabilities > 5 / draws
    expected = torch.cat([probabilities[often], probabilities[~often].sum()[None]]) * draws
    seen = torch.cat([counts[often], counts[~often].sum()[None]])
    chi2, freedom = float(((seen - expected) ** 2 / expected).sum()), len(expected) - 1
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5
