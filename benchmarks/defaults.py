"""Whether "auto" is as good as the best of a grid: batch size and learning rate multiplier on two tasks, here.

    python benchmarks/defaults.py --out FOLDER                          # the whole grid: hours on a CPU
    python benchmarks/defaults.py --out FOLDER --tasks triage --seeds 1 --cells auto,16x1
    python benchmarks/defaults.py --out FOLDER --examples 12 --items 4 --cells auto --set hyperparameters.n_epochs=1  # try

Tasks of different kind and size: `triage` routes messages to one of a few labels (examples/support-triage, 297 examples),
`orders` writes a sentence as a JSON object (1,200 drawn examples). Cells: auto, and {4, 16, 32} examples a step x
{0.5, 1, 2, 4} times the base learning rate, epochs left at auto. Each cell is a whole run; its score, the share of test items
answered exactly, is written to FOLDER/TASK-CELL-SEED.json. What is there is not run again, and a run that was interrupted is
resumed: the command may be stopped and repeated at any time. The table is of all results in the folder.

The goal is auto within 2 points of the best cell, by the mean over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "support-triage"
MODEL = "smollm2-135m-instruct"
BATCHES, MULTIPLIERS = (4, 16, 32), (0.5, 1.0, 2.0, 4.0)
CELLS = ["auto", *(f"{batch}x{multiplier:g}" for batch in BATCHES for multiplier in MULTIPLIERS)]
TASKS = ("triage", "orders")
EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
}
GOAL = 0.02


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder of data, runs and results.")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--cells", default=",".join(CELLS), help="auto, or BATCHxMULTIPLIER such as 16x2.")
    parser.add_argument("--examples", type=int, help="Train on so many examples alone.")
    parser.add_argument("--items", type=int, help="Test on so many items alone.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="A change to every run.")
    options = parser.parse_args()
    if unknown := set(options.cells.split(",")) - set(CELLS):
        parser.error(f"there is no cell {', '.join(sorted(unknown))}; cells are {', '.join(CELLS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for task in options.tasks.split(","):
        data = write_data(options.out, task, options.examples, options.items)
        for seed in map(int, options.seeds.split(",")):
            for cell in options.cells.split(","):
                path = options.out / f"{task}-{cell}-{seed}.json"
                if not path.exists():
                    result = measured(options.out, data, task, cell, seed, options.set)
                    partial = path.with_suffix(".tmp")
                    partial.write_text(json.dumps(result) + "\n", encoding="utf-8")
                    partial.replace(path)
                    print(f"{task} {cell} seed {seed}: {100 * result['score']:.1f} %", file=sys.stderr, flush=True)
    print(table([json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob("*-*-*.json"))]))


def measured(out: Path, data: dict[str, str], task: str, cell: str, seed: int, changes: list[str]) -> dict[str, Any]:
    """The result of one cell, whose run is taken up where it was."""
    home = out / "runs" / f"{task}-{cell}-{seed}"
    spec: dict[str, Any] = {
        "name": task,
        "data": {**data, "validation": 0.1},
        "model": {"local": MODEL},
        "seed": seed,
        "local": {"max_length": 512},
        "evaluation": {"graders": [EXACT], "max_completion_tokens": 80, "precision": "fp32"},
    }
    if cell != "auto":
        batch, multiplier = cell.split("x")
        spec["hyperparameters"] = {"batch_size": int(batch), "learning_rate_multiplier": float(multiplier)}
    home.mkdir(parents=True, exist_ok=True)
    (home / "job.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    runs = sorted((home / "runs").glob("*/journal.jsonl"))
    command = ["run", str(home / "job.yaml"), "--provider", "local", *(f"--set={change}" for change in changes)]
    if runs:
        command = ["resume", str(runs[-1].parent)]
    environment = {**os.environ, "FTBRIDGE_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", "ftbridge", *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    run = sorted((home / "runs").glob("*/journal.jsonl"))[-1].parent
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    hyperparameters = json.loads((run / "resolved.json").read_text(encoding="utf-8"))["hyperparameters"]
    state = json.loads(max((run / "checkpoints").glob("step-*/state.json")).read_text(encoding="utf-8"))
    scores = {name: evaluation["candidates"][name]["exact"] for name in ("base", "tuned")}
    return {
        "task": task,
        "cell": cell,
        "seed": seed,
        "score": scores["tuned"]["mean"],
        "ci95": scores["tuned"]["ci95"],
        "base": scores["base"]["mean"],
        "items": scores["tuned"]["n"],
        "steps": state["step"],
        "valid_loss": state["best_valid_loss"],
        "seconds": state["seconds"],
        **{name: hyperparameters[name] for name in ("batch_size", "n_epochs", "learning_rate_multiplier")},
    }


def table(results: list[dict[str, Any]]) -> str:
    """A row a task and cell, the best first; below, how far auto is from the best cell of the grid."""
    rows = ["| task | cell | batch, epochs | score, mean (each seed) | validation loss | steps | training |"]
    rows.append("|---|---|---|---|---|---|---|")
    verdicts = []
    for task in dict.fromkeys(result["task"] for result in results):
        cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for result in results:
            if result["task"] == task:
                cells[result["cell"]].append(result)
        means = {cell: statistics.mean(one["score"] for one in several) for cell, several in cells.items()}
        for cell in sorted(cells, key=lambda name: -means[name]):
            several = cells[cell]
            each = ", ".join(f"{100 * one['score']:.1f}" for one in several)
            loss = statistics.mean(one["valid_loss"] for one in several)
            seconds = statistics.mean(one["seconds"] for one in several)
            settings = f"{several[0]['batch_size']}, {several[0]['n_epochs']}"
            score = f"{100 * means[cell]:.1f} % ({each})"
            rows.append(
                f"| {task} | {cell} | {settings} | {score} | {loss:.3f} | {several[0]['steps']} | {seconds:.0f} s |"
            )
        best = max((cell for cell in means if cell != "auto"), key=lambda name: means[name], default=None)
        if best is not None and "auto" in means:
            behind = means[best] - means["auto"]
            outcome = "within the goal" if behind <= GOAL else "missed"
            verdicts.append(f"{task}: auto is {100 * behind:+.1f} points behind {best}, the best cell; {outcome}.")
    return "\n".join([*rows, "", *verdicts])


def write_data(out: Path, task: str, examples: int | None, items: int | None) -> dict[str, str]:
    """The task's splits in a folder, cut to so many lines; their paths."""
    paths = {}
    for split, limit in (("train", examples), ("test", items)):
        if task == "triage":
            lines = (EXAMPLE / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        else:
            lines = [json.dumps(order) for order in orders(split)]
        path = out / f"{task}.{split}.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines[:limit]), encoding="utf-8")
        paths[split] = str(path.resolve())
    return paths


_GOODS = ("oak chair", "wool rug", "desk lamp", "linen sheet", "copper pan", "clay vase", "bath towel", "wall clock")
_CITIES = ("Leeds", "Porto", "Graz", "Lyon", "Oslo", "Gdansk", "Ghent", "Turin", "Malmo", "Brno")
_COLOURS = ("blue", "green", "grey", "white", "red", "black")
_FORMS = (
    "Please send {count} {colour} {good}s to {city}{fast}.",
    "I would like {count} of the {good}s in {colour}, delivered to {city}{fast}.",
    "{city} needs {count} {good}s{fast}. The {colour} ones.",
    "Order for {city}: {colour} {good}, {count} pieces{fast}.",
)
_FAST = ((", as fast as you can", True), (" by express", True), ("", False), (", no hurry", False))


def orders(split: str) -> list[dict[str, Any]]:
    """Sentences that order goods, each with the JSON object that says the same; no sentence is in both splits."""
    dice = random.Random(11)
    lines: dict[str, dict[str, Any]] = {}
    while len(lines) < 1300:
        words, express = dice.choice(_FAST)
        order = {
            "item": dice.choice(_GOODS),
            "colour": dice.choice(_COLOURS),
            "quantity": dice.randint(2, 60),
            "city": dice.choice(_CITIES),
            "express": express,
        }
        text = dice.choice(_FORMS).format(
            count=order["quantity"], colour=order["colour"], good=order["item"], city=order["city"], fast=words
        )
        lines[text] = {
            "messages": [
                {"role": "system", "content": "Write the order as a JSON object."},
                {"role": "user", "content": text},
                {"role": "assistant", "content": json.dumps(order)},
            ]
        }
    every = list(lines.values())
    return every[:1200] if split == "train" else every[1200:]


if __name__ == "__main__":
    main()
