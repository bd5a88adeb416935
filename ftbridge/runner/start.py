"""From what the user wrote to a run folder: validated, data prepared, autos settled, every field lowered."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ftbridge import files, providers
from ftbridge.data.lint.prepared import lint_prepared, stop_on_errors, summary
from ftbridge.data.manifest import Manifest
from ftbridge.errors import UsageError
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.job_data import JobData
from ftbridge.evaluation.score import check
from ftbridge.graders.judge_keys import check_judges
from ftbridge.providers import MappedJob
from ftbridge.runs.run import Run
from ftbridge.runs.store import sweep_unfinished
from ftbridge.spec import SpecFile
from ftbridge.spec.lowering import Lowering
from ftbridge.spec.resolve import ResolvedSpec


def create_run(
    spec_file: SpecFile, provider: str, *, allow: Sequence[str] = (), lint: bool = True, home: Path | None = None
) -> Run:
    """Make the run folder: data prepared, hashed and linted, autos settled, every field lowered. Nothing is trained yet.

    Raises `DataError`, `LoweringRefused` or `UsageError`; a run that cannot begin leaves no folder.
    """
    home = home or files.home()
    providers.load(provider)  # an unknown one is refused before any data are read
    sweep_unfinished(home)
    with files.scratch_folder(home) as scratch:
        job, mapped = _checked(spec_file, provider, scratch / "data", allow, lint)
        run = Run.create(
            home,
            name=spec_file.spec.name,
            provider=provider,
            spec_text=spec_file.text,
            spec_suffix=spec_file.suffix,
        )
        job.folder.replace(run.data)
    with run.drive():
        run.append("prepared", data=job.manifest.model_dump(mode="json"))
        files.write_json(run.resolved_path, mapped.resolved.document())
        run.append("resolved")
        files.write_json(run.lowering_path, mapped.lowering.model_dump(mode="json"))
        run.append("lowered")
    return run


def dry_run(
    spec_file: SpecFile, provider: str, *, allow: Sequence[str] = (), lint: bool = True
) -> tuple[Manifest, ResolvedSpec, Lowering]:
    """What `create_run` would settle, without a run. Raises as it does."""
    with files.scratch_folder(files.home()) as scratch:
        job, mapped = _checked(spec_file, provider, scratch / "data", allow, lint)
    return job.manifest, *mapped


def _checked(
    spec_file: SpecFile, provider: str, folder: Path, allow: Sequence[str], lint: bool
) -> tuple[JobData, MappedJob]:
    """The job's data in `folder`, linted, and its mapping, after everything that can be refused before training."""
    job = JobData.prepare(spec_file, folder)
    if lint:
        job = _lint(job, provider)
    mapped = job.map(provider)
    fallback = job.spec.fallback
    lowerings = [mapped.lowering]
    if fallback not in (None, provider):
        lowerings.append(job.map(fallback).lowering)
    _check_allowed(allow, lowerings)
    for lowering in lowerings:
        lowering.stop_if_refused(allow)
    _check_evaluation(job)
    return job, mapped


def _check_allowed(allow: Sequence[str], lowerings: Sequence[Lowering]) -> None:
    """Raise `UsageError` for a field that no spec has; one in a section that this spec leaves out is harmless."""
    names = {report.field for lowering in lowerings for report in lowering.fields}
    for field in allow:
        if field in names or any(field.startswith(f"{section}.") for section in names):
            continue
        close = difflib.get_close_matches(field, sorted(names), n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]}?" if close else "`ftbridge run SPEC --provider P --dry-run` lists the fields."
        raise UsageError(f"--allow {field}: a spec has no such field.", hint=hint)


def _lint(job: JobData, provider: str) -> JobData:
    """The job with the linter's warnings in its manifest. Raises `DataError` for errors by the provider's own rules."""
    rules = providers.load(provider).lint_target(job.spec)
    report = lint_prepared(job.folder, method=job.spec.method, target=rules.target, model=rules.model)
    stop_on_errors(report, job.folder)
    files.write_json(job.folder / "lint.json", report.model_dump(mode="json"))
    manifest = job.manifest.model_copy(update={"notes": [*job.manifest.notes, *summary(report)]})
    files.write_json(job.folder / "manifest.json", manifest.model_dump(mode="json"))
    return replace(job, manifest=manifest)


def _check_evaluation(job: JobData) -> None:
    """Refuse, before anything is trained, graders that name fields no test item has, and baselines that cannot be prompted."""
    if job.path("test").exists():
        check_judges(job.spec)
        check(job.items, job.spec.evaluation.graders)
        candidates_of(job.spec, job.train)
