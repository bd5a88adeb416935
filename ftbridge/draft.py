"""From what the user wrote to a run folder: validated, data prepared, autos settled, every field lowered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftbridge import files, providers
from ftbridge.data.lint.prepared import lint_prepared, stop_on_errors, summary
from ftbridge.data.manifest import Manifest
from ftbridge.data.notation import count_reasoning
from ftbridge.data.prepare import prepare
from ftbridge.errors import UsageError
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.evaluate import check
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.retention.questions import write_questions
from ftbridge.graders.judge_keys import check_judges
from ftbridge.lowering import Lowering
from ftbridge.resolve import ResolvedSpec, resolve
from ftbridge.runs.run import Run
from ftbridge.runs.store import sweep_unfinished
from ftbridge.spec import JobSpec
from ftbridge.spec import load as load_spec


@dataclass(frozen=True)
class Draft:
    """A validated spec with its place: what a run is made from."""

    spec: JobSpec
    text: str
    suffix: str
    base: Path

    @classmethod
    def of(cls, source: JobSpec | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> Draft:
        """From a spec file, a plain mapping, or a `JobSpec`; relative paths are relative to the file, or the folder now."""
        if isinstance(source, (str, Path)):
            spec, text = load_spec(source, overrides)
            suffix = Path(source).suffix
            if overrides:
                text, suffix = _as_json(spec), ".json"
            base = Path(source).resolve().parent
            return cls(_anchored(spec, base), text, suffix, base)
        if overrides:
            raise UsageError("overrides apply to spec files; change the JobSpec instead.")
        spec = source if isinstance(source, JobSpec) else JobSpec.from_dict(dict(source))
        return cls(_anchored(spec, Path.cwd()), _as_json(spec), ".json", Path.cwd())


def start(
    draft: Draft, provider: str, *, allow: Sequence[str] = (), lint: bool = True, home: Path | None = None
) -> Run:
    """Make the run folder: data prepared, hashed and linted, autos settled, every field lowered. Nothing is trained yet.

    Raises `DataError`, `LoweringRefused` or `UsageError`; a run that cannot begin leaves no folder.
    """
    backend = providers.load(provider)
    sweep_unfinished(home or files.home())
    with files.scratch_folder(home or files.home()) as scratch:
        manifest = _prepare(draft, provider, scratch / "data", lint)
        reasoning = count_reasoning(scratch / "data" / "train.jsonl")
        resolved = resolve(draft.spec, manifest.splits["train"].examples, provider, reasoning)
        lowering = backend.lower(resolved)
        lowering.stop_if_refused(allow)
        _check_fallback(draft.spec, provider, manifest.splits["train"].examples, reasoning, allow)
        _check_judging(draft.spec, scratch / "data")
        run = Run.create(
            home or files.home(),
            name=draft.spec.name,
            provider=provider,
            spec_text=draft.text,
            spec_suffix=draft.suffix,
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
    draft: Draft, provider: str, *, allow: Sequence[str] = (), lint: bool = True
) -> tuple[Manifest, ResolvedSpec, Lowering]:
    """What `start` would settle, without a run."""
    with files.scratch_folder(files.home()) as scratch:
        manifest = _prepare(draft, provider, scratch / "data", lint)
        _check_judging(draft.spec, scratch / "data")
        reasoning = count_reasoning(scratch / "data" / "train.jsonl")
    resolved = resolve(draft.spec, manifest.splits["train"].examples, provider, reasoning)
    lowering = providers.load(provider).lower(resolved)
    lowering.stop_if_refused(allow)
    _check_fallback(draft.spec, provider, manifest.splits["train"].examples, reasoning, allow)
    return manifest, resolved, lowering


def _prepare(draft: Draft, provider: str, folder: Path, lint: bool) -> Manifest:
    """Write the canonical splits, and stop where a linter for the place they go to finds errors in them."""
    spec = draft.spec
    manifest = prepare(spec, base=draft.base, out=folder)
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


def _anchored(spec: JobSpec, base: Path) -> JobSpec:
    """The spec with paths that are relative to it made absolute; a model's name that is no path stays as it is."""
    if (local := spec.model.local) is not None and (base / local).exists():
        model = spec.model.model_copy(update={"local": str((base / local).resolve())})
        spec = spec.model_copy(update={"model": model})
    if (adapter := spec.local.lora.continue_from) is not None:
        lora = spec.local.lora.model_copy(update={"continue_from": str((base / adapter).resolve())})
        spec = spec.model_copy(update={"local": spec.local.model_copy(update={"lora": lora})})
    evaluation = spec.evaluation
    if evaluation.documents is not None:
        evaluation = evaluation.model_copy(update={"documents": str((base / evaluation.documents).resolve())})
    if (retention := evaluation.retention) is not None and retention.canaries is not None:
        retention = retention.model_copy(update={"canaries": str((base / retention.canaries).resolve())})
        evaluation = evaluation.model_copy(update={"retention": retention})
    return spec if evaluation is spec.evaluation else spec.model_copy(update={"evaluation": evaluation})


def _check_fallback(spec: JobSpec, provider: str, examples: int, reasoning: int, allow: Sequence[str]) -> None:
    """Refuse now what the provider to fall back on would refuse then."""
    if spec.fallback not in (None, provider):
        lowering = providers.load(spec.fallback).lower(resolve(spec, examples, spec.fallback, reasoning))
        lowering.stop_if_refused(allow)


def _check_judging(spec: JobSpec, data: Path) -> None:
    """Refuse, before anything is trained, graders that name fields no test item has, and baselines that cannot be asked."""
    if (data / "test.jsonl").exists():
        check_judges(spec)
        check(load_items(data / "test.jsonl"), spec.evaluation.graders)
        candidates_of(spec, data / "train.jsonl")


def _as_json(spec: JobSpec) -> str:
    return json.dumps(spec.model_dump(mode="json", exclude_unset=True), indent=2, ensure_ascii=False) + "\n"
