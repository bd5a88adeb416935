"""Whether a way of training computes what the model computes: on real examples, before the first step.

    own losses      each example alone, with the model's own attention and head: what every way is compared with
    own head        the decoder's states, made large, through the model's head and through its weight alone
    agreement       each example's loss in company with the others
    cross-talk      packed only: other tokens of the same number in front of an example change its hidden states by exactly
                    0.0, and its loss has a gradient of exactly 0.0 on theirs
    gradients       every kind of adapted layer gets one

A tolerance would let small cross-talk through, because what leaks from one example into the next may be far smaller than
rounding. Equal shapes give equal rounding, so a model without cross-talk shows exactly 0.0; gradients keep their exponent
in 16 bits, so one that leaks shows more than 0.0 even where its hidden states round to the same numbers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models import attention
from ftbridge.providers.local.models.device import is_out_of_memory
from ftbridge.providers.local.models.parts import causal, decoder, use_attention, use_own_attention
from ftbridge.providers.local.models.sharding import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ftbridge.providers.local.training.forward import Forward

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.03}
"""Largest difference in an example's mean loss that counts as agreement, as a share of the loss (of 1 nat, if it is
less): rounding of the compute type, not meaning. Cross-talk has no tolerance."""
HEAD_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float16: 0.01}
"""Largest difference of a logit from the linear one, as a share of the largest logit."""
LARGE_LOGIT = 100.0
"""Logits are compared at this size: published caps are 30 to 50, so a head that caps its logits shows."""
NOISE = 4.0
"""Share of the change between two equal passes that counts as none: 0.0 but for kernels that add in no fixed order."""
PIECE = 64
"""Tokens of an example that gradients are checked on. Activations of all layers are held for them, without recomputation since
the model is in evaluation mode: on whole examples the proof would take more memory than a step of training."""
FAILURES = (attention.PackedAttentionUnsupported, TypeError, AttributeError, ValueError, RuntimeError, IndexError)


def sample_of(forward: Forward, examples: Sequence[Encoded]) -> list[Encoded]:
    """The three shortest examples, and the shortest one beyond the model's attention window, if it has one."""
    by_length = sorted(examples, key=len)
    sample = by_length[:3]
    config = causal(forward.model).config.get_text_config()
    windows = [
        getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "attention_window_size")
    ]
    window = min((size for size in windows if isinstance(size, int) and size > 0), default=None)
    if window is not None and all(len(example) <= window for example in sample):
        sample += [example for example in by_length if len(example) > window][:1]
    return sample


def own_losses(alone: Forward, sample: Sequence[Encoded]) -> list[float]:
    """Each example's mean loss by the model's own forward. Raises `ModelUnavailable` where that fails or is not finite."""
    use_own_attention(alone.model)
    try:
        with torch.no_grad():
            losses = [_mean_loss(alone, [example]) for example in sample]
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        raise ModelUnavailable(
            f"the model cannot compute a loss here: its own forward fails with {_describe(error)}",
            hint="Use another base model, or another release of transformers.",
        ) from error
    if not all(loss == loss and abs(loss) != float("inf") for loss in losses):
        raise ModelUnavailable(
            f"the model's own loss on the first examples is {losses}, not finite numbers.",
            hint="Set local.precision: fp32, or use another base model.",
        )
    return losses


def has_own_head(forward: Forward, example: Encoded) -> bool:
    """Whether the model's logits are anything but its head's weight (and bias) times the decoder's hidden states."""
    head = causal(forward.model).get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.dtype not in HEAD_TOLERANCE or hasattr(head, "lora_A"):
        return True
    ids = torch.tensor([example.input_ids], device=forward.device.torch)
    try:
        with torch.no_grad():
            states = decoder(forward.model)(input_ids=ids, use_cache=False)[0]
            size = float(_linear(head, states).abs().max())
            with _large_states(decoder(forward.model), LARGE_LOGIT / max(size, 1e-6)) as large:
                logits = forward.model(input_ids=ids, use_cache=False).logits.float()
            linear = _linear(head, large[-1])
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        return True
    return bool((logits - linear).abs().max() > HEAD_TOLERANCE[weight.dtype] * linear.abs().max())


def disagreement(trial: Forward, sample: Sequence[Encoded], wanted: Sequence[float]) -> str | None:
    """Why this way does not compute what the model does, or None if it does. Sets the way's attention."""
    try:
        if trial.way == "packed":
            use_attention(trial.model, attention.NAME)
        else:
            use_own_attention(trial.model)
        with torch.no_grad():
            for example, alone in zip(sample, wanted, strict=True):
                company = [*(_silent(other) for other in sample), example]
                loss = _mean_loss(trial, company)
                if not abs(loss - alone) <= TOLERANCE[trial.device.compute] * max(1.0, alone):
                    return f"an example's loss is {loss:.4f} in company and {alone:.4f} alone"
        return cross_talk(trial, sample[:3]) if trial.way == "packed" else None
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        return _describe(error)


