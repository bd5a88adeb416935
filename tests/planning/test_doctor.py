"""`ftbridge doctor`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

from ftbridge.planning.doctor import EXTRAS, examine


def test_the_report_shows_what_is_here_and_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-doctor")
    command = [sys.executable, "-m", "ftbridge", "doctor"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env={**os.environ})
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {f"extra {name}" for name in EXTRAS} <= set(findings)
    assert findings["extra serve"]["state"] == "ok"
    assert findings["keys"]["state"] == "ok"
    assert "OPENAI_API_KEY" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "sk-planted-doctor" not in done.stdout


def test_what_is_missing_comes_with_the_command_that_fixes_it(monkeypatch):
    monkeypatch.setitem(EXTRAS, "local", ("fine-tuning", ("no_such_module",)))
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "NEBIUS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    findings = {finding.name: finding for finding in examine()}
    assert (findings["extra local"].state, findings["extra local"].fix) == ("missing", "pip install 'ftbridge[local]'")
    assert findings["keys"].fix.startswith("export")


def test_a_gpu_is_described_by_its_driver(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '0, GPU-a, NVIDIA H100, 81559, 559, 81000, 570.1'\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (gpu,) = [finding for finding in examine() if finding.name == "GPU"]
    assert "NVIDIA H100, 81,559 MiB (81,000 free), driver 570.1" in gpu.message
    driver.write_text("#!/bin/sh\nexit 9\n")
    (gpu,) = [finding for finding in examine() if finding.name == "GPU"]
    assert (gpu.state, gpu.fix) == ("warning", "nvidia-smi")


def test_schedulers_are_named_where_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {"slurm", "ray"}.isdisjoint(finding.name for finding in examine())

    for command in ("sbatch", "squeue", "scontrol", "scancel", "srun"):
        (tmp_path / command).write_text("#!/bin/sh\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    findings = {finding.name: finding for finding in examine()}
    assert findings["slurm"].state == findings["ray"].state == "ok"
    assert "http://head:8265" in findings["ray"].message

    (tmp_path / "squeue").unlink()
    (slurm,) = [finding for finding in examine() if finding.name == "slurm"]
    assert (slurm.state, "squeue" in slurm.message) == ("warning", True)
