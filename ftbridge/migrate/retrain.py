"""Training a replacement for a tuned model elsewhere: `ftbridge migrate retrain MODEL --base LOCAL_MODEL`.

    model ─▶ its chain of jobs, oldest first ─▶ their files ─▶ JobSpec, every field reported ─▶ lint, plan, run
                                                  │ gone: a stand-in of yours
                                                  └ with `distil`: half of the recorded completions too

The run is named by what it is made of: model, base, provider, data and settings. Called again, the same run is gone on with, so
that a command that was killed neither trains nor pays twice.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from ftbridge import files, providers
from ftbridge.data.tokens import count_texts, example_texts
from ftbridge.errors import UsageError
from ftbridge.migrate.account import Inventory, TunedModel
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.items import RecordedItem
from ftbridge.migrate.loading import load_inventory, local_file
from ftbridge.migrate.objects import Job
from ftbridge.migrate.record import find_model
from ftbridge.migrate.recording import GREEDY, Recording, Sample
from ftbridge.runner import control, drive
from ftbridge.runner.fallback import last_of
from ftbridge.runner.observer import NullObserver, Observer
from ftbridge.runner.start import create_run
from ftbridge.runs import store
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec import load as load_spec
from ftbridge.spec.from_openai import fields_after, spec_from_job
from ftbridge.spec.job_object import JobField, unknown_fields

TERMS = (
    "Recorded completions become training data. The service's terms may not allow its output to train other models: read them, "
    "or ask somebody who has, before you use the result."
)
_NOT_HOSTED = "reported by the service itself; `ftbridge track RUN --to wandb` sends this run's metrics"
_SAME_TOKENS = 0.1
"""Share by which counted tokens may differ from those that the job was billed for before that is said."""
_COUNTED_BYTES = 50_000_000
"""Larger files are not counted for that note: it would take minutes."""
_WHOLE = frozenset({None, "stop", "tool_calls", "function_call"})
"""Reasons for which a completion ends that was not cut; None where a service gives no reason."""
_SUGGESTIONS = {"nano": "0.6B to 1.7B", "mini": "3B to 8B", "": "14B to 32B"}
"""Sizes of open models that are commonly put in place of a hosted one of that class; a suggestion, to be measured."""


class RetrainWish(BaseModel):
    """What to train. `stand_ins` are files of your own by job or file id, `overrides` changes of the spec as KEY=VALUE."""

    model_config = ConfigDict(frozen=True)

    model: str
    base: str | None = None
    provider: str = "local"
    distil: bool = False
    stand_ins: Mapping[str, Path] = {}
    overrides: tuple[str, ...] = ()
    graders: Path | None = None


@dataclass(frozen=True)
class RetrainPlan:
    """The spec of a replacement, its file in the migration, and what a reader should know."""

    model: str
    spec: JobSpec
    path: Path
    fields: list[JobField]
    notes: list[str]

    def draft(self) -> SpecFile:
        """What a run is made from."""
        return SpecFile.of(self.path)


def plan(migration: Migration, wish: RetrainWish) -> RetrainPlan:
    """Write the spec of a replacement into the migration's folder, and return it with its report.

    Raises `UsageError` for a model without a known job, without a base, and when training data is neither here nor replaced;
    `SpecError` for overrides that make no valid spec.
    """
    inventory = load_inventory(migration)
    name, model = find_model(inventory, wish.model)
    if wish.base is None:
        raise UsageError(f"no base model is named for {name}.", hint=f"--base MODEL; {suggestion(model.base)}")
    jobs = _chain(inventory, model)
    last = jobs[-1]
    stage = [job for job in jobs if job.method == last.method]
    notes = [_stages(jobs)] if len(stage) < len(jobs) else []
    train = [_content(migration, job, wish.stand_ins) for job in stage]
    notes += [note for job, path in zip(stage, train, strict=True) if (note := _tokens_note(job, path))]
    validation = local_file(migration, last.validation_file) if last.validation_file else None
    folder = migration.folder("retrain", name)
    if wish.distil:
        distilled = _distilled(migration, name, last, folder)
        train.append(distilled[0])
        notes += [distilled[1], TERMS]
    hosted = _is_hosted(wish.provider, wish.base)
    job_spec = spec_from_job(
        last.raw,
        train=[str(path) for path in train] if len(train) > 1 else str(train[0]),
        validation=str(validation) if validation is not None else None,
        local=None if hosted else _path_or_name(wish.base),
        hosted=wish.base if hosted else model.base,
        name="migrated",
        evaluation={"graders": _graders(wish.graders)} if wish.graders is not None else None,
    )
    document = job_spec.spec.model_dump(mode="json", exclude_unset=True)
    if not hosted and document.get("openai", {}).pop("integrations", None) and not document["openai"]:
        del document["openai"]
    spec = _named(document, name, wish, train)
    why = {} if hosted else {"openai.integrations": _NOT_HOSTED}
    fields = fields_after(job_spec.fields, job_spec.spec, spec, why=why)
    path = folder / f"{spec.name}.yaml"
    text = yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
    files.write_text(path, f"# A replacement for {name}, from {last.id}.\n{text}")
    files.write_json(path.with_suffix(".fields.json"), [entry.model_dump(mode="json") for entry in fields])
    if unknown := unknown_fields(fields):
        notes.append(f"The job has fields that this version does not know: {', '.join(unknown)}.")
    return RetrainPlan(model=name, spec=spec, path=path, fields=fields, notes=notes)


def start(
    migration: Migration, planned: RetrainPlan, wish: RetrainWish, *, lint: bool = True, allow: Sequence[str] = ()
) -> Run:
    """The run of a plan: the one that was made of the same parts before, else a new one. Nothing is trained yet.

    Raises what `create_run` does: `DataError` for data with errors, `LoweringRefused` for what the provider cannot do.
    """
    with migration.working(f"starting the replacement of {planned.model}"):
        run = find(planned.spec.name, wish.provider)
        if run is None:
            _remove_unfinished(planned.spec.name)
            migration.append("retraining", model=planned.model, name=planned.spec.name, provider=wish.provider)
            run = create_run(planned.draft(), wish.provider, allow=allow, lint=lint)
        if migration.last("retrained", run=run.id) is None:
            migration.append("retrained", model=planned.model, run=run.id, provider=wish.provider, base=wish.base)
    return run


def retrain(migration: Migration, wish: RetrainWish, watcher: Observer | None = None) -> Run:
    """Plan a replacement, train it to its end, and return its run; called again, the same run is gone on with.

    Raises what `plan`, `start` and the run raise.
    """
    run = start(migration, plan(migration, wish), wish)
    onward(run)(run, watcher or NullObserver())
    return last_of(run)


def onward(run: Run) -> drive.Go:
    """How a run is taken further: one that stopped is resumed, which pays for no other job."""
    state = run.state()
    stopped = state.state in ("failed", "cancelled", "paused", "succeeded") or state.error is not None
    return control.resume if stopped else drive.drive


def find(name: str, provider: str) -> Run | None:
    """The newest whole run of this name and provider, if there is one."""
    for run in store.runs(files.home()):
        state = run.state()
        if state.name == name and state.provider == provider and run.lowering_path.exists():
            return run
    return None


def _remove_unfinished(name: str) -> None:
    """Remove what processes left that were killed while they made this run: nothing was trained or paid there."""
    for run in store.runs(files.home()):
        if run.state().name == name and not run.lowering_path.exists() and not run.is_driven():
            shutil.rmtree(run.path, ignore_errors=True)


def suggestion(base: str) -> str:
    """What size of open model is commonly put in place of a hosted base, in words."""
    size = next(size for word, size in _SUGGESTIONS.items() if word in base)
    return f"in place of {base or 'a hosted model'}, open models of {size} parameters are a common start; the proof decides"


def _chain(inventory: Inventory, model: TunedModel) -> list[Job]:
    """The jobs that made a model, oldest first. Raises `UsageError` where the inventory holds none of them."""
    names = model.chain or ((model.job,) if model.job is not None else ())
    jobs = [job for name in names if (job := inventory.job(name)) is not None]
    if not jobs:
        raise UsageError(
            f"the job that made {model.id} is not in the inventory, so its data and settings are not known.",
            hint="Its key may be missing (ftbridge migrate inventory --key-env NAME); otherwise write your own job spec.",
        )
    if jobs[0].continues:
        raise UsageError(
            f"{jobs[0].id} continued {jobs[0].base}, and the job that made that is not in the inventory.",
            hint="Add the key of its project (ftbridge migrate inventory --key-env NAME), or name a file with what it was "
            f"trained on and this job's own: --file {jobs[0].id}=FILE.",
        )
    return jobs


def _stages(jobs: Sequence[Job]) -> str:
    kinds = ", ".join(f"{job.id} ({job.method})" for job in jobs)
    before = next(job for job in reversed(jobs) if job.method != jobs[-1].method)
    return (
        f"The model was trained by more than one method: {kinds}. This spec holds the last one, not the earlier stage. "
        f"Train that first: ftbridge migrate retrain {before.tuned} --base BASE; then ftbridge export RUN --format merged "
        "--out FOLDER; and name the folder here: --base FOLDER."
    )


def _content(migration: Migration, job: Job, stand_ins: Mapping[str, Path]) -> Path:
    """A job's training file on this machine. Raises `UsageError` that says what can stand in for one that is not here."""
    for key in (job.id, job.training_file):
        if key is not None and (path := stand_ins.get(key)) is not None:
            if not path.is_file():
                raise UsageError(f"--file {key}={path}: there is no such file.")
            return path.resolve()
    local_path = local_file(migration, job.training_file) if job.training_file else None
    if local_path is None:
        raise UsageError(
            f"the training file {job.training_file} of {job.id} has not been downloaded.",
            hint="Download it: ftbridge migrate download. If it is gone or refused, give a copy: --file "
            f"{job.training_file}=FILE; stored completions or recorded ones (--distil) can take its place.",
        )
    return local_path.resolve()


