"""Judging outside a run: named candidates answer a spec's test items, and are compared over them.

    spec ─▶ items ─▶ who is asked (run, model, endpoint) ─▶ answers/MODEL.jsonl ─▶ graders, intervals, verdicts

Answers are kept under FTBRIDGE_HOME by model and prompt, whoever asked: what was answered once is not asked again, a stopped
evaluation goes on where it was, and a changed grader makes no requests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftbridge import files, providers
from ftbridge.errors import GateNotMet, RunBusy, UsageError
from ftbridge.evaluation.baselines import baseline
from ftbridge.evaluation.calibration import read_labelled
from ftbridge.evaluation.candidate_names import PROMPTED, RequestedCandidate, parse_candidate
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.engine import CandidateFiles, EvaluationEngine
from ftbridge.evaluation.families import family_notes
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.job_data import JobData
from ftbridge.evaluation.notes import CompletionSource, differences
from ftbridge.evaluation.retention.measure import Retention, retention_candidate
from ftbridge.evaluation.score import check
from ftbridge.graders import Calls
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import FILE as CALLS
from ftbridge.graders.judge_keys import check_judges
from ftbridge.providers.base import Sampler, TunedModel
from ftbridge.runs import store
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec.lowering import Lowering

Progress = Callable[[str, int, int], None]
"""Hears candidate, answered, total."""

OnCompletions = Callable[[Sequence[Item], Mapping[str, Sequence[Prediction]], Grades], None]
"""Receives the items, every candidate's completions, and what graders say of them."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How candidates are asked. `provider` is whose base model prompted candidates use; where not told, this machine's.

    `human` is a file of completions with people's scores, beside which graders are held (`ftbridge.evaluation.calibration`).
    """

    provider: str | None = None
    system: str | None = None
    documents: Path | None = None
    margin: float | None = None
    fresh: bool = False
    human: Path | None = None


@dataclass(frozen=True)
class Model:
    """Whose answers they are, and on which base model.

    `identity` is what answers depend on beside the prompt, `open` makes a sampler, given a folder.
    """

    label: str
    provider: str
    base: str
    identity: dict[str, Any]
    open: Callable[[Path], Sampler]


def evaluate(
    spec_file: SpecFile,
    names: Sequence[str],
    options: EvaluationOptions | None = None,
    on_progress: Progress | None = None,
    on_answers: OnCompletions | None = None,
) -> Evaluation:
    """Let candidates answer the spec's test items, judge them, and compare each later one with the first.

    Names are those of `ftbridge.evaluation.candidate_names`. `options.margin` defaults to the spec's. Raises `UsageError` for
    names that mean nothing and for a spec without test items, before any request; `DataError` for bad data; what
    samplers raise.
    """
    options = options or EvaluationOptions()
    labelled = read_labelled(options.human) if options.human is not None else []
    requested = [parse_candidate(name) for name in names]
    names = [one.name for one in requested]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"named twice: {', '.join(sorted(twice))}.")
    if not requested:
        raise UsageError("name at least one candidate.", hint="For example: --candidate base --candidate run:latest")
    spec, home = _with_options(spec_file.spec, options), files.home()
    with files.scratch_folder(home) as scratch:
        job = JobData.prepare(replace(spec_file, spec=spec), scratch / "data")
        items = job.items
        if not items:
            raise UsageError("the spec has no test items, so there is nothing to evaluate.", hint="Set data.test.")
        check_judges(spec)
        check(items, spec.evaluation.graders)
        engine = EvaluationEngine(job, grades=home / "grades.jsonl", calls=_calls(spec, home))
        models = [_model(candidate, job, options, home) for candidate in requested]
        candidates = [_candidate(candidate, spec, job.train) for candidate in requested]
        completed = [
            _complete(engine, model, candidate, options, on_progress)
            for model, candidate in zip(models, candidates, strict=True)
        ]
        retention = _retention(engine, requested, models, options, on_progress)
    predictions = dict(zip(names, (one for one, _ in completed), strict=True))
    graded = engine.grade(
        predictions,
        margin=options.margin,
        pairs=[(name, names[0]) for name in names[1:]],
        models={name: model.label for name, model in zip(names, models, strict=True)},
    )
    if on_answers is not None:
        on_answers(items, predictions, {score.name: score.result for score in graded.scores})
    more = {
        "notes": [
            *graded.evaluation.notes,
            *differences([_place_of(model, spec) for model in models]),
            *family_notes(spec.evaluation.graders, [model.base for model in models]),
        ],
        "perplexity": {name: value for name, (_, value) in zip(names, completed, strict=True) if value is not None},
        "retention": retention,
        "calibration": engine.calibrate(graded, labelled),
    }
    return graded.evaluation.model_copy(update=more)


def _calls(spec: JobSpec, home: Path) -> Callable[[], Calls]:
    """The questions to judges, within the spec's budget for all of them together."""
    limit = spec.budget.max_usd
    meter = None if limit is None else JudgeBudget(limit, on_used_up=_used_up)
    return lambda: Calls(home / CALLS, meter)


