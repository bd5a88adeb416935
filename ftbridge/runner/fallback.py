"""Going on with the other provider, when the first refuses for good or fails for a reason of its own, and the spec says so.

    run A ── refused · failed ──▶ is it allowed? ──▶ run B, the same spec and bytes ──▶ results that say whose they are
                                   journal of A: continued_by B        journal of B: continues A, and why

Never after a data error (the same data would fail there too), a gate, an interruption, or while a job of A may still be running
or its creation is in doubt. What A did stays in its folder.
"""

from __future__ import annotations

from ftbridge import providers
from ftbridge.errors import DataError, FtbridgeError, ModelUnavailable, ProviderRefused, TrainingFailed
from ftbridge.providers.base import TERMINAL
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile

_SERVICES_OWN = (ProviderRefused, TrainingFailed, ModelUnavailable)
"""What another provider may do better; everything else would be the same there, or is for a person to decide."""


def run_with_fallback(run: Run, watcher: drive.Observer, go: drive.Go) -> Run:
    """Take a run to its end with `go`, falling back if its spec says so; returns the run that has the results.

    A run that was continued before is followed to the run that continues it. Raises what `go` raises when there is nothing
    to fall back on; when the second provider fails too, its error.
    """
    run = last_of(run)
    try:
        go(run, watcher)
    except FtbridgeError as error:
        follower = _continued(run, error, watcher)
        if follower is None:
            raise
        drive.drive(follower, watcher)
        return follower
    return run


def last_of(run: Run) -> Run:
    """The run that continues this one, and the one that continues that; itself if none does."""
    while (name := run.state().continued_by) is not None:
        run = Run.open(run.path.parent / name)
    return run


def _continued(run: Run, error: FtbridgeError, watcher: drive.Observer) -> Run | None:
    """A prepared run with the other provider, journalled on both sides; None where falling back is not allowed."""
    spec = run.spec()
    first = run.state().provider
    if spec.fallback in (None, first) or run.state().continues is not None or not _allowed(run, error):
        return None
    reason = error.message
    watcher.note(f"{first} will not do it: {reason}")
    follower = create_run(_again(run, spec), spec.fallback or "", home=run.path.parent.parent)
    _prove_same_data(run, follower)
    follower.append("continues", run=run.id, provider=first, reason=reason)
    run.append("continued_by", run=follower.id)
    watcher.note(
        f"falling back on {spec.fallback}, as the spec says: {follower.id}. Results come from {spec.fallback}."
    )
    return follower


def _allowed(run: Run, error: FtbridgeError) -> bool:
    """Whether the error is the provider's own and final, and it is certain that nothing of it is running or will be paid."""
    if not isinstance(error, _SERVICES_OWN) or isinstance(error, DataError):
        return False
    state = run.state()
    backend = providers.load(state.provider)
    if state.token is not None:
        submission = drive.submission_of(run)
        if backend.doubt(submission) is not None or not backend.is_final(submission):
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
    document["evaluation"] = run.resolved_spec().evaluation.model_dump(mode="json")  # its paths are absolute
    return SpecFile.of(JobSpec.from_dict(document, where=run.id))


def _prove_same_data(first: Run, second: Run) -> None:
    """Raise when the second run's training bytes are not the first's."""
    digests = [run.state().train_sha256 for run in (first, second)]
    if None in digests or digests[0] != digests[1]:
        raise FtbridgeError(f"{second.id} would train on other bytes than {first.id}; it was not started.")
