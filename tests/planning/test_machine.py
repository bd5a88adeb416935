"""What this machine has, told by a stand-in for nvidia-smi that is a real process."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ftbridge.draft import Draft
from ftbridge.planning import machine
from ftbridge.planning.machine import this_machine
from ftbridge.planning.plan import plan

CONFIG = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put an `nvidia-smi` first on PATH that does what a line of shell says."""

    def made(line: str) -> None:
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return made


def test_cards_and_what_others_hold_of_them_are_told(driver):
    driver("echo 'NVIDIA A10G, 23028, 22500'; echo 'NVIDIA A10G, 23028, 4000'")
    told = this_machine()
    assert [card.busy for card in told.cards] == [False, True]
    assert told.cards[1].free_gib == pytest.approx(3.90625)
    assert [note for note in told.notes if "others hold 18.6 of 22 GiB" in note]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("echo 'No devices were found'; exit 6", "nvidia-smi fails"),
        ("echo 'NVIDIA A10G, [N/A], [N/A]'", "tells no memory"),
        ("echo 'NVIDIA A10G'", "tells no memory"),
        ("exec sleep 30", "did not answer"),
    ],
)
def test_a_driver_in_trouble_is_told_and_stops_nothing(driver, monkeypatch, line, note):
    monkeypatch.setattr(machine, "_PATIENCE", 0.5)
    driver(line)
    told = this_machine()
    assert told.cards == []
    assert any(note in text for text in told.notes)
    assert told.memory_gib is None or told.memory_gib > 0


def planned(tmp_path: Path, **local: object):
    chats = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}] for n in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    spec = {"name": "t", "data": {"train": str(tmp_path / "train.jsonl")}, "model": {"local": "m/eight"}, **local}
    told = plan(Draft.of(spec), config=tmp_path / "config.json").local
    assert told is not None
    return told


def test_a_plan_says_whether_the_job_fits_what_is_free_here(driver, tmp_path):
    driver("echo 'RTX 4090, 24564, 24000'; echo 'RTX 4090, 24564, 3000'")
    told = planned(tmp_path)
    free, taken = (fit for fit in told.cards if fit.card.startswith("this machine"))
    assert free.pass_tokens >= 2048
    assert taken.pass_tokens == 0
    assert any("others hold" in note for note in told.notes)


def test_without_a_card_the_processors_memory_is_what_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    [here] = [fit for fit in planned(tmp_path).cards if fit.card.startswith("this machine")]
    assert "processor" in here.card


def test_a_volume_is_priced_on_both_sides(tmp_path):
    spec = {"plan": {"monthly_tokens": 50_000_000, "gpu_usd_per_hour": 0.8}}
    told = planned(tmp_path, **spec)
    assert told.monthly is not None
    assert told.monthly.local_usd == pytest.approx(0.8 * 730)
    assert told.monthly.managed_usd is None  # no managed model is named
