"""This machine as the plan sees it: real child processes stand in for nvidia-smi."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftbridge.errors import UsageError
from ftbridge.planning.machine import SECONDS, this_machine
from ftbridge.planning.memory import shape_of
from ftbridge.planning.plan import plan
from ftbridge.spec import SpecFile
from support.small_model import SMALL

TWO = """0, GPU-aaaa-1, NVIDIA A100-SXM4-80GB, 81920, 79000, 2900, 570.1
1, GPU-bbbb-2, NVIDIA A100-SXM4-80GB, 81920, 1020, 80900, 570.1"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a stand-in nvidia-smi that runs this shell script first on PATH."""

    def put(script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


def test_a_card_that_others_use_is_told_with_what_is_free(smi):
    smi(f"cat <<'X'\n{TWO}\nX")
    machine = this_machine()
    first, second = machine.cards
    assert (first.free, first.used, second.free) == (2900 << 20, 79000 << 20, 80900 << 20)
    assert machine.device("auto") == ("cuda", "NVIDIA A100-SXM4-80GB", 2900 << 20)
    assert machine.device("cpu")[0] == "cpu"
    assert machine.notes == []


@pytest.mark.parametrize(
    ("requested", "seen"), [("1", [1]), ("GPU-bbbb,0", [1, 0]), ("", []), ("-1", []), ("0,9,1", [0])]
)
def test_visible_devices_are_kept_to(smi, monkeypatch, requested, seen):
    smi(f"cat <<'X'\n{TWO}\nX")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", requested)
    assert [card.index for card in this_machine().cards] == seen


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo what is a GPU", "cannot be read"),
        ("echo '0, GPU-a, Card, -5, 0, 0, 570.1'", "impossible sizes"),
        ("echo '0, GPU-a, Card, 100, 0, 200, 570.1'", "impossible sizes"),
        ("echo 'NVIDIA-SMI has failed: no driver'; exit 9", "no driver"),
        ("printf '\\377\\376\\000'", "cannot be read"),
    ],
)
def test_nonsense_is_a_note_and_no_card(smi, script, message):
    smi(script)
    machine = this_machine()
    assert machine.cards == []
    assert message in " ".join(machine.notes)


def test_one_that_hangs_is_ended_with_its_children(smi, tmp_path):
    smi(f"sleep 61 & echo $! > {tmp_path}/child; wait")
    began = time.monotonic()
    machine = this_machine()
    assert time.monotonic() - began < SECONDS + 2
    assert "did not answer" in " ".join(machine.notes)
    status = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/status")
    time.sleep(0.1)
    assert not status.exists() or "\nState:\tZ" in status.read_text()


def test_the_plan_says_that_a_busy_card_is_too_full(smi, tmp_path):
    smi("echo '0, GPU-a, NVIDIA L4, 23034, 22800, 200, 570.1'")
    lines = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]}
        for n in range(20)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    spec = {"name": "n", "data": {"train": "train.jsonl"}, "model": {"local": "owner/model"}}
    (tmp_path / "job.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "ftbridge", "plan", "job.json", "--config", "config.json"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "NVIDIA L4" in shown
    assert "held by others" in shown
    assert "does not fit the free memory" in shown
    document = json.loads(subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, check=True).stdout)
    assert document["local"]["here"]["pass_tokens"] == 0
    assert document["local"]["quantization"] == "nf4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 0}, "layers: .* not 0"),
        ({"hidden_size": -8}, "hidden: .* not -8"),
        ({"vocab_size": 10**12}, "vocabulary: .* not 1000000000000"),
        ({"num_attention_heads": 0}, "does not give"),
        ({"intermediate_size": "large"}, 'intermediate: .* not "large"'),
        ({"num_key_value_heads": 0}, "kv_heads: .* not 0"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_what_is_wrong(change, message):
    with pytest.raises(UsageError, match=message):
        shape_of({**SMALL, **change})


def test_the_real_machine_has_memory():
    machine = this_machine()
    assert machine.ram_total
    assert 0 < machine.ram_free <= machine.ram_total
    assert machine.cores >= 1


def test_a_volume_is_priced_on_both_sides(tmp_path):
    lines = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]}
        for n in range(20)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    spec = {
        "name": "n",
        "data": {"train": str(tmp_path / "train.jsonl")},
        "model": {"local": "owner/model"},
        "plan": {"monthly_tokens": 50_000_000, "gpu_usd_per_hour": 0.8},
    }
    result = plan(SpecFile.of(spec), config=tmp_path / "config.json").local
    assert result is not None
    assert result.monthly is not None
    assert result.monthly.local_usd == pytest.approx(0.8 * 730)
    assert result.monthly.managed_usd is None  # no managed model is named
