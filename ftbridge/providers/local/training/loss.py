"""Cross-entropy and log-probabilities where the mask is 1, a chunk of logits at a time.

A vocabulary of 49k to 256k makes the logits the largest tensor of a step. Two savings, both exact: the head runs only on
positions whose next token is trained, and in chunks whose logits are turned into their gradient at once and freed,
so peak memory is one chunk instead of two copies of everything.

    loss   = sum over trained tokens of  logsumexp(logits) - logits[target]
    d loss / d logits = softmax(logits) - onehot(target)

A method whose loss is any function of the log-probabilities of tokens (preference tuning, policy gradients) needs one number a
token instead of their sum. With a frozen head the gradient of a token's log-probability is a vector that does not depend on
that function, times a scalar that does: the vectors are made in the forward pass too, the scalars arrive in the backward pass.
A head that is trained needs the scalar before the sum over rows, so its chunks are computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ftbridge.providers.local.models.footprint import CHUNK

T = TypeVar("T")
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


class _ChunkedLogProbabilities(torch.autograd.Function):
    """log softmax(logits)[target] of each row, float32; gradients as the module's docstring says."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        ctx.trains_head = wants_weight or wants_bias
        values = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        keep = wants_hidden and not ctx.trains_head
        gradient = torch.empty_like(hidden) if keep else None
        compute = weight.to(hidden.dtype)
        for rows in _chunks(hidden.shape[0], weight.shape[0]):
            logits = _logits(hidden[rows], compute, bias, weight, target[rows])
            log_total = torch.logsumexp(logits, dim=-1)
            values[rows] = logits.gather(1, target[rows, None])[:, 0] - log_total
            if gradient is not None:
                torch.mm(_slope(logits, log_total, target[rows]).to(hidden.dtype), compute, out=gradient[rows])
        if ctx.trains_head:
            ctx.save_for_backward(hidden, weight, bias, target)
        else:
            ctx.save_for_backward(gradient)
        return values

    @staticmethod
    def backward(ctx: Any, scalars: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.trains_head:
            (gradient,) = ctx.saved_tensors
            return None if gradient is None else gradient * scalars[:, None].to(gradient.dtype), None, None, None
        hidden, weight, bias, target = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        compute = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        for rows in _chunks(hidden.shape[0], weight.shape[0]):
            logits = _logits(hidden[rows], compute, bias, weight, target[rows])
            slope = _slope(logits, torch.logsumexp(logits, dim=-1), target[rows]) * scalars[rows, None]
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(slope, compute, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight += slope.t() @ hidden[rows]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
        )


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]


def _logits(hidden: Tensor, compute: Tensor, bias: Tensor | None, weight: Tensor, target: Tensor) -> Tensor:
    """Float32 logits of a chunk. In 16 bits a logit of 20 is off by up to 0.06, so the target's is computed in float32.

    The other logits of a row average their rounding out in the sum over the vocabulary; the target's stands alone, and a
    preference is a difference of such numbers.
    """
    logits = torch.nn.functional.linear(hidden, compute, None if bias is None else bias.to(hidden.dtype)).float()
    if hidden.dtype != torch.float32:
        exact = (hidden.float() * weight.detach()[target].float()).sum(-1, keepdim=True)
        if bias is not None:
            exact = exact + bias.detach()[target, None].float()
        logits.scatter_(1, target[:, None], exact)
    return logits


def _slope(logits: Tensor, log_total: Tensor, target: Tensor) -> Tensor:
    """The derivative of log-probabilities by the logits, onehot(target) - softmax(logits). Overwrites the logits."""
    logits.sub_(log_total[:, None]).exp_().neg_()
    logits[torch.arange(len(target), device=target.device), target] += 1.0
    return logits


def token_log_probabilities(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """The log-probability in nats of each target: (rows), float32. Arguments as `cross_entropy_sum`."""
    values: Tensor = _ChunkedLogProbabilities.apply(hidden, weight, bias, target)
    return values


def logits_token_log_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """The same from logits (rows, vocabulary) that a model's own head made."""
    return -torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")


@dataclass(frozen=True)
class Reduction(Generic[T]):
    """What is made of the logits at trained tokens: from hidden states and a linear head, or from the model's own logits."""

    of_hidden: Callable[[Tensor, Tensor, Tensor | None, Tensor], T]
    of_logits: Callable[[Tensor, Tensor], T]


CROSS_ENTROPY = Reduction(cross_entropy_sum, logits_cross_entropy_sum)
LOG_PROBABILITIES = Reduction(token_log_probabilities, logits_token_log_probabilities)
