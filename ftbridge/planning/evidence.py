"""Evidence for advice, from runs on this machine: what was measured on the same test items, and how a run's losses went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ftbridge.evaluation.results import read_evaluation
from ftbridge.files import sha256_file
from ftbridge.planning.advice import Advice, MeasuredRun
from ftbridge.runs.metrics import Point, curves
from ftbridge.runs.run import Run

_MOST_RUNS = 20
_RISE = 0.02
"""Nats that validation loss must rise above its lowest before it is called overfitting; less is noise."""
_FALL = 0.01
"""Nats that validation loss must still fall by in the last validation before more epochs are advised."""


def measured_on(test: Path, runs: Iterable[Run]) -> tuple[MeasuredRun, ...]:
    """What the newest runs measured on the same bytes of test data."""
    if not test.exists():
        return ()
    digest, measurements = sha256_file(test), []
    for run, _ in zip(runs, range(_MOST_RUNS), strict=False):
        try:
            held = run.state().split("test")
            if held is None or held.sha256 != digest:
                continue
            evaluation = read_evaluation(run)
        except Exception:  # a run that cannot be read is no evidence
            continue
        for candidate, by in evaluation.candidates.items() if evaluation else ():
            usage = evaluation.answered.get(candidate) if evaluation else None
            score = sum(score.mean for score in by.values()) / len(by)
            p95 = usage.p95_seconds if usage is not None else None
            measurements.append(MeasuredRun(run.id, candidate, score, p95))
    return tuple(measurements)


def advise_after(run: Run) -> list[Advice]:
    """What a finished run's losses say: overfitting, underfitting, or nothing."""
    return losses_advice(*curves(run.journal.read(), "train_loss", "valid_loss"))


def losses_advice(train: Sequence[Point], valid: Sequence[Point]) -> list[Advice]:
    """Advice from losses by step, in nats per trained token. Pure."""
    rule = "Prechelt 1998, Early Stopping - But When?"
    if len(valid) >= 2:
        best_step, best = min(valid, key=lambda point: point[1])
        last_step, last = valid[-1]
        evidence = f"validation loss {best:.3f} at step {best_step}, {last:.3f} at step {last_step}"
        if last > best + _RISE:
            text = (
                "The model overfits: validation loss rose again. Use fewer epochs or local.early_stopping; the best "
                "weights are kept."
            )
            return [Advice(id="overfitting", level="advice", text=text, evidence=evidence, rule=rule)]
        if best_step == last_step and valid[-2][1] - last > _FALL:
            text = "The model still learns: validation loss fell until the end. More epochs may give more."
            evidence = f"validation loss {valid[-2][1]:.3f}, then {last:.3f}"
            return [Advice(id="underfitting", level="advice", text=text, evidence=evidence, rule=rule)]
    if len(train) >= 10:
        quarter = max(1, len(train) // 4)
        first, last = (sum(loss for _, loss in part) / len(part) for part in (train[:quarter], train[-quarter:]))
        if last > 0.97 * first:
            text = (
                "Training loss hardly fell. Try a higher learning rate or more epochs; or the model already knew "
                "this data."
            )
            evidence = f"training loss {first:.3f} in the first quarter, {last:.3f} in the last"
            return [Advice(id="nothing-learnt", level="advice", text=text, evidence=evidence, rule="common practice")]
    return []
