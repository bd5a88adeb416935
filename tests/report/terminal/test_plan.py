"""A plan at the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from ftbridge.planning.plan import plan
from ftbridge.report.terminal.plan import plan_view
from ftbridge.spec import SpecFile
from support.paths import REPOSITORY

PREFERENCES = REPOSITORY / "examples" / "preferences" / "job.yaml"


def shown(*overrides: str) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(plan_view(plan(SpecFile.of(PREFERENCES, list(overrides)))))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_one_epoch_and_one_step_are_written_in_the_singular() -> None:
    assert any(line.startswith("1 epoch  ") and " 1 step  " in line for line in shown("hyperparameters.batch_size=128"))
    assert any(line.startswith("2 epochs  ") and " 32 steps  " in line for line in shown("hyperparameters.n_epochs=2"))
