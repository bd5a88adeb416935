"""Amounts in words: seconds, dollars, bytes, counts."""

from __future__ import annotations

from ftbridge.planning.actual import Compared


def amount(value: float | None, unit: str) -> str:
    """One figure with its unit; hours below two are minutes, below two minutes seconds."""
    if value is None:
        return "not known"
    match unit:
        case "USD":
            return dollars(value)
        case "hours":
            if value < 1 / 30:
                return f"{value * 3600:.0f} s"
            return f"{value * 60:.0f} min" if value < 2 else f"{value:.1f} h"
        case "GB":
            return f"{value:.1f} GB"
        case _:
            return f"{value:,.0f}"


def planned(one: Compared) -> str:
    """What was planned, from low to high where they differ."""
    if one.planned is None:
        return "not planned"
    low, high = (amount(end, one.unit) for end in one.planned)
    return low if low == high else f"{low} to {high}"


def dollars(value: float) -> str:
    """Cents, or four digits where it is less than one; what cost nothing is $0."""
    return "$0" if value == 0 else f"${value:,.2f}" if value >= 1 else f"${value:.4f}"


def latency(seconds: float | None, *, in_batches: bool) -> str | None:
    """Seconds of an answer, or of the batch that it came in; None where they are not known."""
    if seconds is None:
        return None
    return f"{seconds:.2f} s a batch" if in_batches else f"{seconds:.2f} s"
