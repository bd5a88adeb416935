"""Faults of the simulated service by short names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

KINDS: dict[str, dict[str, Any]] = {
    "reset_before": {"fault": "reset"},
    "reset_after": {"fault": "reset", "when": "after"},
    "cut_after": {"fault": "cut"},
    "html_after": {"fault": "html"},
    "slow_after": {"fault": "slow", "when": "after"},
    "closed": {"fault": "training_not_available"},
}
"""Ways to fail by their short names; any other name is an HTTP status."""


def fault(route: str, kind: str, nth: int | Sequence[int] | None = 1, **more: Any) -> dict[str, Any]:
    """A fault of the simulator: what the `nth` request (None: every one) to a route meets."""
    does = KINDS.get(kind) or {"status": int(kind)}
    return {"on": route, "nth": nth if nth is None or isinstance(nth, int) else list(nth), **does, **more}


def lagging(lists: int) -> list[dict[str, Any]]:
    """Faults: jobs and files are missing from so many of the lists that would have them."""
    return [{"on": route, "fault": "lag", "lists": lists} for route in ("GET /fine_tuning/jobs", "GET /files")]


def telling(status: str | None) -> list[dict[str, Any]]:
    """Faults: files are shown with this status, whatever they are."""
    shown = {"POST /files": "status", "GET /files/{id}": "status", "GET /files": "data[].status"}
    return [{"on": route, "fault": "alter", "set": {path: status}} for route, path in shown.items()]