def _tokens_note(job: Job, path: Path) -> str | None:
    """A note where the file's tokens and the job's do not fit: then the file is another than the job's."""
    epochs = job.hyperparameters.get("n_epochs")
    if not job.trained_tokens or not isinstance(epochs, int) or path.stat().st_size > _COUNTED_BYTES:
        return None
    texts: list[str] = []
    fixed = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict):
                more, added = example_texts(document.get("messages") or (), document)
                fixed += more
                texts += added
    counted = (fixed + sum(count_texts(texts))) * epochs
    if abs(counted - job.trained_tokens) <= _SAME_TOKENS * job.trained_tokens or job.method != "supervised":
        return None
    return (
        f"{path.name} holds {counted:,} tokens in {epochs} epochs, and {job.id} was trained on {job.trained_tokens:,}: "
        "it may not be the file that the job was trained on."
    )


def _distilled(migration: Migration, model: str, job: Job, folder: Path) -> tuple[Path, str]:
    """A training file of recorded completions, and a note. Half of the items, so that the others can still prove something."""
    if job.method != "supervised":
        raise UsageError(f"--distil adds supervised lines, and {job.id} was trained by {job.method}.")
    recording = Recording.of(migration, model)
    lines: list[str] = []
    cut: Counter[str] = Counter()
    for item in recording.items if recording.begun else ():
        greedy = recording.samples.get((item.key, GREEDY))
        if greedy is None or greedy.outcome != "completion" or not is_distilled(item):
            continue
        if greedy.finish_reason in _WHOLE:
            lines.append(_line(item, greedy))
        else:
            cut[str(greedy.finish_reason)] += 1
    reasons = ", ".join(f"{reason} {count}" for reason, count in cut.most_common())
    if not lines:
        raise UsageError(
            f"no completions of {model} are recorded to distil from"
            f"{f' but ones that were cut off ({reasons})' if cut else ''}.",
            hint=f"ftbridge migrate record {model}",
        )
    path = folder / "distilled.jsonl"
    files.write_text(path, "".join(lines))
    rest = len(recording.items) - len(lines)
    note = f"{len(lines)} recorded completions are training data; the other {rest} items are left for the proof."
    if cut:
        note += f" Left out of training, since they were cut off: {cut.total()} ({reasons})."
    return path, note


