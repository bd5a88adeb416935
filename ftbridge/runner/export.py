"""Take a tuned model out of its run: the adapter as it is, or merged into its base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ftbridge import providers
from ftbridge.errors import UsageError
from ftbridge.providers.base import ExportFormat
from ftbridge.runner.summary import read_lowering
from ftbridge.runs.run import Run


def export_adapter(run: Run, out: Path) -> Path:
    """Copy the adapter (or the model, after full tuning) to `out`, whole or not at all. Raises `UsageError`."""
    return _export(run, "adapter", out)


def export_merged(run: Run, out: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Write the base with the adapter added to its weights, in 16 bits, as safetensors. Raises `UsageError`."""
    return _export(run, "merged", out, progress)


def _export(run: Run, format: ExportFormat, out: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    state, provider = run.state(), providers.load(run.state().provider)
    if format not in provider.capabilities(run.spec()).export:
        raise UsageError(
            f"{run.id} was tuned by a service, which keeps the weights.",
            hint="Run the same spec with --provider local to have weights of your own.",
        )
    if state.tuned is None:
        raise UsageError(f"{run.id} is {state.state} and has no model yet.")
    if out.exists():  # nothing that is there is written over
        raise UsageError(f"{out} exists.", hint="Name a new folder, or remove this one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return provider.export(read_lowering(run), state.tuned, format, out, progress)
