"""Going on with the other provider, when the first refuses for good or fails for a reason of its own, and the spec says so.

    run A ── refused · failed ──▶ is it allowed? ──▶ run B, the same spec and bytes ──▶ results that say whose they are
                                   journal of A: continued_by B        journal of B: continues A, and why

Never after a data error (the same data would fail there too), a gate, an interruption, or while a job of A may still be running
or its creation is in doubt. What A did stays in its folder.
"""

from __future__ import annotations

from ftbridge.data.replay import PROMPTS
from ftbridge.errors import DataError, FtbridgeError, ModelUnavailable, ProviderRefused, TrainingFailed
from ftbridge.providers.base import TERMINAL, Provider, Submission
from ftbridge.runner.observer import Observer
from ftbridge.runner.start import create_run
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile

_SERVICES_OWN = (ProviderRefused, TrainingFailed, ModelUnavailable)
"""What another provider may do better; everything else would be the same there, or is for a person to decide."""


def last_of(run: Run) -> Run:
    """The run that continues this one, and the one that continues that; itself if none does."""
    while (name := run.state().continued_by) is not None:
        run = Run.open(run.path.parent / name)
    return run


def fall_back(
    run: Run, error: FtbridgeError, backend: Provider, submission: Submission, watcher: Observer
) -> Run | None:
    """A prepared run with the provider to fall back on, journalled on both sides; None where falling back is not allowed.

    `error` is what ended `run`, `submission` what was, or would have been, submitted for it.
    """
    spec = run.spec()
    first = run.state().provider
    if spec.fallback in (None, first) or run.state().continues is not None:
        return None
    if not _allowed(run, error, backend, submission):
        return None
    watcher.note(f"{first} refused or failed: {error.message}")
    follower = create_run(_again(run, spec), spec.fallback or "", home=run.path.parent.parent)
    _prove_same_data(run, follower)
    follower.append("continues", run=run.id, provider=first, reason=error.message)
    run.append("continued_by", run=follower.id)
    watcher.note(
        f"falling back to {spec.fallback}, as the spec says: {follower.id}. Results come from {spec.fallback}."
    )
    return follower


def _allowed(run: Run, error: FtbridgeError, backend: Provider, submission: Submission) -> bool:
    """Whether the error is the provider's own and final, and it is certain that nothing of it is running or will be paid."""
    if not isinstance(error, _SERVICES_OWN) or isinstance(error, DataError):
        return False
    state = run.state()
    if state.token is not None and (backend.doubt(submission) is not None or not backend.is_final(submission)):
        return False
    if state.handle is None:
        return True
    try:
        return backend.poll(state.handle).state in TERMINAL - {"succeeded"}
    except FtbridgeError:
        return False  # it cannot be seen, so it may go on


def _again(run: Run, spec: JobSpec) -> SpecFile:
    """The spec of a run, its data replaced by the run's own canonical bytes: the other side trains on exactly these."""
    data = {name: str(run.data / f"{name}.jsonl") for name in ("train", "validation", "test")}
    held = {name: path for name, path in data.items() if (run.data / f"{name}.jsonl").exists()}
    document = spec.model_dump(mode="json", exclude_unset=True)
    document["data"] = {**held, "format": "jsonl", "keep": list(spec.data.keep)}
    if spec.data.replay is not None:  # the other side's base model has completions of its own for the same prompts
        replay = spec.data.replay.model_dump(mode="json", exclude_unset=True)
        document["data"]["replay"] = {**replay, "prompts": str(run.data / PROMPTS)}
    document["evaluation"] = run.resolved_spec().evaluation.model_dump(mode="json")  # its paths are absolute
    return SpecFile.of(JobSpec.from_dict(document, where=run.id))


def _prove_same_data(first: Run, second: Run) -> None:
    """Raise when the second run's training bytes are not the first's."""
    digests = [run.state().train_sha256 for run in (first, second)]
    if None in digests or digests[0] != digests[1]:
        raise FtbridgeError(f"{second.id} would train on different bytes from {first.id}; it was not started.")