def is_distilled(item: RecordedItem) -> bool:
    """Whether an item's completion may become training data: by its key, never one of the validation file."""
    return item.source != "validation" and int(item.key[-1], 16) % 2 == 0


def _line(item: RecordedItem, sample: Sample) -> str:
    completion: dict[str, Any] = {"role": "assistant", "content": sample.text}
    if sample.tool_calls:
        calls = [{"id": f"call_{index}", **call} for index, call in enumerate(sample.tool_calls)]
        completion = {"role": "assistant", "tool_calls": calls, **({"content": sample.text} if sample.text else {})}
    document: dict[str, Any] = {"messages": [*item.request["messages"], completion]}
    document |= {name: item.request[name] for name in ("tools", "parallel_tool_calls") if name in item.request}
    return json.dumps(document, ensure_ascii=False) + "\n"


def _is_hosted(provider: str, base: str) -> bool:
    """Whether a provider trains models of a service: then the base is the spec's `model.openai`, else `model.local`."""
    spec = JobSpec.from_dict({"name": "any", "data": {"train": "any"}, "model": {"openai": base, "local": base}})
    return providers.load(provider).capabilities(spec).hosted


def _path_or_name(base: str) -> str:
    """A local model by its absolute path, where it is one; else its name."""
    return str(Path(base).resolve()) if Path(base).exists() else base


def _graders(path: Path) -> list[Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as graders ({error}).") from None
    graders = document.get("graders", [document]) if isinstance(document, dict) else document
    if not isinstance(graders, list) or not graders:
        raise UsageError(f"{path} contains no graders.", hint="Write a list of grader objects, or {graders: [...]}.")
    return graders


def _named(document: dict[str, Any], model: str, wish: RetrainWish, train: Sequence[Path]) -> JobSpec:
    """The spec with the overrides, named by what it is made of, so that the same command finds its run again."""
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    with files.scratch_folder(files.home()) as scratch:
        (scratch / "spec.yaml").write_text(text, encoding="utf-8")
        spec = load_spec(scratch / "spec.yaml", wish.overrides)[0]
    parts = [model, wish.provider, spec.model_dump(mode="json"), *map(files.sha256_file, train)]
    digest = files.sha256_bytes(json.dumps(parts, sort_keys=True).encode())[:8]
    stem = (spec.suffix or "migrated").lower()
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in stem).strip("-")[:48]
    return spec.model_copy(update={"name": f"{plain or 'migrated'}-{digest}"})
