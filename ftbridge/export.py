"""Take a tuned model out of its run: the adapter as it is, or merged into its base."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ftbridge import extras, files
from ftbridge.errors import UsageError
from ftbridge.providers.local.child import Child
from ftbridge.providers.local.provider import NEEDS
from ftbridge.providers.local.request import LocalRequest
from ftbridge.runs.run import Run
from ftbridge.view import read_lowering


def export_adapter(run: Run, out: Path) -> Path:
    """Copy the adapter (or the model, after full tuning) to `out`, whole or not at all. Raises `UsageError`."""
    source, _ = _tuned(run)
    _fresh(out)
    with files.scratch_folder(out.parent) as scratch, files.disk_full_is_an_error(out):
        shutil.copytree(source, scratch / "copy")
        (scratch / "copy").replace(out)
    return out


def export_merged(run: Run, out: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Write the base with the adapter added to its weights, in 16 bits, as safetensors. Raises `UsageError`."""
    source, request = _tuned(run)
    if request.tuning == "full":
        return export_adapter(run, out)
    _fresh(out)
    extras.require("local", "exporting weights", *NEEDS)
    asked = {
        "model": request.model,
        "adapter": str(source),
        "out": str(out.resolve()),
        "trust_remote_code": request.trust_remote_code,
    }
    child = Child("ftbridge.providers.local.merging", run.path / "export.log")
    try:
        child.ask(asked)
        list(child.answers(progress))
    finally:
        child.close()
    return out


def _tuned(run: Run) -> tuple[Path, LocalRequest]:
    state = run.state()
    if state.provider != "local":
        raise UsageError(
            f"{run.id} was tuned by a service, which keeps the weights.",
            hint="Run the same spec with --provider local to have weights of your own.",
        )
    if state.tuned is None:
        raise UsageError(f"{run.id} is {state.state} and has no model yet.")
    request = LocalRequest.model_validate(read_lowering(run).request)
    return run.path / ("adapter" if request.tuning == "lora" else "model"), request


def _fresh(out: Path) -> None:
    """Nothing that is there is written over."""
    if out.exists():
        raise UsageError(f"{out} exists.", hint="Name a folder that does not, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
