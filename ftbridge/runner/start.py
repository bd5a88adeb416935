"""From what the user wrote to a run folder: validated, data prepared, autos settled, every field lowered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftbridge import files, providers
from ftbridge.data.lint.prepared import lint_prepared, stop_on_errors, summary
from ftbridge.data.manifest import Manifest
from ftbridge.data.notation import count_reasoning
from ftbridge.data.prepare import prepare
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.retention.questions import write_questions
from ftbridge.evaluation.score import check
from ftbridge.graders.judge_keys import check_judges
from ftbridge.providers import resolve
from ftbridge.runs.run import Run
from ftbridge.runs.store import sweep_unfinished
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec.lowering import Lowering
from ftbridge.spec.resolve import ResolvedSpec


def create_run(
    spec_file: SpecFile, provider: str, *, allow: Sequence[str] = (), lint: bool = True, home: Path | None = None
) -> Run:
    """Make the run folder: data prepared, hashed and linted, autos settled, every field lowered. Nothing is trained yet.

    Raises `DataError`, `LoweringRefused` or `UsageError`; a run that cannot begin leaves no folder.
    """
    providers.load(provider)  # an unknown one is refused before any data are read
    sweep_unfinished(home or files.home())
    with files.scratch_folder(home or files.home()) as scratch:
        manifest = _prepare(spec_file, provider, scratch / "data", lint)
        reasoning = count_reasoning(scratch / "data" / "train.jsonl")
        resolved, lowering = _settle(spec_file.spec, provider, manifest, reasoning, allow)
        _check_judging(spec_file.spec, scratch / "data")
        run = Run.create(
            home or files.home(),
            name=spec_file.spec.name,
            provider=provider,
            spec_text=spec_file.text,
            spec_suffix=spec_file.suffix,
        )
        (scratch / "data").replace(run.data)
    with run.drive():
        run.append("prepared", data=manifest.model_dump(mode="json"))
        files.write_json(run.resolved_path, resolved.document())
        run.append("resolved")
        files.write_json(run.lowering_path, lowering.model_dump(mode="json"))
        run.append("lowered")
    return run


def dry_run(
    spec_file: SpecFile, provider: str, *, allow: Sequence[str] = (), lint: bool = True
) -> tuple[Manifest, ResolvedSpec, Lowering]:
    """What `create_run` would settle, without a run."""
    with files.scratch_folder(files.home()) as scratch:
        manifest = _prepare(spec_file, provider, scratch / "data", lint)
        _check_judging(spec_file.spec, scratch / "data")
        reasoning = count_reasoning(scratch / "data" / "train.jsonl")
    return manifest, *_settle(spec_file.spec, provider, manifest, reasoning, allow)


def _prepare(spec_file: SpecFile, provider: str, folder: Path, lint: bool) -> Manifest:
    """Write the canonical splits, and stop where a linter for the place they go to finds errors in them."""
    spec = spec_file.spec
    manifest = prepare(spec, base=spec_file.base, out=folder)
    if spec.evaluation.retention is not None:
        write_questions(spec.evaluation.retention, folder / "train.jsonl", folder / "retention.jsonl")
    if not lint:
        return manifest
    rules = providers.load(provider).lint_target(spec)
    report = lint_prepared(folder, method=spec.method, target=rules.target, model=rules.model)
    stop_on_errors(report, folder)
    files.write_json(folder / "lint.json", report.model_dump(mode="json"))
    manifest = manifest.model_copy(update={"notes": [*manifest.notes, *summary(report)]})
    files.write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    return manifest


def _settle(
    spec: JobSpec, provider: str, manifest: Manifest, reasoning: int, allow: Sequence[str]
) -> tuple[ResolvedSpec, Lowering]:
    """The spec with its autos settled, and its field mapping. Raises what the provider, or the one to fall back on, refuses."""
    examples = manifest.splits["train"].examples
    resolved = resolve(spec, examples, provider, reasoning)
    lowering = providers.load(provider).lower(resolved)
    lowering.stop_if_refused(allow)
    if spec.fallback not in (None, provider):
        second = resolve(spec, examples, spec.fallback, reasoning)
        providers.load(spec.fallback).lower(second).stop_if_refused(allow)
    return resolved, lowering


def _check_judging(spec: JobSpec, data: Path) -> None:
    """Refuse, before anything is trained, graders that name fields no test item has, and baselines that cannot be asked."""
    if (data / "test.jsonl").exists():
        check_judges(spec)
        check(load_items(data / "test.jsonl"), spec.evaluation.graders)
        candidates_of(spec, data / "train.jsonl")
