"""What a killed process leaves is removed by the next command; what a living one uses is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge import files
from ftbridge.runs.run import Run
from ftbridge.runs.store import sweep_unfinished

HOLD = """
import sys, time
from pathlib import Path
from ftbridge import files
with files.scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_scratch_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    dead, left = holder(tmp_path)
    living, used = holder(tmp_path)
    os.kill(dead.pid, signal.SIGKILL)
    dead.communicate()
    try:
        with files.scratch_folder(tmp_path):
            assert not left.exists()
            assert (used / "half").exists()
    finally:
        living.kill()
        living.communicate()
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def run_in(home: Path) -> Run:
    return Run.create(home, name="small", provider="openai", spec_text="{}", spec_suffix=".json")


LEFT = [
    ".resolved.json.ab12.tmp",
    "openai/requests-1a2b3c4d.jsonl",
    "openai/train.jsonl",
    "predictions/.base.jsonl.x.tmp",
]


@pytest.mark.parametrize("name", LEFT)
def test_half_written_files_of_a_killed_driver_go_when_the_run_is_driven_again(tmp_path: Path, name: str) -> None:
    run = run_in(tmp_path)
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_text("half")
    (run.path / "data").mkdir()
    (run.path / "data" / "train.jsonl").write_text("{}\n")
    with run.drive():
        assert not (run.path / name).exists()
    assert (run.path / "data" / "train.jsonl").exists()


def test_a_run_that_was_never_made_whole_is_tidied_unless_somebody_makes_it_now(tmp_path: Path) -> None:
    run, busy = run_in(tmp_path), run_in(tmp_path)
    for created in (run, busy):
        (created.path / ".resolved.json.x.tmp").write_text("half")
    with busy.drive():
        (busy.path / ".resolved.json.x.tmp").write_text("half")
        sweep_unfinished(tmp_path)
        assert (busy.path / ".resolved.json.x.tmp").exists()
    assert not (run.path / ".resolved.json.x.tmp").exists()


def test_a_scratch_folder_may_hold_others(tmp_path: Path) -> None:
    with (
        files.scratch_folder(tmp_path) as outer,
        files.scratch_folder(outer) as inner,
        files.scratch_folder(outer) as second,
    ):
        files.sweep(tmp_path, outer)
        assert inner.parent == second.parent == outer
        assert inner.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_process_died_while_it_made_it_goes(tmp_path: Path) -> None:
    (tmp_path / ".scratch-half-made").mkdir()
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
