"""`ftbridge plan --probe`: a few steps of the real trainer on the job's own data, in its own process, measured and kept.

first lines of train.jsonl ─▶ a run in a scratch home ─▶ tokens a second, memory ─▶ FTBRIDGE_HOME/probes.json
"""

from __future__ import annotations

import datetime
import itertools
from statistics import median

from ftbridge import files
from ftbridge.errors import UsageError
from ftbridge.evaluation.job_data import JobData
from ftbridge.planning.pace import Probe, keep_probe, step_rates
from ftbridge.runner import drive
from ftbridge.runner.observer import Observer
from ftbridge.runner.start import create_run
from ftbridge.spec import JobSpec, SpecFile

STEPS = 4
"""Optimizer steps: the first warms up and is not counted."""


def probe(spec_file: SpecFile, watcher: Observer | None = None) -> Probe:
    """Train `STEPS` steps and keep what was measured. Raises `UsageError` without a local model, and what a run raises."""
    spec = spec_file.spec
    if spec.model.local is None:
        raise UsageError("a probe trains on this machine, and the spec names no model.local.")
    with files.scratch_folder(files.home()) as scratch:
        job = JobData.prepare(spec_file, scratch / "data")
        batch = job.resolve("local").spec.hyperparameters.batch_size
        size = STEPS * (batch if isinstance(batch, int) else 1)
        with job.train.open("rb") as lines:
            (scratch / "probe.jsonl").write_bytes(b"".join(itertools.islice(lines, size)))
        run = create_run(SpecFile.of(_short(spec, str(scratch / "probe.jsonl"))), "local", lint=False, home=scratch)
        drive.drive(run, watcher)
        rates, metrics = step_rates(run), run.state().metrics
    if not rates:
        raise UsageError(f"{size} examples are too few for a probe: it needs two steps.")
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    memory = metrics.memory_gb if metrics is not None else None
    measured = Probe(tokens_per_second=median(rates), memory_gb=memory, steps=len(rates), day=today)
    keep_probe(spec, files.home() / "probes.json", measured)
    return measured


def _short(spec: JobSpec, train: str) -> JobSpec:
    """The same job over a few lines: nothing held out, nothing judged, no limits."""
    document = spec.model_dump(mode="json", exclude_unset=True)
    for section in ("evaluation", "budget", "fallback", "openai"):
        document.pop(section, None)
    local = {name: value for name, value in document.get("local", {}).items() if name != "early_stopping"}
    document |= {"name": "probe", "data": {"train": train}, "model": {"local": spec.model.local}, "local": local}
    document["hyperparameters"] = {**document.get("hyperparameters", {}), "n_epochs": 1}
    return JobSpec.from_dict(document)
