"""`ftbridge doctor`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

from ftbridge.planning.doctor import EXTRAS, examine


def test_what_is_here_is_told_and_no_key_is_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-doctor")
    command = [sys.executable, "-m", "ftbridge", "doctor"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env={**os.environ})
    told = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {f"extra {name}" for name in EXTRAS} <= set(told)
    assert told["extra serve"]["state"] == "ok"
    assert told["keys"]["state"] == "ok"
    assert "OPENAI_API_KEY" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "sk-planted-doctor" not in done.stdout


def test_what_is_missing_comes_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setitem(EXTRAS, "local", ("fine-tuning", ("no_such_module",)))
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "NEBIUS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    told = {finding.name: finding for finding in examine()}
    assert (told["extra local"].state, told["extra local"].mend) == ("missing", "pip install 'ftbridge[local]'")
    assert told["keys"].mend.startswith("export")


def test_a_card_is_told_as_its_driver_tells_it(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 81000 MiB, 570.1'\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (card,) = [finding for finding in examine() if finding.name == "card"]
    assert "H100" in card.told
    driver.write_text("#!/bin/sh\nexit 9\n")
    (card,) = [finding for finding in examine() if finding.name == "card"]
    assert card.state == "warning"
