"""Where a run's figures come from: its spec, its data, its field mapping, and the losses on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ftbridge import providers
from ftbridge.data.manifest import Split, SplitName
from ftbridge.runs.metrics import Point, curves
from ftbridge.runs.run import Run, RunState
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering
from ftbridge.spec.resolve import Settled


@dataclass(frozen=True)
class Curve:
    """Losses of one run: nats per loss token, or per pair where it was tuned by preferences."""

    label: str
    train: tuple[Point, ...]
    valid: tuple[Point, ...]
    by_pairs: bool = False


@dataclass(frozen=True)
class ReportSource:
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
        """Fields that the provider did not take as they were, or chose itself."""
        fields = self.lowering.fields if self.lowering else []
        outcomes = ("translated", "approximated", "refused")
        return [field for field in fields if field.outcome in outcomes or field.chosen is not None]


def curve_of(label: str, run: Run) -> Curve:
    """The losses in a run's journal."""
    train, valid = curves(run.journal.read(), "train_loss", "valid_loss")
    return Curve(label, train, valid, by_pairs=run.spec().method == "dpo")


def source_of(run: Run) -> ReportSource:
    """What a run folder holds; a run that was stopped early has less."""
    state = run.state()
    spec = run.resolved_spec() if run.resolved_path.exists() else run.spec()
    created = run.journal.read()[0]
    return ReportSource(
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
        lowering=run.field_mapping(),
        settled=tuple(_settled(run.settled(), state.chosen)),
        version=str(created.data.get("version", "")),
    )


def _settled(settled: Iterable[Settled], chosen: Mapping[str, int | float]) -> Iterator[tuple[str, str, str]]:
    """Each value of "auto" with its reason: the rule's, or that the provider chose it."""
    by_field = {f"hyperparameters.{name}": value for name, value in chosen.items()}
    for entry in settled:
        if (value := by_field.pop(entry.field, None)) is not None:
            planned = f" (planned with {entry.estimate})" if entry.estimate is not None else ""
            yield entry.field, f"{value:g}", f"chosen by the provider{planned}"
        else:
            yield entry.field, str(entry.value), entry.reason
    for name, value in by_field.items():
        yield name, f"{value:g}", "chosen by the provider"
