from __future__ import annotations

import pytest
import torch

from ftbridge.providers.local.training import loss


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks even for a small vocabulary."""
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 50 * 3)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 10])
def test_the_chunked_loss_and_its_gradients_are_those_of_plain_cross_entropy(rows: int, with_bias: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(50, dtype=torch.float64, requires_grad=True) if with_bias else None
    target = torch.randint(0, 50, (rows,))
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]

    total, correct = loss.cross_entropy_sum(hidden, weight, bias, target)
    grads = torch.autograd.grad(total / rows, leaves)

    logits = torch.nn.functional.linear(hidden, weight, bias)
    plain = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    expected = torch.autograd.grad(plain / rows, leaves)
    assert float(total) == pytest.approx(float(plain), rel=1e-6)
    assert int(correct) == int((logits.argmax(-1) == target).sum())
    for got, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_do() -> None:
    hidden = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(50, 8)
    total, _ = loss.cross_entropy_sum(hidden, weight, None, torch.tensor([1, 2, 3, 4]))
    total.backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_without_gradients_nothing_is_kept_for_them() -> None:
    with torch.no_grad():
        total, _ = loss.cross_entropy_sum(torch.randn(4, 8), torch.randn(50, 8), None, torch.tensor([0, 1, 2, 3]))
    assert not total.requires_grad
