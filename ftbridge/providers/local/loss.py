"""Cross-entropy where the mask is 1, a chunk of logits at a time.

A vocabulary of 49k to 256k makes the logits the largest tensor of a step. Two savings, both exact: the head runs only on
positions whose next token is trained, and in chunks whose logits are turned into their gradient at once and freed,
so peak memory is one chunk instead of two copies of everything.

    loss   = sum over trained tokens of  logsumexp(logits) - logits[target]
    d loss / d logits = softmax(logits) - onehot(target)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftbridge.providers.local.footprint import CHUNK

CHUNK_BYTES = CHUNK
"""Size of one chunk's float32 logits: large enough to keep a matrix unit busy, small enough for caches and cards."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropy over rows; the gradient is made in the forward pass, where the logits are at hand."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        rows = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wants_bias else None
        compute = weight.to(hidden.dtype)
        for start in range(0, hidden.shape[0], rows):
            part, wanted = hidden[start : start + rows], target[start : start + rows]
            logits = torch.nn.functional.linear(part, compute, None if bias is None else bias.to(hidden.dtype)).float()
            log_total = torch.logsumexp(logits, dim=-1)
            total += (log_total - logits.gather(1, wanted[:, None])[:, 0]).sum()
            correct += (logits.argmax(dim=-1) == wanted).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            logits.sub_(log_total[:, None]).exp_()
            logits[torch.arange(len(wanted), device=wanted.device), wanted] -= 1.0
            if grad_bias is not None:
                grad_bias += logits.sum(0)
            grad_logits = logits.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, compute, out=grad_hidden[start : start + rows])
            if grad_weight is not None:
                grad_weight += grad_logits.t() @ part
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _grad_correct: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return (
            None if hidden is None else hidden * grad_total.to(hidden.dtype),
            None if weight is None else (weight * grad_total).to(ctx.weight_dtype),
            None if bias is None else (bias * grad_total).to(ctx.weight_dtype),
            None,
        )


def cross_entropy_sum(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy in nats, and how many targets were the most likely token.

    hidden (rows, width), weight (vocabulary, width), bias (vocabulary) or None, target (rows) of token ids.
    """
    total, correct = _ChunkedCrossEntropy.apply(hidden, weight, bias, target)
    return total, correct


def logits_cross_entropy_sum(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The same from logits (rows, vocabulary) that a model's own head made, for heads that are not a plain linear."""
    logits = logits.float()
    total = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    return total, (logits.argmax(dim=-1) == target).sum()
