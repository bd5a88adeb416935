"""What replay keeps of a model's general skills, what it costs of the task, and how long it takes.

    python benchmarks/forgetting.py --shares 0,0.05,0.1,0.25 --seeds 1,2,3
    python benchmarks/forgetting.py --shares 0.1 --seeds 1 --set hyperparameters.n_epochs=1

Each row is a whole run of examples/support-triage with one share of replay and one seed: accuracy on its 90 test items, and
what `evaluation.retention` finds on its 128 questions, each with its 95 % interval; the verdict is held against a margin of 5
points. `completing` are the seconds in which the base model is loaded and writes the completions that are replayed, `training`
those of the steps. `--keep FOLDER` holds the runs, so that an interrupted table goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "support-triage"


def main() -> None:
    """Print the table, a row as soon as its run is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", default="0,0.05,0.1,0.25")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="A change to the job, such as a rate."
    )
    parser.add_argument("--keep", type=Path, help="Folder of the runs; a temporary one unless given.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("| share | seed | accuracy | retention, tuned minus base | verdict | loss | completing | training |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for share in map(float, options.shares.split(",")):
            for seed in map(int, options.seeds.split(",")):
                print(row(share, seed, finished_run(folder, share, seed, options.set)), flush=True)


def finished_run(folder: Path, share: float, seed: int, changes: list[str]) -> Path:
    """The folder of the run with this share and seed, which is trained unless it was."""
    name = "-".join([f"share{share:g}", f"seed{seed}", *changes]).replace("/", "_")
    home, path = folder / name, folder / f"{name}.yaml"
    spec = yaml.safe_load((EXAMPLE / "job.yaml").read_text(encoding="utf-8"))
    for split in ("train", "test"):
        spec["data"][split] = str(EXAMPLE / spec["data"][split])
    spec["data"].pop("replay", None)
    if share:
        spec["data"]["replay"] = {"share": share}
    spec["seed"], spec["evaluation"]["baselines"] = seed, []
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    for run in (home / "runs").glob("*"):
        command = ["resume", str(run)]
        if (run / "evaluation.json").exists():
            return run
        break
    else:
        command = ["run", str(path), "--provider", "local", "--no-lint"]
        command += [part for change in changes for part in ("--set", change)]
    environment = {**os.environ, "FTBRIDGE_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", "ftbridge", *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    (run,) = (home / "runs").glob("*")
    return run


def row(share: float, seed: int, run: Path) -> str:
    """One run as a row of the table."""
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    exact = evaluation["candidates"]["tuned"]["exact"]
    kept = evaluation["retention"]["verdicts"]["tuned"]
    steps = [one["data"] for one in lines(run / "worker.jsonl") if one["type"] == "metrics"]
    seconds = _completing(lines(run / "journal.jsonl"))
    training = json.loads(max((run / "checkpoints").glob("step-*/state.json")).read_text())["seconds"]
    cells = [
        f"{share:g}",
        str(seed),
        f"{100 * exact['mean']:.1f} % ({100 * exact['ci95'][0]:.1f} to {100 * exact['ci95'][1]:.1f})",
        f"{100 * kept['difference']:+.1f} points ({100 * kept['ci95'][0]:+.1f} to {100 * kept['ci95'][1]:+.1f})",
        kept["verdict"],
        f"{steps[-1]['valid_loss']:.3f}",
        f"{seconds:.0f} s",
        f"{training:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


def _completing(events: list[dict[str, Any]]) -> float:
    """Seconds from asking for the completions that are replayed until their lines were written; 0 without replay."""
    began = [one["time"] for one in events if one["data"].get("candidate") == "base.replay"]
    written = [one["time"] for one in events if one["type"] == "replay_written"]
    return written[-1] - began[0] if written else 0.0


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none without it."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
