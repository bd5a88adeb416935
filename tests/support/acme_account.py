"""Accounts for tests of migrations: small organizations with everything that can be missing, refused or old."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUPPORT, BILLING, ADMIN = "sk-support-key-000001", "sk-billing-key-000002", "sk-admin-acme-000003"
TRIAGE = "ft:gpt-4.1-mini-2025-04-14:acme:triage:triage1"
LABELS = ("refund", "delivery", "account", "other")


def chat_lines(count: int, first: int = 0) -> str:
    """A chat dataset: each ticket has its label."""
    lines = [
        {
            "messages": [
                {"role": "system", "content": "Label the ticket."},
                {"role": "user", "content": f"Ticket {number}: I write about matter {number % 97}."},
                {"role": "assistant", "content": LABELS[number % len(LABELS)]},
            ]
        }
        for number in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def preference_lines(count: int) -> str:
    """A preference dataset."""
    lines = [
        {
            "input": {"messages": [{"role": "user", "content": f"Answer letter {number}."}]},
            "preferred_output": [{"role": "assistant", "content": f"Dear customer {number}, thank you."}],
            "non_preferred_output": [{"role": "assistant", "content": f"No, {number}."}],
        }
        for number in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def acme(folder: Path) -> dict[str, Any]:
    """An organization with two projects: jobs of three methods and ages, a chained job, files gone and refused."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("train.jsonl", chat_lines(30)),
        ("valid.jsonl", chat_lines(12, first=1000)),
        ("more.jsonl", chat_lines(20, first=2000)),
        ("prefer.jsonl", preference_lines(12)),
    ):
        (folder / name).write_text(text)
    train, valid, more, prefer = (
        folder / name for name in ("train.jsonl", "valid.jsonl", "more.jsonl", "prefer.jsonl")
    )
    return {
        "organization": "org-acme",
        "keys": {SUPPORT: {"project": "proj_support"}, BILLING: {"project": "proj_billing"}, ADMIN: {"admin": True}},
        "projects": {"proj_support": "Support", "proj_billing": "Billing", "proj_lab": "Laboratory"},
        "jobs": [
            {
                "id": "ftjob-triage1",
                "project": "proj_support",
                "suffix": "triage",
                "training": train,
                "validation": valid,
                "results": "base64",
                "metadata": {"team": "support"},
            },
            {
                "id": "ftjob-triage2",
                "project": "proj_support",
                "continues": "ftjob-triage1",
                "suffix": "triage-v2",
                "training": more,
                "created": -20,
                "checkpoints": 2,
            },
            {
                "id": "ftjob-old1",
                "project": "proj_support",
                "model": "gpt-3.5-turbo-0125",
                "shape": "old",
                "training": train,
                "training_is": "gone",
                "created": -700,
                "results": "gone",
            },
            {
                "id": "ftjob-letters1",
                "project": "proj_billing",
                "model": "gpt-4o-2024-08-06",
                "method": "dpo",
                "suffix": "letters",
                "training": prefer,
                "training_is": "refused",
                "hyperparameters": {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 0.1, "beta": 0.1},
            },
            {
                "id": "ftjob-broken1",
                "project": "proj_billing",
                "model": "gpt-4o-mini-2024-07-18",
                "status": "failed",
                "training": train,
            },
        ],
        "models": {
            "gpt-4.1-mini-2025-04-14": {"shutdown": 49},
            "gpt-4o-2024-08-06": {"shutdown": 49},
            "gpt-3.5-turbo-0125": {"shutdown": -34},
            "ftjob-triage1": {"completions": train, "shared_with": ["proj_billing"]},
        },
        "stored": [
            {
                "model": "ftjob-triage1",
                "prompts": valid,
                "count": 8,
                "tools": [{"type": "function", "function": {"name": "look_up"}}],
            },
            {"model": "ftjob-triage1", "count": 2, "image": "lost", "newest": -3},
            {"model": "ftjob-letters1", "count": 3, "content": "refusal"},
        ],
        "use": [
            {
                "model": "ftjob-triage1",
                "project": "proj_support",
                "requests": 400,
                "input_tokens": 300,
                "output_tokens": 5,
            },
            {"model": "ftjob-triage1", "project": "proj_billing", "requests": 10},
            {"model": "ftjob-letters1", "project": "proj_billing", "requests": 900, "last": -2},
        ],
        "limits": [
            {
                "model": "gpt-4.1-mini-2025-04-14",
                "requests_per_minute": 6000,
                "tokens_per_minute": 300_000,
                "batch_queue_tokens": 900_000,
            },
            {
                "model": "gpt-4o-2024-08-06",
                "requests_per_minute": 500,
                "tokens_per_minute": 30_000,
                "batch_queue_tokens": 90_000,
            },
        ],
    }
