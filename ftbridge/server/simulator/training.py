"""What a job shows that trains nothing: its data checked as OpenAI would, "auto" settled, and a loss curve of its seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftbridge.data.lint.engine import Options, Role, lint
from ftbridge.data.lint.findings import FileReport, Finding
from ftbridge.data.lint.rule import Method
from ftbridge.errors import FtbridgeError
from ftbridge.server.http.errors import without_paths
from ftbridge.server.jobs_store import Figures
from ftbridge.spec.resolve import general_rules


@dataclass(frozen=True)
class Verdict:
    """What validation found: the sizes, or why the job fails."""

    examples: int = 0
    tokens: int = 0
    code: str | None = None
    message: str | None = None
    param: str | None = None


def verdict(train: Path, validation: Path | None, method: Method, model: str, check: bool) -> Verdict:
    """Lint the files as OpenAI's service would read them. With `check` off nothing fails, and lines are only counted."""
    base = model.split(":")[1] if model.startswith("ft:") else model
    files = {"training_file": train, **({"validation_file": validation} if validation is not None else {})}
    if not check:
        examples = sum(1 for line in train.read_bytes().splitlines() if line.strip())
        return Verdict(examples, train.stat().st_size // 4)
    roles: list[Role] = ["train", "validation"] if validation is not None else ["train"]
    options = Options(target="openai", method=method, model=base, keep=1, jobs=1)
    try:
        report = lint(list(files.values()), options, roles=roles)  # together: some rules are about both files
    except FtbridgeError as error:
        return Verdict(code="invalid_file_format", message=error.message, param="training_file")
    for param, file in zip(files, report.files, strict=True):
        if (worst := _worst(file)) is not None:
            return _refused(worst, param)
    return Verdict(report.files[0].examples, report.files[0].tokens or 0)


def _refused(worst: Finding, param: str) -> Verdict:
    """Why a job fails, in the words of a service: no options of a command line, no paths."""
    where = f"Line {worst.line}" if worst.line else "The file"
    field = f", {worst.field}" if worst.field else ""
    code = "invalid_n_examples" if worst.code == _FEWEST else "invalid_file_format"
    message = f"{where}{field}: {worst.message}"
    if worst.code == _ALONE:
        message = "A reinforcement job also needs a validation file: set validation_file."
        code, param = "missing_required_parameter", "validation_file"
    return Verdict(code=code, message=without_paths(message), param=param)


_FEWEST = "FTB210"
"""The rule of the smallest number of examples."""
_ALONE = "FTB097"
"""The rule that a reinforcement job has a validation file."""


def _worst(file: FileReport) -> Finding | None:
    errors = [finding for finding in file.findings if finding.severity == "error"]
    return min(errors, key=lambda finding: (finding.line is None, finding.line or 0), default=None)


def settled(
    settings: dict[str, Any], examples: int, method: Method, chooses: Iterable[tuple[str, float]]
) -> dict[str, int | float]:
    """Numbers in the place of "auto": `chooses`, else the general rules, which estimate a service's own, and usual values."""
    batch = settings["batch_size"]
    batch, epochs = general_rules(method, max(1, examples), None if batch == "auto" else batch)
    numbers = {name: int(value) if name in ("n_epochs", "batch_size") else value for name, value in chooses}
    chosen = {"n_epochs": epochs, "batch_size": batch, **_USUAL, **numbers}
    return {
        name: chosen[name] if value == "auto" else value
        for name, value in settings.items()
        if name in chosen and value is not None
    }


_USUAL: dict[str, int | float] = {
    "learning_rate_multiplier": 1.0,
    "beta": 0.1,
    "compute_multiplier": 1.0,
    "eval_interval": 5,
    "eval_samples": 1,
}


def curve(seed: int, steps: int, per_epoch: int, validates: bool, method: Method = "supervised") -> Iterator[Figures]:
    """A loss that falls as losses do, with noise of the seed: the same for the same job, made up and meant to look so."""
    dice = random.Random(seed)
    for step in range(1, steps + 1):
        share = step / steps
        loss = 0.4 + 1.8 * math.exp(-4 * share) + dice.gauss(0, 0.04)
        accuracy = min(0.99, max(0.0, 0.5 + 0.4 * (1 - math.exp(-3 * share)) + dice.gauss(0, 0.01)))
        due = validates and (step % per_epoch == 0 or step == steps)
        if method == "reinforcement":
            reward = min(1.0, max(0.0, 0.25 + 0.5 * (1 - math.exp(-3 * share)) + dice.gauss(0, 0.02)))
            rewards = {
                "train_mean_reward": reward,
                "mean_unresponsive_rewards": 0.0,
                "completion_tokens_mean": 40 + 10 * share + dice.gauss(0, 1),
                "reasoning_tokens_mean": 120 + 30 * share + dice.gauss(0, 2),
                **({"full_valid_mean_reward": reward * 0.97, "full_valid_mean_parse_error": 0.0} if due else {}),
            }
            yield Figures(step, steps, more={name: round(value, 5) for name, value in rewards.items()})
            continue
        yield Figures(
            more=_preferences(share, due, dice) if method == "dpo" else {},
            step=step,
            total_steps=steps,
            train_loss=round(max(0.01, loss), 5),
            train_accuracy=round(accuracy, 5),
            valid_loss=round(max(0.02, loss + 0.1), 5) if due else None,
            valid_accuracy=round(max(0.0, accuracy - 0.02), 5) if due else None,
        )


def _preferences(share: float, due: bool, dice: random.Random) -> dict[str, float]:
    """What preference tuning measures beside its loss: how often, and by how much, the preferred answer is likelier."""
    accuracy = min(1.0, max(0.0, 0.5 + 0.45 * (1 - math.exp(-3 * share)) + dice.gauss(0, 0.01)))
    margin = 2.0 * (1 - math.exp(-2 * share)) + dice.gauss(0, 0.05)
    measured = {"train_reward_accuracy": accuracy, "train_reward_margin": margin}
    if due:
        measured |= {"valid_reward_accuracy": max(0.0, accuracy - 0.02), "valid_reward_margin": margin * 0.95}
    return {name: round(value, 5) for name, value in measured.items()}
