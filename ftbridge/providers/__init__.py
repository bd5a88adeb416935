"""Providers: where a job trains. `base` is the whole contract; `load` finds one by its entry-point name."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, NamedTuple, cast

from ftbridge.errors import UsageError

if TYPE_CHECKING:
    from ftbridge.providers.base import Provider
    from ftbridge.spec.job import JobSpec
    from ftbridge.spec.lowering import Lowering
    from ftbridge.spec.resolve import ResolvedSpec

GROUP = "ftbridge.providers"
"""Entry-point group. A package adds a provider by naming a class there that takes no arguments."""


@functools.cache
def _installed() -> dict[str, EntryPoint]:
    """Entry points by name. What is installed is looked up once: readers of many runs ask for a provider for each."""
    points = entry_points(group=GROUP)
    return {point.name: point for point in reversed(tuple(points))}


def names() -> list[str]:
    """Names of the providers installed."""
    return sorted(_installed())


def load(name: str) -> Provider:
    """The provider of this name. Raises `UsageError` naming those there are."""
    if (point := _installed().get(name)) is None:
        raise _not_installed(name)
    return cast("Provider", point.load()())


def find(name: str) -> Provider | None:
    """The provider of this name, or None where it is not installed: for readers of runs, which outlive providers."""
    try:
        return load(name)
    except UsageError:
        return None


def base_model(name: str, spec: JobSpec) -> str | None:
    """The base model of the spec at this provider; None where the provider is not installed here."""
    provider = find(name)
    return None if provider is None else provider.base_model(spec)


def is_hosted(name: str, spec: JobSpec) -> bool:
    """Whether a service trains such a spec at this provider; False where the provider is not installed here."""
    provider = find(name)
    return provider is not None and provider.capabilities(spec).hosted


def resolve(spec: JobSpec, train_examples: int, provider: str, reasoning: int | None = None) -> ResolvedSpec:
    """The spec with its "auto" fields settled for this provider. Arguments and errors as `ftbridge.spec.resolve.resolve`.

    A learning rate multiplier for which the provider names no rule stays "auto".
    """
    from ftbridge.spec import resolve as rules

    unknown = ("auto", f"left to {provider}, which publishes no base rate")
    return rules.resolve(spec, train_examples, load(provider).auto, unknown, reasoning)


class MappedJob(NamedTuple):
    """A spec settled for one provider, and that provider's request with the field mapping."""

    resolved: ResolvedSpec
    lowering: Lowering


def map_fields(resolved: ResolvedSpec, provider: str) -> MappedJob:
    """The resolved spec with its field mapping at this provider. Raises `UsageError` where it is not installed."""
    return MappedJob(resolved, load(provider).lower(resolved))


def _not_installed(name: str) -> UsageError:
    return UsageError(
        f"provider {name!r} is not installed.",
        hint=f"Installed providers: {', '.join(names()) or 'none'}.",
    )
