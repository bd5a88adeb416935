"""Field mapping: a spec becomes one provider's request field by field, and every field reports its outcome.

    exact          the provider does just this
    translated     the same meaning in the provider's terms, by the formula shown
    approximated   something near it, for the reason shown
    refused        the provider cannot do it; the run stops before anything is spent, unless the user allows it to go on
                   without (`waivable`): a model, a grader or a setting that others contradict is not one to do without
    unused         has no bearing on this provider or method

Nothing is dropped silently: `Lowering.complete` raises when a field of the spec has no entry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SerializeAsAny

from ftbridge.errors import LoweringRefused
from ftbridge.spec.job import JobSpec
from ftbridge.spec.sections import SpecModel

Outcome = Literal["exact", "translated", "approximated", "refused", "unused"]
Note = tuple[Outcome, Any, str]
"""How a provider maps one field: the outcome, what is sent, and how or why."""


class FieldReport(BaseModel):
    """The mapping of one field of the spec: `field` is its dotted path, `how` the formula or the reason.

    `requested` is the value in the spec, `sent` the one that the provider receives; version 0.1 wrote them as `asked` and
    `given`, which are still read. `chosen` is what the provider chose for a value that was left to it, once its job reports it.
    `waivable`: whether the job could go on without a refused field, as `--allow FIELD` says.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    field: str
    outcome: Outcome
    requested: Any = Field(validation_alias=AliasChoices("requested", "asked"))
    sent: Any = Field(default=None, validation_alias=AliasChoices("sent", "given"))
    how: str = ""
    chosen: int | float | None = None
    waivable: bool = True


P = TypeVar("P", bound="ProviderRequest")


class ProviderRequest(BaseModel):
    """What a provider is to do, in its own terms.

    A provider's own class, derived from this one, names the fields; as this class, the request of any provider is read from a
    file and written again as it was.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    @classmethod
    def of(cls: type[P], request: ProviderRequest) -> P:
        """The request as this class: itself, or read again where it comes from a file. Raises pydantic's `ValidationError`."""
        return request if isinstance(request, cls) else cls.model_validate(request.model_dump(mode="json"))


class Lowering(BaseModel):
    """One provider's request and the report of how it came about."""

    model_config = ConfigDict(frozen=True)
    provider: str
    request: SerializeAsAny[ProviderRequest]
    fields: list[FieldReport]

    def with_chosen(self, hyperparameters: Mapping[str, int | float]) -> Lowering:
        """A copy that shows what the provider chose for these hyperparameters."""
        chosen = {f"hyperparameters.{name}": value for name, value in hyperparameters.items()}
        fields = [
            report.model_copy(update={"chosen": chosen[report.field]}) if report.field in chosen else report
            for report in self.fields
        ]
        return self.model_copy(update={"fields": fields})

    def complete(self, spec: JobSpec) -> Lowering:
        """Return self, or raise `AssertionError` naming spec fields without an entry (a bug in the provider)."""
        reported = {report.field for report in self.fields}
        missing = [field for field, _ in fields(spec) if field not in reported]
        assert not missing, f"provider {self.provider} does not report {', '.join(missing)}"
        return self

    @property
    def refused(self) -> list[FieldReport]:
        """The fields that the provider refuses."""
        return [report for report in self.fields if report.outcome == "refused"]

    def stop_if_refused(self, allowed: Collection[str] = ()) -> None:
        """Raise `LoweringRefused` when a refused field is not in `allowed`, or is one that no job can be without."""
        refused = [report for report in self.refused if not (report.waivable and report.field in allowed)]
        if not refused:
            return
        lines = "\n".join(f"  {report.field} = {report.requested!r}: {report.how}" for report in refused)
        waivable = [report.field for report in refused if report.waivable]
        needed = [report.field for report in refused if not report.waivable]
        hint = "Change the spec."
        if waivable and not needed:
            hint = f"Change the spec, or continue without them: {allow_options(refused)}"
        elif in_vain := sorted(set(needed) & set(allowed)):
            hint = f"Change the spec: no job can go on without {', '.join(in_vain)}, so --allow does not help."
        raise LoweringRefused(f"the {self.provider} provider cannot do what the spec asks:\n{lines}", hint=hint)


def allow_options(reports: Iterable[FieldReport]) -> str:
    """The options of `ftbridge run` that go on without these fields; each field once."""
    return " ".join(dict.fromkeys(f"--allow {report.field}" for report in reports))


def field_reports(
    spec: JobSpec, note_of: Callable[[str, Any], Note], is_waivable: Callable[[str], bool]
) -> list[FieldReport]:
    """An entry for every field of a spec. `note_of(field, value)` says how it is mapped, `is_waivable(field)` whether a job
    goes on without it where it is refused.
    """
    reports = []
    for field, value in fields(spec):
        outcome, sent, how = note_of(field, value)
        waivable = outcome != "refused" or is_waivable(field)
        reports.append(
            FieldReport(
                field=field, outcome=outcome, requested=_plain(value), sent=_plain(sent), how=how, waivable=waivable
            )
        )
    return reports


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def fields(model: SpecModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every leaf field of a spec; an absent optional section is one leaf."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        path = f"{prefix}{name}"
        if isinstance(value, SpecModel):
            yield from fields(value, f"{path}.")
        else:
            yield path, value
