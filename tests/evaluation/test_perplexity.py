"""Perplexity of the references is that of the plain model's own loss, and is computed once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import ftbridge
from ftbridge import providers
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.perplexity import perplexity, read_perplexity
from ftbridge.providers import resolve
from ftbridge.providers.base import Scored
from ftbridge.spec import JobSpec

CHATS = [
    ("What is the capital of France?", "Paris."),
    ("Which colour is the sky on a clear day?", "Blue, as everybody can see."),
    ("Say hi", "hi"),
]


@pytest.fixture
def items(tmp_path):
    lines = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in CHATS]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_items(tmp_path / "test.jsonl")


class Counted:
    """A scorer that is called once, or fails the test."""

    def __init__(self):
        self.calls = 0

    def score(self, prompts, completions, *, batch_size):
        self.calls += 1
        for prompt, completion in zip(prompts, completions, strict=True):
            yield Scored(key=prompt.key, nats=float(len(completion)), tokens=2 * len(completion))


def test_long_answers_count_by_their_length_and_nothing_is_computed_twice(items, tmp_path):
    scorer, path = Counted(), tmp_path / "p.json"
    assert perplexity(items, scorer, path, batch_size=2) == pytest.approx(math.exp(0.5))
    assert perplexity(items, scorer, path, batch_size=2) == pytest.approx(math.exp(0.5))
    assert scorer.calls == 1
    assert read_perplexity(items[:2], path) is None
    path.write_text("{")
    assert read_perplexity(items, path) is None


@pytest.mark.slow
def test_it_is_the_plain_models_own_loss(items, tmp_path, base_model_dir: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir)
    nats, count = 0.0, 0
    for question, completion in CHATS:
        request = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        prompt = tokenizer(request, add_special_tokens=False)["input_ids"]
        target = tokenizer(f"{completion}<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum"))
        count += len(target)
    local = {"quantization": "none", "precision": "fp32"}
    document = {"name": "t", "data": {"train": "t"}, "model": {"local": str(base_model_dir)}, "local": local}
    backend = providers.load("local")
    sampler = backend.sampler(backend.lower(resolve(JobSpec.from_dict(document), 10, "local")), None, tmp_path)
    try:
        result = perplexity(items, sampler, tmp_path / "p.json", batch_size=2)
    finally:
        sampler.close()
    assert result == pytest.approx(math.exp(nats / count), rel=1e-3)

    other = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "x"}] for n in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in other))
    document["data"] = {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}
    document["evaluation"] = {"perplexity": True, "max_completion_tokens": 2}
    evaluation = ftbridge.evaluate(document, ["base"])
    assert evaluation.perplexity == {"base": pytest.approx(result, rel=1e-3)}
