"""Dates that end things on OpenAI's own platform, as data. Other services keep their own calendars.

Source: OpenAI's deprecations page, notices of 2026-05-07 and 2026-10-14. `Model.shutdown_date`, where the service tells it,
goes before this table.
"""

from __future__ import annotations

import datetime

NO_NEW_JOBS = datetime.date(2027, 1, 6)
"""From this day nobody can create fine-tuning jobs on OpenAI. Organisations without recent use stopped earlier."""

SHUTDOWN = {
    "gpt-3.5-turbo": "2026-10-23",
    "gpt-4-0613": "2026-10-23",
    "gpt-4-turbo": "2026-10-23",
    "gpt-4.1-nano": "2026-10-23",
    "gpt-4o-2024-05-13": "2026-10-23",
    "o1": "2026-10-23",
    "o3-mini": "2026-10-23",
    "o4-mini": "2026-10-23",
    "babbage-002": "2026-10-23",
    "davinci-002": "2026-10-23",
    "gpt-5": "2026-12-11",
    "o3": "2026-12-11",
    "gpt-4o": "2027-01-14",
    "gpt-4o-mini": "2027-01-14",
    "gpt-4.1": "2027-01-14",
    "gpt-4.1-mini": "2027-01-14",
}
"""Base model, or the beginning of its dated names, and the day it and its tuned models stop."""


def shutdown(model: str) -> datetime.date | None:
    """The day this model stops, if one is known; `ft:` names stop with their base model."""
    base = model.removeprefix("ft:").split(":")[0]
    names = [name for name in SHUTDOWN if base == name or _dated(base, name)]
    return datetime.date.fromisoformat(SHUTDOWN[max(names, key=len)]) if names else None


def _dated(base: str, name: str) -> bool:
    """Whether `base` is `name` with a date or a number behind it, not another member of the family."""
    return base.startswith(f"{name}-") and base[len(name) + 1 : len(name) + 2].isdigit()
