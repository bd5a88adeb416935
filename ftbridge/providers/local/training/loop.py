"""The training loop, in plain sight: steps, micro-batches, validation, checkpoints, early stopping.

    for each step:   look at the control file · cut the batch · sum losses, of replay too · clip · update · report
    now and then:    validate, save a checkpoint, keep the best, stop when it no longer falls

Several workers run the same loop over the same batches: each computes the micro-batches that it is dealt, sums are added up
over all of them, and what depends on a clock, a file or one worker's memory is agreed (`parallel.py`).

What a batch holds and what its loss is belongs to an `Objective` (`objective.py`); the loop is the same for every method.

A run killed at any instant goes on from its last whole checkpoint and ends as an undisturbed one would: data order,
dropout and schedule depend on (seed, step) alone, never on what ran before in the process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch.distributed.tensor import DTensor

from ftbridge.errors import OutOfMemory, TrainingFailed
from ftbridge.providers.local.data.batches import Unit, evaluation_steps, steps_of_epoch
from ftbridge.providers.local.models.device import Device, is_out_of_memory
from ftbridge.providers.local.models.parts import recompute_activations, recomputes_activations
from ftbridge.providers.local.models.threads import Threads
from ftbridge.providers.local.process.activity import ACTIVITY
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import checkpoint
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.objective import LOSS, SUPERVISED, Collected, Objective, StepSource, measure
from ftbridge.providers.local.training.optim import learning_rate
from ftbridge.providers.local.training.parallel import ALONE, Parallel
from ftbridge.providers.local.training.replay import NOTHING, Replay, ReplayedStep

TRIM_EVERY = 8
"""Steps after which a CPU run returns freed memory. After each step it costs a tenth of the speed; never, and resident
memory grows by about 30 MB a step on the example."""
BEST = 3
"""Checkpoints that are kept for their validation score: OpenAI keeps as many."""
Ending = Literal["finished", "pause", "cancel"]


class Reporter(Protocol):
    """Where training says what happens."""

    def message(self, text: str, level: str = "info") -> None:
        """A sentence for people."""
        ...

    def metrics(self, **figures: float | int | str | None) -> None:
        """One step's figures, in the names of `ftbridge.providers.base.Metrics`."""
        ...

    def checkpoint(self, path: Path, step: int) -> None:
        """A checkpoint is whole."""
        ...


@dataclass
class Trainer:
    """Everything a step needs. `passes` may shrink when memory runs out; nothing else changes."""

    forward: Forward
    optimizer: torch.optim.Optimizer
    scaler: Any
    request: LocalRequest
    device: Device
    train: Sequence[Unit]
    validation: Sequence[Unit]
    folder: Path
    max_tokens_per_microbatch: int
    reporter: Reporter
    requested: Callable[[], Literal["pause", "cancel"] | None]
    objective: Objective = SUPERVISED
    source: StepSource | None = None
    replay: Replay | None = None
    threads: Threads = field(default_factory=Threads)
    parallel: Parallel = ALONE

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates in one pass over the data."""
        return math.ceil(len(self.train) / self.request.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer updates in the whole job."""
        return self.steps_per_epoch * self.request.n_epochs


def train(trainer: Trainer, state: TrainingState) -> tuple[Ending, TrainingState]:
    """Run from `state` to the end, or to the next pause or cancel request. Returns how it ended, and the state then.

    Raises `OutOfMemory`, `DiskFull`, or `TrainingFailed` when the loss stops being a number.
    """
    total, parallel = trainer.total_steps, trainer.parallel
    validate_after = _validation_steps(trainer)
    began, before = time.monotonic(), state.seconds
    saved_at, clock = state.step, time.monotonic()
    epoch_steps: list[list[int]] = []
    first = state.step
    while state.step < total and not state.stopped_early:
        if (request := parallel.from_main(trainer.requested)) is not None:
            if request == "pause" and saved_at != state.step:
                _save(trainer, state)
            return request, state
        step, (epoch, within) = state.step + 1, divmod(state.step, trainer.steps_per_epoch)
        if not epoch_steps or within == 0:
            epoch_steps = steps_of_epoch(len(trainer.train), trainer.request.batch_size, trainer.request.seed, epoch)
        batch = [trainer.train[index] for index in epoch_steps[within]]
        try:
            collected = Collected(batch) if trainer.source is None else trainer.source.collect(batch, step)
        except Exception:  # the source stops the job before this step: it goes on from the steps that are done
            if saved_at != state.step:
                _save(trainer, state)
            raise
        seen = epoch * len(trainer.train) + within * trainer.request.batch_size
        replayed = trainer.replay.of_step(seen, len(batch)) if trainer.replay is not None else NOTHING
        figures = _step(trainer, collected, step, replayed)
        seconds, late = parallel.from_main(partial(_clocks, trainer, began - before, clock))
        state = state.model_copy(
            update={
                "step": step,
                "trained_tokens": state.trained_tokens + int(figures.pop("trained_tokens")),
                "seconds": seconds,
                "tokens_per_pass": trainer.max_tokens_per_microbatch,
            }
        )
        due = step in validate_after or step == total
        if due and trainer.validation:
            state, measured = _validate(trainer, state) if trainer.source is None else _score(trainer, state)
            figures |= measured
        if trainer.device.kind == "cpu" and step % TRIM_EVERY == 0:
            trainer.device.empty_cache()
        left = (total - step) * (time.monotonic() - began) / (step - first)
        trainer.reporter.metrics(
            step=step,
            total_steps=total,
            trained_tokens=state.trained_tokens,
            device=trainer.device.kind,
            memory_gb=trainer.device.peak_gb(),
            seconds_left=left,
            **figures,
        )
        if due or late or state.stopped_early:
            _save(trainer, state)
            saved_at, clock = step, time.monotonic()
    return "finished", state