def _used_up(used: str) -> GateNotMet:
    return GateNotMet(
        f"{used}.",
        hint="The judges' replies are saved: with a larger budget.max_usd, only the missing ones are requested.",
    )


def _retention(
    engine: EvaluationEngine,
    requested: Sequence[RequestedCandidate],
    models: Sequence[Model],
    options: EvaluationOptions,
    progress: Progress | None,
) -> Retention | None:
    """What the models still know, where the spec asks: each against the first; prompts alone make no other model."""
    others = [index for index in range(1, len(requested)) if requested[index].kind not in PROMPTED]
    if engine.spec.evaluation.retention is None or not others:
        return None
    predictions = {}
    for index in (0, *others):
        name = requested[index].name
        predictions[name], _ = _complete(engine, models[index], retention_candidate(name), options, progress)
    return engine.retention(predictions, requested[0].name)


def _with_options(spec: JobSpec, options: EvaluationOptions) -> JobSpec:
    """The spec, with what the command line says of prompts."""
    overrides = {
        "system": options.system,
        "documents": str(options.documents) if options.documents is not None else None,
    }
    changes = {name: value for name, value in overrides.items() if value is not None}
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update=changes)})


def _candidate(requested: RequestedCandidate, spec: JobSpec, train: Path) -> Candidate:
    """How an item becomes a prompt; models other than the base are asked with the item's own."""
    if requested.kind not in PROMPTED:
        return Candidate(requested.name, plain)
    return replace(baseline(requested.kind, spec, train), name=requested.name)


def _model(requested: RequestedCandidate, job: JobData, options: EvaluationOptions, home: Path) -> Model:
    """Whose completions they are, before any request is made."""
    match requested.kind:
        case "endpoint":
            return _endpoint(requested)
        case "run" | "checkpoint":
            return _of_run(requested, store.find(home, requested.target))
        case "openai" | "local":
            named = job.spec.model.model_copy(update={requested.kind: _path_or_name(requested)})
            return _base(requested.kind, replace(job, spec=job.spec.model_copy(update={"model": named})))
        case _:
            return _base(options.provider or ("local" if job.spec.model.local else "openai"), job)


def _base(provider: str, job: JobData) -> Model:
    """The base model of the job's spec at a provider."""
    backend = providers.load(provider)
    name = backend.base_model(job.spec)
    if name is None:
        raise UsageError(f"the spec has no model.{provider}.", hint=f"Set model.{provider}, or name another candidate.")
    lowering = job.map(provider).lowering
    identity = {"provider": provider, "model": name, **backend.identity(lowering)}
    if Path(name).exists():
        identity["written"] = max(path.stat().st_mtime_ns for path in (Path(name), *Path(name).glob("*")))
    return Model(name, provider, name, identity, lambda folder: backend.sampler(lowering, None, folder))


