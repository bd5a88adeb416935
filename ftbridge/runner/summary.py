"""What a run looks like from outside: the documents that commands print. Reading never changes a run."""

from __future__ import annotations

from typing import Any

from ftbridge import providers
from ftbridge.errors import UsageError
from ftbridge.evaluation.results import read_evaluation
from ftbridge.evaluation.spending import spent
from ftbridge.runs.run import Run
from ftbridge.spec.lowering import Lowering

__all__ = ["brief", "lowering_of", "preview_tokens", "read_evaluation", "read_lowering", "summary"]


def summary(run: Run) -> dict[str, Any]:
    """What `run --json` prints: the outside contract of a run."""
    state = run.state()
    evaluation = read_evaluation(run)
    spec, lowering = run.spec(), lowering_of(run)
    return {
        "run_id": run.id,
        "provider": state.provider,
        "state": state.state,
        "model": {
            "base": providers.base_model(state.provider, spec),
            "tuned": state.tuned.id if state.tuned else None,
        },
        "data": {
            name: {"examples": split.examples, "tokens": split.tokens, "sha256": split.sha256}
            for name, split in (state.data.splits.items() if state.data is not None else ())
        },
        "evaluation": evaluation.model_dump(mode="json") if evaluation else None,
        "error": state.error,
        "continues": state.continues.model_dump() if state.continues else None,
        "continued_by": state.continued_by,
        "metrics": state.metrics.by_name() if state.metrics is not None else {},
        "chosen": state.chosen,
        "spent": _spent(run),
        "lowering": {report.field: report.outcome for report in lowering.fields} if lowering else None,
        "path": str(run.path),
    }


def _spent(run: Run) -> dict[str, Any]:
    spending = spent(run)
    return {
        **spending.model_dump(mode="json"),
        "usd": {**spending.usd.model_dump(mode="json"), "total": spending.usd.total},
    }


def brief(run: Run) -> dict[str, Any]:
    """One line of `list --json`."""
    state = run.state()
    return {
        "run_id": run.id,
        "name": state.name,
        "provider": state.provider,
        "state": state.state,
        "stage": state.stage,
        "metrics": state.metrics.by_name() if state.metrics is not None else {},
        "path": str(run.path),
    }


def read_lowering(run: Run) -> Lowering:
    """The outcome of each spec field. Raises `UsageError` when the run never got so far."""
    lowering = lowering_of(run)
    if lowering is None:
        raise UsageError(f"{run.id} was stopped before its spec was mapped to the provider.")
    return lowering


def preview_tokens(run: Run, count: int) -> list[list[tuple[str, bool]]]:
    """Training examples as pieces of text with whether each is trained, as the run's provider shows them."""
    return providers.load(run.state().provider).preview(read_lowering(run), run.data / "train.jsonl", count)


def lowering_of(run: Run) -> Lowering | None:
    return run.field_mapping()