def cross_talk(packed: Forward, sample: Sequence[Encoded]) -> str | None:
    """How one example reaches another within a packed micro-batch, or None where it does not."""
    last = max(sample, key=lambda example: example.num_loss_tokens)
    vocabulary = causal(packed.model).get_input_embeddings().weight.shape[0]
    draw = random.Random(0)
    with torch.no_grad():
        states = []
        for same in (True, True, False, False):
            company = [_silent(one if same else _other_tokens(one, draw, vocabulary)) for one in (*sample, sample[0])]
            behind = len(company[-1])
            states.append(packed.hidden([*company[:-1], last, company[-1]])[-len(last) - behind : -behind])
    noise, *changes = (float((one - states[0]).abs().max()) for one in states[1:])
    change = max(changes)
    if not change <= NOISE * noise:
        return f"other tokens before an example change its hidden states (by up to {change:.2g}), so state runs on"
    embeddings = causal(packed.model).get_input_embeddings()
    before, piece = [_silent(_piece(one)) for one in sample], _piece(last)
    with gradients_on(embeddings) as inputs:
        loss, _ = packed.loss_sum([*before, piece])
        (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
    leaked = 0.0 if gradient is None else float(gradient[0, : -len(piece)].abs().max())
    return None if leaked == 0.0 else f"an example's loss depends on the one before it (gradient {leaked:.2g})"


def require_gradients(forward: Forward, sample: Sequence[Encoded]) -> None:
    """Raise `ModelUnavailable` for a kind of adapted layer whose adapter gets no gradient: it would never be trained."""
    kinds: list[str] = []
    adapters: list[Tensor] = []
    for name, parameter in forward.model.named_parameters():
        if parameter.requires_grad and ".lora_" in name:
            kinds.append(name.split(".lora_")[0].replace(".base_layer", "").rpartition(".")[2])
            adapters.append(parameter)
    if not adapters:
        return
    with torch.enable_grad():
        loss, _ = forward.loss_sum([_piece(one) for one in sample[: 1 if forward.way == "alone" else 3]])
        loss.backward()
    moved = {kind for kind, adapter in zip(kinds, adapters, strict=True) if _moves(adapter.grad)}
    forward.model.zero_grad(set_to_none=True)
    untrained = set(kinds) - moved
    if untrained:
        raise ModelUnavailable(
            f"the adapter of {', '.join(sorted(untrained))} gets no gradient, so it would never be trained.",
            hint="Leave it out of local.lora.target_modules, or use all-linear.",
        )


def _moves(gradient: Tensor | None) -> bool:
    if isinstance(gradient, DTensor):
        gradient = gradient.full_tensor()
    return gradient is not None and bool(gradient.count_nonzero())


def _mean_loss(forward: Forward, examples: Sequence[Encoded]) -> float:
    return float(forward.loss_sum(examples)[0]) / max(1, sum(example.num_loss_tokens for example in examples))


def _piece(example: Encoded) -> Encoded:
    """The first `PIECE` tokens of an example, with the loss on each."""
    return replace(example, input_ids=example.input_ids[:PIECE], loss_mask=(True,) * min(len(example), PIECE))


def _silent(example: Encoded) -> Encoded:
    return replace(example, loss_mask=(False,) * len(example))


def _other_tokens(example: Encoded, draw: random.Random, vocabulary: int) -> Encoded:
    return replace(example, input_ids=tuple(draw.randrange(vocabulary) for _ in example.input_ids))


def _linear(head: nn.Module, states: Tensor) -> Tensor:
    def linear(states: Tensor) -> Tensor:
        weight, bias = head.weight, getattr(head, "bias", None)
        assert isinstance(weight, Tensor)
        return nn.functional.linear(states.to(weight.dtype), weight, bias).float()

    logits: Tensor = inside(head, linear, states)
    return logits


@contextmanager
def _large_states(part: nn.Module, factor: float) -> Iterator[list[Tensor]]:
    """Multiply the decoder's hidden states; yields the list that they are added to."""
    states: list[Tensor] = []

    def enlarge(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        states.append(output[0] * factor)
        if isinstance(output, tuple):
            return (states[-1], *output[1:])
        output[next(iter(output))] = states[-1]
        return output

    hook = part.register_forward_hook(enlarge)
    try:
        yield states
    finally:
        hook.remove()


@contextmanager
def gradients_on(embeddings: nn.Module) -> Iterator[list[Tensor]]:
    """Make the embedded tokens leaves with a gradient; yields the list that they are added to."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    hook = embeddings.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            yield leaves
    finally:
        hook.remove()


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