def _clocks(trainer: Trainer, began: float, saved: float) -> tuple[float, bool]:
    """Seconds since training began, and whether the last checkpoint is as old as it may become."""
    now = time.monotonic()
    return now - began, now - saved > 60 * trainer.request.checkpoint_minutes


def _validation_steps(trainer: Trainer) -> set[int]:
    if trainer.source is not None:
        return trainer.source.validation_steps(trainer.total_steps)
    return evaluation_steps(trainer.steps_per_epoch, trainer.request.n_epochs, trainer.request.evals_per_epoch)


def _step(trainer: Trainer, collected: Collected, step: int, replayed: ReplayedStep) -> dict[str, float]:
    """One optimizer update; when memory runs out, again with smaller passes. Nothing to learn from changes no weight."""
    batch = collected.units
    if not batch:
        return {**collected.figures, "trained_tokens": 0}
    while (update := _update(trainer, batch, step, replayed)) is None:
        pass
    if collected.tokens:
        update["tokens_per_second"] = collected.tokens / (collected.seconds + update["training_duration"])
    return {**update, **collected.figures}


def _shrink(trainer: Trainer, batch: Sequence[Unit], error: str) -> None:
    """Halve the pass, then recompute activations, then give up."""
    longest = max(len(example) for example in batch)
    model = trainer.forward.model
    size = trainer.parallel.budget(batch, trainer.max_tokens_per_microbatch)
    if size > longest:
        trainer.max_tokens_per_microbatch = max(longest, size // 2)
        trainer.reporter.message(
            f"memory ran out; micro-batches are reduced to {trainer.max_tokens_per_microbatch:,} tokens", "warn"
        )
    elif not recomputes_activations(model):
        recompute_activations(model)
        trainer.reporter.message("memory ran out; activations are recomputed from now on", "warn")
    else:
        raise OutOfMemory(
            f"memory ran out on {trainer.objective.unit} of {longest:,} tokens, alone in its micro-batch ({error}).",
            hint="Lower local.max_length, set local.quantization: nf4, lower local.lora.r, or use a smaller base model.",
        )


def _update(
    trainer: Trainer, batch: Sequence[Unit], step: int, replayed: ReplayedStep = NOTHING
) -> dict[str, float] | None:
    """One optimizer update; None when memory ran out on any worker, and micro-batches are smaller from now on."""
    began = time.monotonic()
    objective, parallel = trainer.objective, trainer.parallel
    rate = learning_rate(trainer.request, step, trainer.total_steps)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    seed = trainer.request.seed * 1_000_003 + step * 1_009
    sums, error = _accumulate(trainer, objective, batch, 1 - replayed.share, seed)
    replay_sums: dict[str, float] = {}
    if replayed.examples and error is None:
        replay_sums, error = _accumulate(trainer, SUPERVISED, replayed.examples, replayed.share, seed + 500)
    if (short := next(filter(None, parallel.everyone(error)), None)) is not None:
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.device.empty_cache()
        _shrink(trainer, [*batch, *replayed.examples], short)
        return None
    sums, replay_sums = parallel.add(sums), parallel.add(replay_sums)
    parameters = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    parallel.add_gradients(parameters)
    trainer.scaler.unscale_(trainer.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters, trainer.request.max_grad_norm)
    figures = objective.figures(sums.pop(LOSS), sums, batch)
    replay_figures = {}
    if replayed.examples:
        replay_figures["replay_loss"] = replay_sums[LOSS] / SUPERVISED.size(replayed.examples)
    if not math.isfinite(figures["loss"]):
        raise TrainingFailed(
            f"the loss of step {step} is {figures['loss']}, not a number; training cannot continue.",
            hint="Lower hyperparameters.learning_rate_multiplier, or set local.precision: fp32.",
        )
    if step == 1:
        objective.check(trainer.forward, figures)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    trainer.optimizer.zero_grad(set_to_none=True)
    tokens, seconds = sum(len(unit) for unit in (*batch, *replayed.examples)), time.monotonic() - began
    if trainer.source is not None:  # its loss is made for its gradient: the value says nothing
        figures = {name: value for name, value in figures.items() if name != "loss"}
    return {
        **{f"train_{name}": value for name, value in (figures | replay_figures).items()},
        "learning_rate": rate,
        "gradient_norm": float(norm.full_tensor() if isinstance(norm, DTensor) else norm),
        "tokens_per_second": tokens / seconds,
        **({"workers": trainer.parallel.world} if trainer.parallel.world > 1 else {}),
        **({} if trainer.source is None else {"training_duration": seconds}),
        "trained_tokens": sum(unit.num_loss_tokens for unit in batch),
    }


def _accumulate(
    trainer: Trainer, objective: Objective, units: Sequence[Any], weight: float, seed: int
) -> tuple[dict[str, float], str | None]:
    """Add the gradient of `weight` times the mean loss of this worker's micro-batches of `units`, whose dropout follows from
    `seed`; the sums of the objective, and how memory ran out, if it did.

    Where weights are gathered on the way the others wait in the middle of it, so nothing can be done again: that is raised.
    """
    loss = torch.zeros((), device=trainer.device.torch)
    more: dict[str, torch.Tensor] = {}
    parts = objective.cut(trainer.forward, units, trainer.parallel.budget(units, trainer.max_tokens_per_microbatch))
    size = objective.size(units) / weight
    try:
        for turn in trainer.parallel.deal(parts):
            if trainer.device.kind == "cpu":
                trainer.threads.use()
            sums = objective.sums(trainer.forward, turn.part, seed=(seed + turn.number) % (1 << 31))
            trainer.scaler.scale(sums.loss * 0.0 if turn.idle else sums.loss / size).backward()
            if turn.idle:
                continue
            loss += sums.loss.detach()
            for name, value in sums.more.items():
                more[name] = more[name] + value if name in more else value
    except (RuntimeError, MemoryError) as error:
        if trainer.parallel.sharded or not is_out_of_memory(error):
            raise
        return {}, str(error).splitlines()[0] if str(error) else type(error).__name__
    return {LOSS: float(loss), **{name: float(value) for name, value in more.items()}}, None


def _validate(trainer: Trainer, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
    """Measure the validation loss: the lowest decides which weights are saved, `min_delta` only when to stop."""
    loss, figures = evaluate(trainer)
    level = state.best_valid_loss if state.patience_loss is None else state.patience_loss
    if state.best_valid_loss is None or loss < state.best_valid_loss:
        state = state.model_copy(update={"best_valid_loss": loss, "best_step": state.step})
    lowest = f"lowest {state.best_valid_loss:.4f} at step {state.best_step}"
    return _patient(trainer, state, loss, level, f"loss has not fallen{{}} for {{}} validations ({lowest})"), figures


def _score(trainer: Trainer, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
    """Measure the validation score: the highest decides which weights are saved, the three highest which checkpoints stay."""
    assert trainer.source is not None
    measured = trainer.source.validate(state.step)
    best = sorted([*state.best_scores, (state.step, measured.score)], key=lambda one: (-one[1], one[0]))[:BEST]
    state = state.model_copy(update={"best_scores": tuple(best), "best_step": best[0][0]})
    level = state.patience_loss
    highest = f"highest {best[0][1]:.4f} at step {best[0][0]}"
    text = f"score has not risen{{}} for {{}} validations ({highest})"
    return _patient(trainer, state, -measured.score, level, text), measured.figures


def _patient(trainer: Trainer, state: TrainingState, value: float, level: float | None, text: str) -> TrainingState:
    """The state with one more validation counted; `value` is better the lower it is, `level` is the last that counted."""
    patience, min_delta = trainer.request.patience, trainer.request.min_delta
    if level is None or value < level - min_delta:
        state = state.model_copy(update={"patience_loss": value, "bad_validations": 0})
    else:
        state = state.model_copy(update={"bad_validations": state.bad_validations + 1})
    if patience is not None and state.bad_validations >= patience:
        state = state.model_copy(update={"stopped_early": True})
        enough = f" by more than min_delta {min_delta:g}" if min_delta else ""
        trainer.reporter.message(f"stopped early at step {state.step}: validation {text.format(enough, patience)}")
    return state


def evaluate(trainer: Trainer) -> tuple[float, dict[str, float]]:
    """The validation loss, and every figure of the objective over the validation data as `valid_NAME`."""
    figures = measure(
        trainer.objective, trainer.forward, trainer.validation, trainer.max_tokens_per_microbatch, trainer.parallel
    )
    return figures["loss"], {f"valid_{name}": value for name, value in figures.items()}


def _save(trainer: Trainer, state: TrainingState) -> None:
    parallel, model = trainer.parallel, trainer.forward.model
    with ACTIVITY.outside():
        path = checkpoint.save(trainer.folder, model, trainer.optimizer, trainer.scaler, state, parallel)
    trainer.reporter.checkpoint(path, state.step)
    best = [state.best_step, *(step for step, _ in state.best_scores)]
    parallel.from_main(partial(checkpoint.prune, trainer.folder, trainer.request.keep_checkpoints, best))
