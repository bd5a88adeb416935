"""The judge's batched generation against the one-by-one loop that people write.

    python benchmarks/generation.py [--items 32] [--repeat 2]

The same model (SmolLM2-135M-Instruct), weights, type and stop tokens on both sides, in one process: greedy answers to the
support-triage test prompts. Ours is the local provider's sampler, 32 items a batch, longest first; the other calls
transformers' `generate` for each item. Sides alternate; medians. Tokens are those of the answers, the end of turn included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ftbridge.providers import resolve
from ftbridge.providers.base import Prompt
from ftbridge.providers.local.inference.completions import Generator
from ftbridge.providers.local.lower import lower
from ftbridge.providers.local.request import LocalRequest, SampleRequest
from ftbridge.spec import load

EXAMPLE = Path(__file__).parent.parent / "examples" / "support-triage"
BATCH = 32


def prompts(count: int) -> list[Prompt]:
    """The first test conversations, without their last answer."""
    lines = (EXAMPLE / "test.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    asked = [json.loads(line)["messages"][:-1] for line in lines]
    return [Prompt.model_validate({"key": str(place), "messages": messages}) for place, messages in enumerate(asked)]


def batched(generator: Generator, asked: list[Prompt], max_tokens: int) -> dict[str, dict[str, Any]]:
    """Ours: answers by key."""
    answers: dict[str, dict[str, Any]] = {}
    generator.answer(asked, max_tokens, BATCH, lambda _, **told: answers.update({told["key"]: told}))
    return answers


@torch.no_grad()
def one_by_one(generator: Generator, asked: list[Prompt], max_tokens: int) -> dict[str, dict[str, Any]]:
    """What people write: template, `generate`, decode, for each item."""
    answers = {}
    for prompt in asked:
        ids = generator.renderer.prompt(prompt.messages, prompt.tools)
        out = generator.model.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=max_tokens, do_sample=False, eos_token_id=generator.stop, pad_token_id=generator.renderer.pad_id,
        )  # fmt: skip
        new = out[0, len(ids) :]
        text = generator.tokenizer.decode(new, skip_special_tokens=True)
        answers[prompt.key] = {"text": text, "completion_tokens": len(new)}
    return answers


def request() -> LocalRequest:
    """The example's job, as the local provider understands it."""
    spec, _ = load(EXAMPLE / "job.yaml")
    return LocalRequest.model_validate(lower(resolve(spec, 330, "local")).request)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=BATCH)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=32)
    given = parser.parse_args()
    generator = Generator(SampleRequest(request=request(), tuned=None))
    asked = prompts(given.items)
    batched(generator, asked[:2], 2)  # kernels are built
    speeds: dict[str, list[float]] = {"batched": [], "one by one": []}
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for _ in range(given.repeat):
        for side, how in (("batched", batched), ("one by one", one_by_one)):
            began = time.monotonic()
            answers[side] = how(generator, asked, given.max_tokens)
            tokens = sum(answer["completion_tokens"] for answer in answers[side].values())
            speeds[side].append(tokens / (time.monotonic() - began))
    medians = {side: statistics.median(runs) for side, runs in speeds.items()}
    print(
        f"{len(asked)} items, {next(generator.model.parameters()).dtype}, at most {given.max_tokens} tokens an answer\n"
    )
    print("| side | tokens/s | ratio |\n|---|---|---|")
    for side, speed in medians.items():
        print(f"| {side} | {speed:.0f} | {speed / medians['one by one']:.1f}x |")
    same = sum(answers["batched"][key]["text"] == told["text"] for key, told in answers["one by one"].items())
    print(f"\n{same} of {len(asked)} answers are the same.")


if __name__ == "__main__":
    main()
