"""Leaving a hosted fine-tuning service: find what there is, download it, record what the tuned models do, replace them.

    migration = ftbridge.migrate.Migration.open("openai", create=True)
    inventory = ftbridge.migrate.take_inventory(migration)
    inventory.models[0].days_left(inventory.today)

folder.py     the folder, its journal and its lock       objects.py stored.py account.py   what an account holds
client.py     requests with one key                      limits.py    rate limits as headers state them
listing.py    pages of lists, resumable                  loading.py   the inventory, read from the folder
inventory.py  download.py  status.py                     the steps that save things
manifest.py   the files, and what was downloaded         lint_files.py  what the linter finds in them
record.py     what a tuned model returns                 items.py recording.py completing.py forecast.py live.py batched.py
retrain.py    a job spec from its jobs, and a run        prove.py agreement.py proof_page.py   the replacement against it
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftbridge.migrate.account import Inventory as Inventory
    from ftbridge.migrate.account import TunedModel as TunedModel
    from ftbridge.migrate.download import download as download
    from ftbridge.migrate.folder import Migration as Migration
    from ftbridge.migrate.folder import migrations as migrations
    from ftbridge.migrate.inventory import take_inventory as take_inventory
    from ftbridge.migrate.loading import load_inventory as load_inventory
    from ftbridge.migrate.loading import local_file as local_file
    from ftbridge.migrate.loading import stored_completions as stored_completions
    from ftbridge.migrate.manifest import Manifest as Manifest
    from ftbridge.migrate.objects import Job as Job
    from ftbridge.migrate.prove import Proof as Proof
    from ftbridge.migrate.prove import prove as prove
    from ftbridge.migrate.record import Recorded as Recorded
    from ftbridge.migrate.record import record as record
    from ftbridge.migrate.retrain import retrain as retrain
    from ftbridge.migrate.status import Status as Status
    from ftbridge.migrate.status import status as status
    from ftbridge.migrate.stored import StoredCompletion as StoredCompletion
    from ftbridge.migrate.summary import summarize as summarize

_WHERE = {
    "Inventory": "ftbridge.migrate.account",
    "Job": "ftbridge.migrate.objects",
    "Manifest": "ftbridge.migrate.manifest",
    "Migration": "ftbridge.migrate.folder",
    "Proof": "ftbridge.migrate.prove",
    "Recorded": "ftbridge.migrate.record",
    "Status": "ftbridge.migrate.status",
    "StoredCompletion": "ftbridge.migrate.stored",
    "TunedModel": "ftbridge.migrate.account",
    "download": "ftbridge.migrate.download",
    "load_inventory": "ftbridge.migrate.loading",
    "local_file": "ftbridge.migrate.loading",
    "migrations": "ftbridge.migrate.folder",
    "prove": "ftbridge.migrate.prove",
    "record": "ftbridge.migrate.record",
    "retrain": "ftbridge.migrate.retrain",
    "status": "ftbridge.migrate.status",
    "stored_completions": "ftbridge.migrate.loading",
    "summarize": "ftbridge.migrate.summary",
    "take_inventory": "ftbridge.migrate.inventory",
}
__all__ = [
    "Inventory",
    "Job",
    "Manifest",
    "Migration",
    "Proof",
    "Recorded",
    "Status",
    "StoredCompletion",
    "TunedModel",
    "download",
    "load_inventory",
    "local_file",
    "migrations",
    "prove",
    "record",
    "retrain",
    "status",
    "stored_completions",
    "summarize",
    "take_inventory",
]


class _Package(types.ModuleType):
    """This package: a public function keeps its name where the module that it is in has the same one."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module 'ftbridge.migrate' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
