"""The worker sizes its passes by the plan's own arithmetic, and sets aside first what training will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ftbridge.providers import resolve
from ftbridge.providers.local.models import attention, footprint, load
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.memory import plan_pass
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import loss
from ftbridge.spec import JobSpec
from support.small_model import SMALL


@dataclass(frozen=True)
class Roomy(Device):
    """A device with so many bytes free."""

    free: int = 0

    def free_bytes(self) -> int:
        return self.free


def request(**local: Any) -> LocalRequest:
    from ftbridge.providers.local.lower import lower

    spec = JobSpec.from_dict({"name": "n", "data": {"train": "t"}, "model": {"local": "m"}, "local": local})
    return LocalRequest.model_validate(lower(resolve(spec, 100, "local")).request)


def passes(gigabytes: float, longest: int = 100, **local: Any) -> tuple[int, bool]:
    from transformers import LlamaConfig

    device = Roomy(torch.device("cpu"), torch.bfloat16, int(gigabytes * 1e9))
    result = plan_pass(LlamaConfig(**SMALL), request(**local), device, longest)
    return result.tokens, result.gradient_checkpointing


def test_ample_memory_gives_the_largest_useful_pass_and_no_recomputing():
    assert passes(16) == (2048, False)


def test_passes_shrink_with_memory_and_then_activations_are_recomputed():
    sizes = [passes(gigabytes)[0] for gigabytes in (0.5, 1, 2, 16)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert passes(1, longest=2000)[1]


def test_full_tuning_leaves_less_for_passes_than_lora():
    assert passes(3.2, tuning="full")[0] < passes(3.2)[0]


def test_what_the_spec_says_of_passes_is_done():
    assert passes(0.1, max_tokens_per_microbatch=777, gradient_checkpointing=False) == (777, False)


def test_the_arithmetic_has_the_worker_s_own_constants():
    assert loss.CHUNK_BYTES == footprint.CHUNK
    assert attention.SHORT == footprint.SHORT
    assert 0 < load.COPY_SHARE < 1


def test_a_pass_is_smaller_where_attention_reads_a_shared_prompt_again() -> None:
    """Eight completions behind one prompt: the pass holds the prompt once, attention reads it eight times."""
    from transformers import LlamaConfig

    device = Roomy(torch.device("cpu"), torch.bfloat16, 700_000_000)
    once, again = (plan_pass(LlamaConfig(**SMALL), request(), device, 64, rows=rows).tokens for rows in (1.0, 4.0))
    assert 64 <= again < once <= 2048
