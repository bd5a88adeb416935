"""Answering test items: the judge's batched sampler against the loop that people write, one `generate` for each item.

    python benchmarks/generation.py [--items 64] [--rounds 3]

The same model, prompts, chat template and greedy decoding, in processes of their own, alternating. The loop is timed from its first
`generate` on; ours from the first request to the last answer, loading aside on both sides.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ftbridge import providers
from ftbridge.evaluation.candidates import plain
from ftbridge.evaluation.items import load_items
from ftbridge.resolve import resolve
from ftbridge.spec import JobSpec

MODEL = "smollm2-135m-instruct"
TEST = Path(__file__).resolve().parent.parent / "examples" / "support-triage" / "test.jsonl"
TOKENS = 40


def spec() -> JobSpec:
    """A job of the local provider in 16 bits."""
    return JobSpec.from_dict(
        {"name": "generation", "data": {"train": "t"}, "model": {"local": MODEL}, "local": {"quantization": "none"}}
    )


def ours(count: int, batch: int) -> tuple[float, dict[str, str], int]:
    """Seconds, answers by key, tokens written."""
    items = load_items(TEST)[:count]
    prompts = [plain(item) for item in items]
    backend = providers.load("local")
    with tempfile.TemporaryDirectory() as folder:
        sampler = backend.sampler(backend.lower(resolve(spec(), 100, "local")), None, Path(folder))
        try:
            list(sampler.generate(prompts[:1], max_tokens=1, batch_size=1))  # loads the model
            began = time.perf_counter()
            told = list(sampler.generate(prompts, max_tokens=TOKENS, batch_size=batch))
            seconds = time.perf_counter() - began
        finally:
            sampler.close()
    return seconds, {one.key: one.text for one in told}, sum(one.completion_tokens for one in told)


def loop(count: int) -> tuple[float, dict[str, str], int]:
    """The same by plain transformers, an item at a time."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_loop, (count,))


def _loop(count: int) -> tuple[float, dict[str, str], int]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftbridge.providers.local.device import pick
    from ftbridge.providers.local.models import find_model

    path = find_model(MODEL).path
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=pick("auto", "auto").compute).eval()
    answers, tokens = {}, 0
    began = time.perf_counter()
    for item in load_items(TEST)[:count]:
        messages: list[dict[str, Any]] = [{"role": m.role, "content": m.text} for m in item.prompt]
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False)
        new = out[0, asked["input_ids"].shape[1] :]
        answers[item.key] = tokenizer.decode(new, skip_special_tokens=True)
        tokens += len(new)
    return time.perf_counter() - began, answers, tokens


def main() -> None:
    """Alternate, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    sides: dict[str, list[tuple[float, dict[str, str], int]]] = {"one by one": [], "8 a batch": [], "32 a batch": []}
    for _ in range(asked.rounds):
        sides["one by one"].append(loop(asked.items))
        sides["8 a batch"].append(ours(asked.items, 8))
        sides["32 a batch"].append(ours(asked.items, 32))
        print(json.dumps({name: round(rounds[-1][0], 1) for name, rounds in sides.items()}), flush=True)
    base = statistics.median(seconds for seconds, _, _ in sides["one by one"])
    reference = sides["one by one"][0][1]
    print("| side | seconds | answer tokens a second | ratio | same answers |")
    print("|---|---|---|---|---|")
    for name, rounds in sides.items():
        seconds = statistics.median(told[0] for told in rounds)
        same = sum(rounds[0][1][key] == text for key, text in reference.items())
        print(
            f"| {name} | {seconds:.1f} | {rounds[0][2] / seconds:.0f} | {base / seconds:.1f}x | {same} of {len(reference)} |"
        )


if __name__ == "__main__":
    main()
