"""What only a card shows. Skipped, with the reason, where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.jobs import ftbridge, losses, run_folder, worker_events, write_job


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_a_card_trains_every_quantisation(tmp_path: Path, home: Path, quantization: str) -> None:
    job = write_job(tmp_path, test=8, **{"local.device": "cuda", "local.quantization": quantization})
    done = ftbridge("run", str(job), "--provider", "local", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["evaluation"]["candidates"]
    assert result["tuned"]["exact"]["mean"] > result["base"]["exact"]["mean"]
    by_step = losses(run_folder(home))
    assert by_step[max(by_step)] < by_step[1]
    assert worker_events(run_folder(home), "metrics")[-1]["data"]["memory_gb"] > 0


@pytest.mark.gpu
def test_a_card_completes_rows_beside_each_other_as_alone() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftbridge.providers.local.inference.engine import Engine, Request
    from support.letters import letters

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=260, num_key_value_heads=2, **sizes)).cuda().requires_grad_(False)
    requests = [Request([number, *range(1, 40 - number)], 16, end_tokens=frozenset()) for number in range(24)]
    together = Engine(model, letters()).generate(requests)
    alone = Engine(model, letters(), share_prefixes=False)
    assert [one.token_ids for one in together] == [alone.generate([one])[0].token_ids for one in requests]
