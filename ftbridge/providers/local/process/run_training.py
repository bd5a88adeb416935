"""One local job from request to tuned weights: find the model, encode, load, prove, train, save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ftbridge.data.manifest import load_manifest
from ftbridge.errors import ModelUnavailable
from ftbridge.files import require_room
from ftbridge.providers.local.data.batches import Encoded, Unit
from ftbridge.providers.local.data.encoded import EncodedSplit, encode_once
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.defaults import width_factor
from ftbridge.providers.local.export.adapter import save_tuned
from ftbridge.providers.local.models import architecture, load
from ftbridge.providers.local.models.device import Device, pick
from ftbridge.providers.local.models.find import LocalModel, check_model, find_model
from ftbridge.providers.local.process.activity import ACTIVITY
from ftbridge.providers.local.process.job import Job, JobInterrupted
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import checkpoint
from ftbridge.providers.local.training.build import BuildInputs, Built, build
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.loop import Reporter, Trainer, train
from ftbridge.providers.local.training.methods import METHODS, Setting
from ftbridge.providers.local.training.optim import optimizer_for
from ftbridge.providers.local.training.parallel import ALONE, Parallel
from ftbridge.providers.local.training.replay import EncodedReplay, Replay, encode_replay


@dataclass(frozen=True)
class PreparedJob:
    """What the preparation of a job found: the model, its tokenizer, and the data as tokens."""

    base: LocalModel
    tokenizer: Any
    request: LocalRequest
    train: EncodedSplit[Any]
    validation: EncodedSplit[Any] | None
    notes: tuple[str, ...]
    replay: tuple[Encoded, ...] = ()


def make_ready(
    request: LocalRequest,
    train_path: Path,
    validation_path: Path | None,
    progress: Any,
    encoded: Path | None = None,
    replay_path: Path | None = None,
) -> PreparedJob:
    """Find the model, look at its architecture, and render the data, without loading weights.

    `encoded` is the folder in which tokens are kept for the next process (`data.encoded`). Raises `ModelUnavailable`, or
    `DataError` naming lines. `progress(text, share)` hears what takes time.
    """
    base = find_model(request.model, progress=progress, trust_remote_code=request.trust_remote_code)
    facts = check_model(base, trust_remote_code=request.trust_remote_code)
    if request.continue_from is not None:
        load.require_adapter(Path(request.continue_from))
    notes = [f"{base.name}: {note}" for note in architecture.examine(base.path, request)]
    if request.rate_by_width:
        rate = request.learning_rate * width_factor(facts.hidden_size, facts.model_type)
        request = request.model_copy(update={"learning_rate": rate, "rate_by_width": False})
    if facts.max_positions and facts.max_positions < request.max_length:
        notes.append(
            f"local.max_length is lowered to {facts.max_positions:,}, the largest number of positions of this model"
        )
        request = request.model_copy(update={"max_length": facts.max_positions})
    tokenizer = load.load_tokenizer(base.path, trust_remote_code=request.trust_remote_code)
    try:
        renderer = Renderer(tokenizer, request.thinking)
    except RenderError as error:
        raise ModelUnavailable(f"{base.name} cannot be used: {error}.") from error
    paths = {"train": train_path, **({"validation": validation_path} if validation_path is not None else {})}
    splits = encode_once(METHODS[request.method], paths, renderer, request, base.path, encoded)
    for name, split in splits.items():
        for verb, lines in (("cut to local.max_length", split.cut), ("dropped", split.dropped)):
            if lines:
                more = " …" if len(lines) > 5 else ""
                notes.append(f"{len(lines)} {name} examples were {verb}: {', '.join(lines[:5])}{more}")
        notes += split.notes
    replay = EncodedReplay(())
    if replay_path is not None:
        replay = encode_replay(replay_path, renderer, request.max_length)
        notes += replay.notes
    notes += renderer.notes
    return PreparedJob(
        base, tokenizer, request, splits["train"], splits.get("validation"), tuple(notes), replay.examples
    )


def run_training(
    job: Job, reporter: Reporter, parallel: Parallel = ALONE
) -> Literal["succeeded", "paused", "cancelled"]:
    """Train the job, from its newest whole checkpoint if it has one. Several workers call this together."""
    submission = job.submission()
    stage = job.stage if parallel.is_main else lambda _: None
    stage("preparing data")
    files = submission.train, submission.validation
    prepare = partial(make_ready, job.request(), *files, lambda *_: None, job.encoded, submission.replay)
    with ACTIVITY.outside():  # a download, or another process that encodes the same data
        ready = parallel.first_on_main(prepare)
    request = ready.request
    device = pick(request.device, request.precision)
    for note in ready.notes:
        reporter.message(note, "warn")
    validation = ready.validation.examples if ready.validation else ()
    stage("loading model")
    try:
        trainer, state = _trainer(job, ready, device, ready.train.examples, validation, reporter, parallel)
        stage("training")
        ending, state = train(trainer, state)
    except JobInterrupted as interruption:
        return "paused" if interruption.request == "pause" else "cancelled"
    if ending != "finished":
        return "paused" if ending == "pause" else "cancelled"
    stage("saving")
    parallel = trainer.parallel
    with ACTIVITY.outside():
        _keep_best(job.folder / "checkpoints", trainer.forward.model, state, reporter, parallel)
    manifest = load_manifest(submission.train.parent)
    figures = {"train examples": len(ready.train.examples), "train SHA-256": manifest.splits["train"].sha256}
    folder, model = job.folder / ("adapter" if request.tuning == "lora" else "model"), trainer.forward.model
    with ACTIVITY.outside():
        save_tuned(folder, model, ready.tokenizer, ready.base, request, state, figures, parallel)
    return "succeeded"


def _trainer(
    job: Job,
    ready: PreparedJob,
    device: Device,
    train_set: Sequence[Unit],
    validation: Sequence[Unit],
    reporter: Reporter,
    parallel: Parallel,
) -> tuple[Trainer, TrainingState]:
    request, method = ready.request, METHODS[ready.request.method]
    longest = max(len(example) for example in [*train_set, *validation, *ready.replay])
    examples = method.examples(train_set)
    say, quiet = reporter.message, method.quiet
    rows = method.rows(train_set, request) if request.packing else 1.0
    with ACTIVITY.outside():  # weights may come over a network
        built = build(BuildInputs(ready.base.path, request, device, parallel, examples, longest, say, quiet, rows))
    forward, model, passes, parallel = built.forward, built.forward.model, built.passes, built.parallel
    folder = job.folder / "checkpoints"
    folder.mkdir(exist_ok=True)
    newest = parallel.from_main(partial(checkpoint.latest, folder))
    shardable = parallel.sharded or (newest is not None and checkpoint.has_shards(newest[0]))
    optimizer = optimizer_for(model.parameters(), request, device, shardable=shardable)
    scaler = torch.amp.GradScaler(device.kind, enabled=device.compute == torch.float16)
    state = TrainingState()
    begun, requested, tokenizer = newest is not None, job.requested, ready.tokenizer
    setting = Setting(
        request, ready.base, tokenizer, forward, job.folder, passes.tokens, begun, reporter, requested, parallel
    )
    objective, train_set, validation, source = method.ready(setting, train_set, validation)
    if newest is not None:
        path, state = newest
        with ACTIVITY.outside():
            checkpoint.restore(path, model, optimizer, scaler, parallel)
        reporter.message(f"resumed from step {state.step}")
    tokens = state.tokens_per_pass or passes.tokens
    parallel.from_main(partial(_require_room, folder, model, request))
    trainer = Trainer(
        forward,
        optimizer,
        scaler,
        request,
        device,
        train_set,
        validation,
        folder,
        tokens,
        reporter,
        job.requested,
        objective,
        source,
        parallel=parallel,
        replay=Replay(ready.replay, request.replay_share, request.seed) if ready.replay else None,
    )
    if state.step == 0:
        reporter.message(_described(trainer, ready, built))
    return trainer, state


def _described(trainer: Trainer, ready: PreparedJob, built: Built) -> str:
    """What is about to be trained, on what, in how many steps, for people."""
    request, parallel, forward = trainer.request, trainer.parallel, trainer.forward
    several = f"{parallel.world} workers, each with {_share(parallel)} and " if parallel.world > 1 else ""
    return (
        f"{ready.base.name} from {ready.base.source} on {several}{trainer.device.describe()}: {request.quantization} weights, "
        f"{_trainable(forward.model):,} trained parameters, {trainer.total_steps} steps of {request.batch_size} "
        f"{trainer.objective.unit.split()[-1]}s, {forward.way} micro-batches of up to "
        f"{trainer.max_tokens_per_microbatch:,} tokens"
        f"{', a 16-bit copy of the weights' if built.copied else ''}"
    )


def _trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _share(parallel: Parallel) -> str:
    return f"1/{parallel.world} of the model (fsdp2)" if parallel.sharded else "the whole model (ddp)"


def _require_room(folder: Path, model: Any, request: LocalRequest) -> None:
    """Room for the checkpoints that are kept, one being written, and the result: weights, and two moments each."""
    require_room(folder, (request.keep_checkpoints + 3) * _trainable(model) * 12, "Training (its checkpoints)")


def _keep_best(folder: Path, model: Any, state: TrainingState, reporter: Reporter, parallel: Parallel = ALONE) -> None:
    """Load the weights of the best validation, where there is one and it is not the last step."""
    if state.best_step is None or state.best_step == state.step:
        return
    path = folder / f"step-{state.best_step:06d}"
    if parallel.from_main(partial(checkpoint.is_complete, path)):
        checkpoint.load_weights(path, model, parallel)
        why = "the highest validation reward" if state.best_scores else "the lowest validation loss"
        reporter.message(f"kept the weights of step {state.best_step}, {why}")
    else:
        reporter.message(f"the best checkpoint (step {state.best_step}) is damaged; the last weights are kept", "warn")
