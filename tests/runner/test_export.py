"""`ftbridge export`: the weights of a run, for others to load."""

from __future__ import annotations

import json

import pytest

from ftbridge.errors import UsageError
from ftbridge.runner.export import export_adapter, export_merged
from ftbridge.runner.start import create_run
from ftbridge.spec import SpecFile


@pytest.fixture
def run(tmp_path):
    """A local run, prepared and told to have succeeded; its adapter is the test's to write."""
    lines = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(12)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "name": "numbers",
        "data": {"train": str(tmp_path / "train.jsonl")},
        "model": {"local": "smollm2-135m-instruct", "openai": "gpt-4.1-mini-2025-04-14"},
    }
    return create_run(SpecFile.of(spec), "local")


@pytest.mark.slow
def test_a_merged_model_says_what_base_and_adapter_say(run, tmp_path, base_model_dir):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.bfloat16)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    tuned = get_peft_model(base, config)
    tuned.save_pretrained(run.adapter)
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir)
    tokenizer.save_pretrained(run.adapter)
    run.append("result", model={"provider": "local", "id": str(run.adapter), "base": "smollm2-135m-instruct"})
    run.append("succeeded")

    out = export_merged(run, tmp_path / "out" / "merged")
    copied = export_adapter(run, tmp_path / "out" / "adapter")
    assert sorted(path.name for path in copied.iterdir()) == sorted(path.name for path in run.adapter.iterdir())
    assert not list(out.glob("adapter*"))
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = tuned.eval()(ids).logits.float()
        plain = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.bfloat16)(ids).logits.float()
        result = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)(ids).logits.float()
    assert (result - expected).abs().mean() < 0.2 * (plain - expected).abs().mean()
    assert AutoTokenizer.from_pretrained(out).chat_template == tokenizer.chat_template
    with pytest.raises(UsageError, match="exists"):
        export_adapter(run, copied)


def test_what_cannot_be_exported_is_told(run, tmp_path):
    with pytest.raises(UsageError, match="no model yet"):
        export_adapter(run, tmp_path / "out")
    managed = create_run(SpecFile.of(run.spec().model_dump(mode="json", exclude_unset=True)), "openai")
    with pytest.raises(UsageError, match="keeps the weights"):
        export_merged(managed, tmp_path / "out")
    assert not (tmp_path / "out").exists()