def _of_run(requested: RequestedCandidate, run: Run) -> Model:
    state = run.state()
    if state.tuned is None:
        raise UsageError(f"{run.id} has no tuned model: it is {state.state}.", hint=f"ftbridge resume {run.id}")
    tuned = state.tuned
    backend = providers.load(state.provider)
    if requested.kind == "checkpoint":
        tuned = tuned.model_copy(update={"id": _checkpoint(run, tuned, requested.step)})
    lowering = Lowering.model_validate_json(run.lowering_path.read_text(encoding="utf-8"))
    identity = {"provider": state.provider, "run": run.id, "model": tuned.id, **backend.identity(lowering)}
    return Model(tuned.id, state.provider, tuned.base, identity, lambda _: backend.sampler(lowering, tuned, run.path))


def _checkpoint(run: Run, tuned: TunedModel, step: int) -> str:
    """A checkpoint's folder or name: both end in its step."""
    steps = providers.load(tuned.provider).checkpoints(tuned, run.path)
    if step not in steps:
        there = ", ".join(str(step_number) for step_number in sorted(steps)) or "none"
        raise UsageError(f"{run.id} has no checkpoint of step {step}.", hint=f"Its checkpoints: {there}.")
    return steps[step]


def _endpoint(requested: RequestedCandidate) -> Model:
    from ftbridge.providers.openai.sampling.sampler import endpoint_sampler

    endpoint_sampler(requested.target, requested.model).close()  # an address that is none is told now
    identity = {"provider": "endpoint", "address": requested.target, "model": requested.model}
    label = f"{requested.target}#{requested.model}"
    return Model(
        label,
        requested.target,
        requested.model,
        identity,
        lambda _: endpoint_sampler(requested.target, requested.model),
    )


def _path_or_name(requested: RequestedCandidate) -> str:
    return (
        str(Path(requested.target).resolve())
        if requested.kind == "local" and Path(requested.target).exists()
        else requested.target
    )


def _complete(
    engine: EvaluationEngine, model: Model, candidate: Candidate, options: EvaluationOptions, progress: Progress | None
) -> tuple[list[Prediction], float | None]:
    """The candidate's completions, and the perplexity of the references where it is measured. Only what is missing is done."""
    folder, identity = _folder(model, engine.spec)
    paths = CandidateFiles(folder / "answers.jsonl", folder / "perplexity.json")
    can_score = _scores(model, engine.spec)
    with _alone(folder, candidate.name):
        if options.fresh:
            paths.completions.unlink(missing_ok=True)
        files.write_json(folder / "model.json", identity)
        sampler = model.open(folder)
        try:
            predictions = engine.complete(
                candidate,
                sampler,
                paths,
                can_score=can_score,
                on_progress=(lambda done, total: progress(candidate.name, done, total)) if progress else None,
            )
        finally:
            sampler.close()
        is_measured = can_score and engine.has_perplexity(candidate)
        return predictions, engine.perplexity_of(paths) if is_measured else None


def _folder(model: Model, spec: JobSpec) -> tuple[Path, dict[str, Any]]:
    """Where a model's answers are kept, and what they depend on beside the prompt."""
    identity = {**model.identity, "max_completion_tokens": spec.evaluation.max_completion_tokens}
    folder = files.home() / "answers" / files.sha256_bytes(json.dumps(identity, sort_keys=True).encode())[:16]
    files.make_folder(folder)
    return folder, identity


def _place_of(model: Model, spec: JobSpec) -> CompletionSource:
    """Where a model's completions come from; an endpoint is not a provider, and renders prompts as only it knows."""
    provider = providers.find(model.provider)
    return CompletionSource(model.provider, model.base, provider is None or provider.capabilities(spec).hosted)


def _scores(model: Model, spec: JobSpec) -> bool:
    """Whether the model's provider computes the likelihood of given completions; an endpoint does not."""
    provider = providers.find(model.provider)
    return provider is not None and provider.capabilities(spec).score


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusy(
            f"another process is already generating completions with the model of {name}.",
            hint="Wait until it is done.",
        ) from None
    try:
        yield
    finally:
        lock.release()
