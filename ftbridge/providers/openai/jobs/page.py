"""The tables of the documentation's page on services, made from the code that they tell of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftbridge.providers import resolve
from ftbridge.providers.openai.lower import lower
from ftbridge.providers.openai.targets import TARGETS, Target
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport

_MACHINE = "concerns training on this machine"


def targets_table() -> str:
    """What each service can do, a column each."""
    rows: list[tuple[str, Callable[[Target], str]]] = [
        ("methods", lambda target: ", ".join(target.methods)),
        ("hyperparameters stand", lambda target: "at the top" if target.hyperparameters == "top" else "under `method`"),
        (
            "`auto` of epochs and batch size",
            lambda target: "the service's choice" if target.chooses else "numbers are sent",
        ),
        ("`metadata` surely comes back", lambda target: _yes(target.keeps_metadata)),
        ("pause and resume", lambda target: _yes(target.pause)),
        ("checkpoints", lambda target: _yes(target.checkpoints)),
        ("events", lambda target: _yes(target.events)),
        ("result file", lambda target: _yes(target.result_files)),
        ("Batch API", lambda target: _yes(target.batch)),
        ("tuned models answer", lambda target: "under their name" if target.serves_tuned else "when deployed"),
        ("suffix", lambda target: f"up to {target.suffix_length} of a-z, 0-9, -"),
        ("byte order mark", lambda target: "added" if target.byte_order_mark else "none"),
        ("largest file", lambda target: _size(target.largest_file)),
        ("in parts above", lambda target: _size(target.upload_in_parts_above)),
    ]
    head = ["| |" + "".join(f" {name} |" for name in TARGETS), "|---|" + "---|" * len(TARGETS)]
    return "\n".join(
        [
            *head,
            *(f"| {title} |" + "".join(f" {tell(target)} |" for target in TARGETS.values()) for title, tell in rows),
        ]
    )


def lowering_table() -> str:
    """Every field of a spec that gives them all: how it fares with OpenAI, and where another service differs."""
    of = {name: _reports(target, "supervised") for name, target in TARGETS.items()}
    rewarded = _reports(TARGETS["openai"], "reinforcement")
    rows = ["| field | with OpenAI | how | elsewhere |", "|---|---|---|---|"]
    for field, report in of["openai"].items():
        others = {name: of[name][field] for name in ("azure", "nebius", "custom")}
        differ = "; ".join(f"{name}: {_told(other)}" for name, other in others.items() if _told(other) != _told(report))
        if report.how == _MACHINE and not differ:
            continue
        if report.outcome == "unused" and rewarded[field].outcome != "unused":
            differ = "; ".join(part for part in (f"in reinforcement: {_told(rewarded[field])}", differ) if part)
        rows.append(f"| `{field}` | {report.outcome} | {report.how} | {differ} |".replace("  ", " "))
    rows.append(f"| the other fields of `local` | unused | {_MACHINE} | |")
    return "\n".join(rows)


def _reports(target: Target, method: str) -> dict[str, FieldReport]:
    """The report on a spec that gives every field a value."""
    document: dict[str, Any] = {
        "name": "example",
        "method": method,
        "data": {"train": "train.jsonl", "validation": 0.1, "test": "test.jsonl"},
        "model": {"openai": "BASE", "local": "BASE"},
        "hyperparameters": {"learning_rate_multiplier": 2.0},
        "suffix": "My Suffix",
        "metadata": {"team": "support"},
        "openai": {
            "target": target.name,
            "base_url": "https://HOST/v1",
            "training_type": "standard",
            "api_version": "DATE",
            "batch": True,
            "grader": "exact",
            "response_format": {"type": "json_object"},
            "integrations": [{"project": "P"}],
        },
        "local": {
            "lora": {"r": 8, "alpha": 16.0, "dropout": 0.0},
            "early_stopping": {"patience": 2},
            "base_learning_rate": 1e-4,
            "max_length": 2048,
            "packing": True,
            "warmup_ratio": 0.03,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
        },
        "evaluation": {"margin": 0.02},
        "budget": {"max_usd": 10.0, "max_hours": 5.0},
        "fallback": "local",
    }
    resolved = resolve(JobSpec.from_dict(document), 1000, "openai")
    return {report.field: report for report in lower(resolved).fields}


def _told(report: FieldReport) -> str:
    return f"{report.outcome}, {report.how}" if report.how else report.outcome


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _size(limit: int | None) -> str:
    if limit is None:
        return "not known"
    return f"{limit / 1e9:g} GB" if limit >= 1e9 else f"{limit / 1e6:g} MB"
