"""What is at risk, by deadline, from the folder alone; and the exit status that a cron job looks at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import GateNotMet
from ftbridge.migrate.download import download
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.record import RecordWish, record
from ftbridge.migrate.status import Asset, status
from ftbridge.server import Simulator, simulating
from support.acme_account import SUPPORT, TRIAGE, acme


def ready(service: Simulator, *keys: str) -> Migration:
    migration = Migration.open(create=True)
    take_inventory(migration, keys, base_url=service.base_url)
    return migration


def asset(migration: Migration, model: str, what: str, near: int = 14) -> Asset:
    result = status(migration, near_days=near).assets
    return next(one for one in result if one.model == model and one.what == what)


def test_the_nearest_deadline_comes_first_and_what_is_over_last(service: Simulator, keys: tuple[str, str]) -> None:
    result = status(ready(service, *keys))
    assert result.assets[0].deadline is not None
    assert result.assets[0].state == "at_risk"
    assert result.assets[-1].model.startswith("ft:gpt-3.5-turbo")


def test_nothing_is_urgent_while_the_deadline_is_far_and_then_it_is(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    assert status(migration).ok
    near = status(migration, near_days=50)
    assert not near.ok
    urgent = {one.model for one in near.urgent}
    assert TRIAGE in urgent
    assert "ft:gpt-4.1-mini-2025-04-14:acme:triage-v2:triage2" not in urgent  # nobody uses it


def test_what_was_downloaded_recorded_and_proved_is_saved(
    service: Simulator, keys: tuple[str, str], tmp_path: Path
) -> None:
    migration = ready(service, *keys)
    assert asset(migration, TRIAGE, "training data").state == "at_risk"
    download(migration)
    assert asset(migration, TRIAGE, "training data").state == "saved"
    wish = {"model": TRIAGE, "items": tmp_path / "account" / "valid.jsonl", "samples": 1, "limit": 4, "way": "live"}
    with pytest.raises(GateNotMet):
        record(migration, RecordWish(**wish, max_usd=0.0001))
    half = asset(migration, TRIAGE, "completions", near=50)
    assert (half.state, half.urgent) == ("at_risk", True)
    assert "of 4 items recorded" in half.detail
    record(migration, RecordWish(**wish))
    assert asset(migration, TRIAGE, "completions", near=50).state == "saved"
    migration.append("retrained", model=TRIAGE, run="triage-local-1", provider="local", base="b")
    assert "prove" in str(asset(migration, TRIAGE, "replacement").command)
    migration.append("proved", model=TRIAGE, run="triage-local-1", ok=True, path="x")
    assert asset(migration, TRIAGE, "replacement").state == "saved"


def test_without_usage_every_model_that_answers_counts_as_used(
    service: Simulator, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    migration = ready(service, *keys)
    used = {one.model for one in status(migration).assets if one.in_use}
    assert len(used) == 3


def test_what_stopped_unrecorded_is_lost_and_asks_for_nothing(tmp_path: Path, keys: tuple[str, str]) -> None:
    account = acme(tmp_path / "account")
    account["models"]["gpt-4.1-mini-2025-04-14"]["shutdown"] = 0
    with simulating(account=account) as service:
        migration = ready(service, "SUPPORT_KEY")
        lost = asset(migration, TRIAGE, "completions")
        assert (lost.state, lost.command, lost.urgent) == ("lost", None, False)


def test_the_command_needs_no_key_and_exits_with_4_near_a_deadline(
    service: Simulator, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(service, *keys)
    for name in (*keys, "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name)
    before = sum(service.requests.values())
    command = [sys.executable, "-m", "ftbridge", "migrate", "status"]
    calm = subprocess.run([*command, "--json"], capture_output=True, text=True, env=os.environ)
    assert calm.returncode == 0
    assert json.loads(calm.stdout)["ok"] is True
    near = subprocess.run([*command, "--within", "50", "-q"], capture_output=True, text=True, env=os.environ)
    assert near.returncode == 4
    assert f"ftbridge migrate record {TRIAGE}" in near.stderr
    assert sum(service.requests.values()) == before
    assert SUPPORT not in calm.stdout
