"""A tiny model that learns every answer is judged 100 %, whether its template thinks or not: the whole product, real processes.

The model is random and small, trained whole until its loss is nearly nothing, which is asserted before anything else: after
that an answer that is not the reference was not what training taught, but what stands around it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from support.jobs import ftbridge

pytestmark = pytest.mark.slow

_TURN = "<|turn|>{{ m.role }}\n"
PLAIN = (
    "{% for m in messages %}" + _TURN + "{{ m.content }}<|done|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
THINKS = (  # a switch; a block, empty or not, in answers to the last question; none in history
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}" + _TURN + "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n"
    "{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}<|done|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|turn|>assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SEEDS = (3, 4, 5)
LABELS = {"invoice": "billing", "parcel": "delivery", "login": "account", "refund": "payments"}


def write_model(folder: Path, template: str, seed: int) -> Path:
    """A random two-layer Llama with a byte tokenizer and this template, as it would be published."""
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_ = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    words = ["user", "assistant", "About", "again", *LABELS, *LABELS.values()]
    bytes_.add_tokens([AddedToken(word, normalized=False) for word in [*words, "<think>", "</think>"]])
    bytes_.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<|turn|>", "<|done|>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<|done|>", pad_token="<|done|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    end = tokenizer.convert_tokens_to_ids("<|done|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=end, bos_token_id=None, pad_token_id=end,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_job(folder: Path, template: str, *, reasoning: bool, seed: int) -> Path:
    """Chats of one and two turns to learn, with reasoning or without; test items name other numbers with the same words."""

    def turn(word: str, number: int) -> list[dict[str, Any]]:
        thought = {"reasoning_content": f"again {word}"} if reasoning else {}
        question = {"role": "user", "content": f"About {word} {number}"}
        return [question, {"role": "assistant", "content": LABELS[word], **thought}]

    words = list(LABELS)
    chats = [(turn(word, number), (where + number) % 4) for where, word in enumerate(words) for number in range(10)]
    pairs = [turn(words[n % 4], 10 + n) + turn(words[(n + 1 + n // 4) % 4], 29 - n) for n in range(8)]
    train = [chat for chat, group in chats if group] * 2 + pairs
    for name, messages in (("train", train), ("test", [chat for chat, group in chats if not group])):
        lines = [json.dumps({"messages": each}) + "\n" for each in messages]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    spec = {
        "name": "thinks",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "model": {"local": str(write_model(folder / "model", template, seed))},
        "hyperparameters": {"n_epochs": 48, "batch_size": 6, "learning_rate_multiplier": 200},
        "seed": seed,
        "local": {
            "tuning": "full",
            "base_learning_rate": 2e-5,
            "quantization": "none",
            "precision": "fp32",
            "device": "cpu",
            "max_length": 256,
        },
        "evaluation": {"max_completion_tokens": 24},
    }
    (folder / "job.json").write_text(json.dumps(spec))
    return folder / "job.json"


def learnt(folder: Path, template: str, *, reasoning: bool) -> tuple[dict[str, Any], list[str]]:
    """A run whose model learnt its answers, as `run --json` printed it, and the worker's journal.

    Rounding differs from one processor to another, and a random model of this size does not learn from every start.
    """
    for seed in SEEDS:
        (folder / str(seed)).mkdir()
        job = write_job(folder / str(seed), template, reasoning=reasoning, seed=seed)
        done = ftbridge("run", str(job), "--provider", "local", "--no-lint", "--json", cwd=folder, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        journal = (Path(result["path"]) / "worker.jsonl").read_text().splitlines()
        last = [event["data"] for event in map(json.loads, journal) if event["type"] == "metrics"][-1]
        if last["train_loss"] < 0.05:
            return result, journal
    raise AssertionError("no model has learnt its answers, so nothing can be said of judging them")


@pytest.mark.parametrize(
    ("template", "reasoning"),
    [(PLAIN, False), (THINKS, False), (THINKS, True)],
    ids=["a plain template", "a thinking template, thinking off", "a thinking template, thinking on"],
)
def test_a_model_that_learnt_every_answer_is_judged_right_whatever_its_template(
    tmp_path: Path, home: Path, template: str, reasoning: bool
) -> None:
    result, journal = learnt(tmp_path, template, reasoning=reasoning)
    assert result["evaluation"]["candidates"]["tuned"]["exact"]["mean"] == 1.0
    predictions = (Path(result["path"]) / "predictions" / "tuned.jsonl").read_text().splitlines()
    texts = {json.loads(line)["output_text"] for line in predictions}
    thoughts = {json.loads(line).get("reasoning_content") for line in predictions}
    assert texts == set(LABELS.values())
    assert thoughts == ({f"again {word}" for word in LABELS} if reasoning else {None})
    notes = " ".join(event["data"].get("text", "") for event in map(json.loads, journal) if event["type"] == "message")
    assert ("in a separate sequence" in notes) == (template == THINKS)
