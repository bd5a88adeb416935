"""SIGKILL at every journal step of an inventory and a download: each goes on, ends the same, and fetches nothing twice.

The simulator is a process of its own. Each life is a process forked from this one, so that imports are paid once; it kills itself
before it writes the chosen line of the journal, after it, or with half of it written.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftbridge.migrate.download import download
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.loading import load_inventory
from ftbridge.runs.journal import Journal
from support.acme_account import ADMIN, BILLING, SUPPORT, acme

KEYS = ("SUPPORT_KEY",)


def small(folder: Path) -> dict[str, Any]:
    """A part of `acme`: one project, one model that answers, one that does not, a file that is refused."""
    account = acme(folder)
    account["keys"].pop(BILLING)
    jobs = [job for job in account["jobs"] if job["id"] in ("ftjob-triage1", "ftjob-old1")]
    jobs[0] |= {"checkpoints": 1, "validation_is": "refused"}
    stored = [{**account["stored"][0], "count": 2}]
    use = [one for one in account["use"] if one["project"] == "proj_support"]
    projects = {"proj_support": "Support"}
    models = {name: one for name, one in account["models"].items() if name != "ftjob-triage1"}
    return {**account, "jobs": jobs, "stored": stored, "use": use, "projects": projects, "models": models}


class Account:
    """A simulator process over a small account."""

    def __init__(self, folder: Path) -> None:
        document = json.loads(json.dumps(small(folder), default=str))
        (folder / "account.yaml").write_text(yaml.safe_dump(document))
        command = ["simulate", "--account", str(folder / "account.yaml"), "--port", "0", "--json", "-q"]
        self.process = subprocess.Popen([sys.executable, "-m", "ftbridge", *command], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            text += self.process.stdout.readline()
        self.base_url = json.loads(text)["base_url"]

    def requests(self) -> Counter[str]:
        """Requests so far, by route."""
        with urllib.request.urlopen(self.base_url.removesuffix("/v1") + "/simulator") as response:
            return Counter(json.loads(response.read())["requests"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    started = Account(tmp_path_factory.mktemp("account"))
    yield started
    started.process.terminate()
    started.process.wait()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in (("SUPPORT_KEY", SUPPORT), ("OPENAI_ADMIN_KEY", ADMIN)):
        monkeypatch.setenv(name, key)


def inventory(home: Path, base_url: str) -> None:
    take_inventory(Migration.open(create=True, home=home), KEYS, base_url=base_url)


def downloads(home: Path, _: str) -> None:
    download(Migration.open(home=home), stored=True)


def lived(step: Callable[[Path, str], None], home: Path, base_url: str, line: int | None, moment: str = "") -> int:
    """The exit status of a process that takes the step and kills itself at a line of its journal; -9 for a kill."""
    child = os.fork()
    if child == 0:
        written = 0
        append = Journal.append

        def deadly(self: Journal, type: str, /, *, sync: bool = True, **data: Any) -> Any:
            nonlocal written
            written += 1
            if written == line and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            event = append(self, type, sync=sync, **data)
            if written == line:
                if moment == "torn":
                    size = self.path.stat().st_size
                    os.truncate(self.path, size - len(type) - 5)
                os.kill(os.getpid(), signal.SIGKILL)
            return event

        Journal.append = deadly  # type: ignore[method-assign]
        status = 1
        try:
            step(home, base_url)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def state(home: Path) -> dict[str, Any]:
    """Everything that a person would see of the migration."""
    migration = Migration.open(home=home)
    result = load_inventory(migration).model_dump(mode="json", exclude={"taken"})
    manifest = migration.path / "manifest.json"
    if manifest.exists():
        result["manifest"] = {**json.loads(manifest.read_text()), "folder": ""}
    result["files"] = sorted(
        str(path.relative_to(home)) for path in (migration.path / "files").rglob("*") if path.is_file()
    )
    return result


def killed_everywhere(
    account: Account, tmp_path: Path, step: Callable[[Path, str], None], ready: Path | None, every: int
) -> int:
    """Kill the step at every line of its journal, three ways, or at each `every`-th of these points; how many there were."""

    def fresh(name: str) -> Path:
        home = tmp_path / name
        if ready is not None:
            shutil.copytree(ready, home)
        return home

    complete = fresh("whole")
    before = len(Migration(complete / "migrations" / "openai").journal.read()) if ready is not None else 0
    counted = account.requests()
    assert lived(step, complete, account.base_url, None) == 0
    undisturbed = account.requests() - counted
    lines = len(Migration.open(home=complete).journal.read()) - before
    wanted = state(complete)
    places = [(line, moment) for line in range(1, lines + 1) for moment in ("before", "after", "torn")][::every]
    for line, moment in places:
        home = fresh(f"killed{line}{moment}")
        counted = account.requests()
        assert lived(step, home, account.base_url, line, moment) == -signal.SIGKILL, (line, moment)
        assert lived(step, home, account.base_url, None) == 0, (line, moment)
        spent = account.requests() - counted
        assert state(home) == wanted, (line, moment)
        twice = {route: spent[route] - undisturbed[route] for route in spent if spent[route] > undisturbed[route]}
        # Nothing that was stored is fetched again. A refusal leaves nothing to store, and may be lifted: each life asks anew.
        assert sum(twice.values()) <= 2, (line, moment, twice)
        assert set(twice) <= {"GET /files/{}/content"}, (line, moment, twice)
        shutil.rmtree(home)
    return len(places)


EVERY = int(os.environ.get("FTBRIDGE_TEST_KILLS_EVERY", "11"))
"""Of the points of death, each so-manyth is tried; 1 tries all, which takes some minutes."""


@pytest.mark.slow
def test_an_inventory_killed_at_any_line_ends_the_same_and_reads_nothing_twice(
    account: Account, tmp_path: Path
) -> None:
    assert killed_everywhere(account, tmp_path, inventory, None, EVERY) * EVERY >= 60


@pytest.mark.slow
def test_a_download_killed_at_any_line_ends_the_same_and_fetches_nothing_twice(
    account: Account, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    inventory(ready, account.base_url)
    assert killed_everywhere(account, tmp_path, downloads, ready, EVERY) * EVERY >= 60
