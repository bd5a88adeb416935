"""The folder of a migration: its mode, its lock, its journal without keys, and names that are files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import RunBusy, UsageError
from ftbridge.migrate.folder import Migration, migrations, safe_name
from ftbridge.migrate.limits import RateLimits, seconds_of


def test_the_folder_is_the_owners_alone_and_is_found_again(home: Path) -> None:
    created = Migration.open("acme", create=True)
    assert stat.S_IMODE(created.path.stat().st_mode) == 0o700
    assert created.path == home / "migrations" / "acme"
    assert [result.name for result in migrations()] == ["acme"]
    assert Migration.open("acme").of("created")[0].data == {"name": "acme"}


def test_an_unknown_migration_is_an_error_that_names_those_there_are() -> None:
    Migration.open("acme", create=True)
    with pytest.raises(UsageError, match="no migration 'azure'.*\n.*acme"):
        Migration.open("azure")


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x" * 65, "with space"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid migration name"):
        Migration.open(name, create=True)


def test_keys_never_reach_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_API_KEY", "a-secret-of-the-team")
    migration = Migration.open("acme", create=True)
    migration.append("note", text="sk-abcdef0123456789 and a-secret-of-the-team", deep=[{"of": "a-secret-of-the-team"}])
    written = migration.journal.path.read_text()
    assert "sk-abcdef" not in written
    assert "a-secret" not in written
    assert written.count("[key]") == 3


def test_one_process_works_at_a_time_and_a_dead_one_holds_nothing() -> None:
    migration = Migration.open("acme", create=True)
    code = (
        "import sys, time; from ftbridge.migrate.folder import Migration\n"
        "with Migration.open('acme').working('it'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunBusy, match="the download was not started"), migration.working("the download"):
        pass
    holder.kill()
    holder.wait()
    with migration.working("the download"):
        pass


def test_ids_become_file_names_that_stay_unique() -> None:
    assert safe_name("file-abc.1") == "file-abc.1"
    names = [safe_name(text) for text in ("ft:a:b::c", "ft:a:b:_c", "../../etc", ".hidden", "ft_a_b__c")]
    assert len(set(names)) == 5
    assert all("/" not in name and ":" not in name and not name.startswith(".") for name in names)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m", 3720), ("7", 7), ("soon", None), ("", None)],
)
def test_durations_of_headers_are_read(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_a_spent_limit_is_waited_for_and_an_unstated_one_is_not() -> None:
    limits = RateLimits()
    assert limits.wait_seconds(10**6) == 0
    stated = {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "40s",
    }
    limits.seen(stated)
    assert 39 < limits.wait_seconds() <= 40
    assert limits.requests_per_minute == 1
    limits.seen({"x-ratelimit-remaining-tokens": "500", "x-ratelimit-reset-tokens": "1m0s"})
    assert limits.wait_seconds(tokens=600, requests=0) > 59
    assert limits.wait_seconds(tokens=400, requests=0) == 0


def test_a_wait_is_over_once_it_was_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    limits = RateLimits()
    limits.seen({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"})
    assert limits.wait() > 29
    assert limits.wait() == 0
