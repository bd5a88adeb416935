"""A service's figures in the provider contract's shape: out of metrics events, and out of the result file."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from ftbridge.providers.base import Metrics

_NAMES: dict[str, tuple[str, ...]] = {
    "train_loss": ("train_loss",),
    "train_mean_token_accuracy": ("train_mean_token_accuracy", "train_accuracy"),
    "valid_loss": ("full_valid_loss", "valid_loss"),
    "valid_mean_token_accuracy": ("full_valid_mean_token_accuracy", "valid_mean_token_accuracy", "valid_accuracy"),
}
"""Ours, and the service's in the order of preference: figures of the whole validation file go before those of a batch."""


def metrics_of(data: Mapping[str, Any] | None) -> Metrics | None:
    """The figures of one step; None without a step. What is absent, no number, or not finite is left out."""
    data = data or {}
    step = _number(data.get("step"))
    if step is None:
        return None
    figures = {
        name: next((value for key in keys if (value := _number(data.get(key))) is not None), None)
        for name, keys in _NAMES.items()
    }
    total = _number(data.get("total_steps"))
    named_columns = {key for keys in _NAMES.values() for key in keys}
    rewards = {
        key: value
        for key in data
        if key.startswith(("train_reward", "valid_reward", "full_valid_reward", "train_chosen", "train_rejected"))
        and key not in named_columns
        and (value := _number(data[key])) is not None
    }
    return Metrics(step=int(step), total_steps=None if total is None else int(total), more=rewards, **figures)


def rewards_of(data: Mapping[str, Any] | None) -> str:
    """Reinforcement's figures in words, since they have no like in supervised training; empty without any."""
    rewards = []
    for key, word in (("train_mean_reward", "training reward"), ("full_valid_mean_reward", "validation reward")):
        if (value := _number((data or {}).get(key))) is not None:
            rewards.append(f"{word} {value:.3f}")
    return " · ".join(rewards)


def parse_result_file(content: bytes) -> list[Metrics]:
    """The rows of a result file, plain or base64: services deliver it either way. Other content gives no rows.

    Columns: step, train_loss, train_accuracy, valid_loss, valid_mean_token_accuracy; blanks where there is no figure.
    """
    text = _text(content)
    if text is None:
        return []
    rows = (metrics_of(row) for row in csv.DictReader(io.StringIO(text)))
    return [row for row in rows if row is not None]


def _text(content: bytes) -> str | None:
    plain = content.lstrip(b"\xef\xbb\xbf \r\n")
    if not plain.startswith(b"step"):
        try:
            plain = base64.b64decode(b"".join(plain.split()), validate=True).lstrip(b"\xef\xbb\xbf \r\n")
        except (binascii.Error, ValueError):
            return None
    return plain.decode("utf-8", "replace") if plain.startswith(b"step") else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
