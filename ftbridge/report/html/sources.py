"""Where a run's figures come from: its spec, its data, its field mapping, and the losses on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ftbridge import providers
from ftbridge.data.manifest import Split, SplitName
from ftbridge.runs.curves import Point, curves
from ftbridge.runs.run import Run, RunState
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering


@dataclass(frozen=True)
class Curve:
    """Losses of one run: nats per loss token, or per pair where it was tuned by preferences."""

    label: str
    train: tuple[Point, ...]
    valid: tuple[Point, ...]
    by_pairs: bool = False


@dataclass(frozen=True)
class Source:
    """Where a run comes from, and how to reproduce it."""

    run: str
    state: RunState
    spec: JobSpec
    spec_name: str
    spec_text: str
    base: str
    splits: Mapping[SplitName, Split]
    data_notes: tuple[str, ...]
    lowering: Lowering | None
    settled: tuple[tuple[str, str, str], ...]
    version: str

    @property
    def changed_fields(self) -> list[FieldReport]:
        """Fields that the provider did not take as they were."""
        fields = self.lowering.fields if self.lowering else []
        return [field for field in fields if field.outcome in ("translated", "approximated", "refused")]


def curve_of(label: str, run: Run) -> Curve:
    """The losses in a run's journal."""
    train, valid = curves(run.journal.read(), "train_loss", "valid_loss")
    return Curve(label, train, valid, by_pairs=run.spec().method == "dpo")


def source_of(run: Run) -> Source:
    """What a run folder holds; a run that was stopped early has less."""
    state = run.state()
    spec = run.resolved_spec() if run.resolved_path.exists() else run.spec()
    lowering = None
    if run.lowering_path.exists():
        lowering = Lowering.model_validate_json(run.lowering_path.read_text(encoding="utf-8"))
    document = json.loads(run.resolved_path.read_text(encoding="utf-8")) if run.resolved_path.exists() else {}
    created = run.journal.read()[0]
    return Source(
        run=run.id,
        state=state,
        spec=spec,
        spec_name=run.spec_path.name,
        spec_text=run.spec_path.read_text(encoding="utf-8-sig"),
        base=providers.base_model(state.provider, spec) or "",
        splits=state.data.splits if state.data is not None else {},
        data_notes=(
            *(state.data.notes if state.data is not None else ()),
            *([f"General prompts: {state.replay.sentence}."] if state.replay is not None else ()),
        ),
        lowering=lowering,
        settled=tuple(
            (settled["field"], str(settled["value"]), settled["reason"]) for settled in document.get("settled", [])
        ),
        version=str(created.data.get("version", "")),
    )
