"""Providers: where a job trains. `base` is the whole contract; `load` finds one by its entry-point name."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from ftbridge.errors import UsageError

if TYPE_CHECKING:
    from ftbridge.providers.base import Provider

GROUP = "ftbridge.providers"
"""Entry-point group. A package adds a provider by naming a class there that takes no arguments."""


def names() -> list[str]:
    """Names of the providers installed."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> Provider:
    """The provider of this name. Raises `UsageError` naming those there are."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("Provider", point.load()())
    raise UsageError(
        f"there is no provider {name!r} in this installation.",
        hint=f"Installed providers: {', '.join(names()) or 'none'}.",
    )
