"""What the steps of gpu.py train on: a random model as it would be published, drawn chats, and jobs on both."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
LARGE = {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 16_384}  # fmt: skip
TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}  # fmt: skip


def write_model(folder: Path, shape: dict[str, int], dtype: str) -> Path:
    """A random Llama of this shape as it would be published, with a tokenizer of bytes and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(where):
        model = LlamaForCausalLM(LlamaConfig(**shape, eos_token_id=256, pad_token_id=256)).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    return folder


def request_of(model: Path, quantization: str, length: int, device: str) -> Any:
    """A job on the model in the local provider's terms."""
    from ftbridge.providers import resolve
    from ftbridge.providers.local.lower import lower
    from ftbridge.providers.local.request import LocalRequest
    from ftbridge.spec import JobSpec

    spec = JobSpec.from_dict(
        {
            "name": "gpu",
            "data": {"train": "train.jsonl"},
            "model": {"local": str(model)},
            "hyperparameters": {"n_epochs": 1, "batch_size": 4},
            "local": local_section(quantization, length, device),
        }
    )
    return LocalRequest.model_validate(lower(resolve(spec, 16, "local")).request)


def local_section(quantization: str, length: int, device: str) -> dict[str, Any]:
    """The spec's section, with what `plan` has to know: passes of at least 2,048 tokens, activations recomputed."""
    return {
        "quantization": quantization,
        "max_length": length,
        "device": device,
        "evals_per_epoch": 1,
        "max_tokens_per_microbatch": max(length, 2_048),
        "gradient_checkpointing": True,
    }


def write_data(folder: Path, length: int, count: int, *, uneven: bool = False) -> None:
    """Chats of `length` tokens less a few, half of them trained, as a run prepares them; uneven: down to half as long."""
    from ftbridge.data.prepare import prepare
    from ftbridge.spec import JobSpec

    raw = folder.with_name(f"{folder.name}-raw")
    raw.mkdir(parents=True)
    draw, half = random.Random(7), (length - 8) // 2
    letters = "abcdefghijklmnopqrstuvwxyz "

    def text() -> str:
        size = (draw.randint(half // 2, half) if uneven else half) - 3
        return "x" + "".join(draw.choice(letters) for _ in range(size)) + "x"

    rows = [{"messages": [{"role": role, "content": text()} for role in ("user", "assistant")]} for _ in range(count)]
    (raw / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {"name": "gpu", "data": {"train": "train.jsonl"}, "model": {"local": "any"}}
    prepare(JobSpec.from_dict(spec), base=raw, out=folder)


def submitted(model: Path, folder: Path, request: Any, length: int, count: int, *, uneven: bool = False) -> Any:
    """A job in `folder` on `count` chats of `length` tokens, as `submit` leaves it. No worker is started."""
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.process.job import Job

    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / "data", length, count, uneven=uneven)
    job, path = Job(folder), folder / "data" / "train.jsonl"
    document = request.model_dump(mode="json")
    job.write(Submission(token="gpu", folder=folder, request=document, train=path, validation=None))
    return job


def metrics_of(job: Any) -> list[dict[str, Any]]:
    """The figures of each step that the job's worker recorded."""
    return [event.data for event in job.journal.read() if event.type == "metrics"]
