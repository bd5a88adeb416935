"""Downloading from scripted accounts: checksums, base64, what is gone, stored completions, large files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import DiskFull, UsageError
from ftbridge.migrate.download import download, forecast
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.loading import load_inventory, local_file, stored_completions
from ftbridge.migrate.manifest import Manifest, ManifestFile, read_manifest
from ftbridge.server import Simulator, simulating
from support.acme_account import BILLING, TRIAGE, acme


def ready(service: Simulator, *keys: str) -> Migration:
    migration = Migration.open(create=True)
    take_inventory(migration, keys, base_url=service.base_url)
    return migration


def entry(manifest: Manifest, id: str) -> ManifestFile:
    return next(one for one in manifest.files if one.id == id)


def test_every_file_that_can_be_had_is_there_with_its_checksum(
    service: Simulator, keys: tuple[str, str], tmp_path: Path
) -> None:
    migration = ready(service, *keys)
    manifest = download(migration)
    training = entry(manifest, "file-triage1training")
    source = (tmp_path / "account" / "train.jsonl").read_bytes()
    assert training.sha256 == hashlib.sha256(source).hexdigest()
    assert training.bytes == len(source)
    path = local_file(migration, "file-triage1training")
    assert path is not None
    assert path.read_bytes() == source
    assert path.stat().st_mode & 0o077 == 0
    assert training.lint is not None
    assert (training.lint.examples, training.lint.errors) == (30, 0)
    assert json.loads((migration.path / "manifest.json").read_text()) == manifest.model_dump(mode="json")
    assert load_inventory(migration).model("triage").files[0].state == "downloaded"
    assert service.requests["GET /files/{}/content"] == 9


def test_results_in_base64_are_decoded_and_plain_ones_left(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    manifest = download(migration)
    for name in ("file-triage1results", "file-letters1results"):
        path = local_file(migration, name)
        assert path is not None
        assert path.read_text().startswith("step,train_loss")
    assert "base64" in entry(manifest, "file-triage1results").notes[0]
    assert entry(manifest, "file-letters1results").notes == ()


def test_what_is_gone_or_refused_is_named_with_what_can_stand_in(service: Simulator, keys: tuple[str, str]) -> None:
    manifest = download(ready(service, *keys))
    assert not manifest.ok
    gone, refused = entry(manifest, "file-old1training"), entry(manifest, "file-letters1training")
    assert (gone.state, refused.state) == ("gone", "refused")
    assert "free accounts" in str(refused.why)
    assert any("migrate record" in text for text in refused.stand_ins)
    assert any("--stored" in text for text in refused.stand_ins)
    assert not any("migrate record" in text for text in gone.stand_ins)  # that model no longer answers
    assert any("your own copy" in text for text in gone.stand_ins)


def test_running_it_again_fetches_only_what_may_have_changed(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    download(migration, stored=True)
    before = dict(service.requests)
    assert forecast(migration, stored=True).files == 1  # the refused file: a refusal may be lifted
    download(migration, stored=True)
    changed = {
        route: count - before.get(route, 0) for route, count in service.requests.items() if count != before.get(route)
    }
    assert changed == {"GET /files/{}/content": 1}


def test_a_file_that_was_removed_from_the_folder_is_fetched_again(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    download(migration)
    path = local_file(migration, "file-triage1validation")
    assert path is not None
    path.unlink()
    assert entry(download(migration), "file-triage1validation").state == "downloaded"
    assert path.exists()


def test_events_and_checkpoints_are_the_loss_curve(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    manifest = download(migration)
    assert manifest.events == 4 * 32  # 30 steps, the beginning and the end, for each job with a model
    assert manifest.checkpoints == 11


def test_stored_completions_come_newest_first_with_their_inputs(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    manifest = download(migration, stored=True)
    assert (manifest.stored_completions, manifest.stored_with_inputs) == (13, 13)
    listing = list(stored_completions(migration, TRIAGE))
    assert [one.created for one in listing] == sorted((one.created for one in listing), reverse=True)
    requests = [one for one in listing if one.missing is None]
    assert len(requests) == 8
    assert requests[0].messages is not None
    assert [message["role"] for message in requests[0].messages] == ["system", "user"]
    assert requests[0].request["tools"]
    lost = [one for one in listing if one.missing is not None]
    assert len(lost) == 2
    assert "image" in str(lost[0].missing)
    refusals = list(stored_completions(migration, "ft:gpt-4o-2024-08-06:acme:letters:letters1"))
    assert refusals[0].completion["content"] is None
    assert refusals[0].completion["refusal"]


def test_a_key_that_may_not_read_stored_completions_does_not_keep_another_from_it(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    account = acme(tmp_path / "account")
    account["keys"][BILLING]["without"] = ["api.chat.completions.read"]
    with simulating(account=account) as service:
        migration = ready(service, *keys)
        assert load_inventory(migration).models[0].project == "proj_billing"  # the first model's key is refused
        assert download(migration, stored=True).stored_with_inputs == 10


def test_more_stored_completions_can_be_had_later(tmp_path: Path, keys: tuple[str, str]) -> None:
    account = acme(tmp_path / "account")
    account["stored"] = [{"model": "ftjob-triage1", "count": 250}]
    with simulating(account=account) as service:
        migration = ready(service, "SUPPORT_KEY")
        first = download(migration, stored=True, newest=10)
        assert first.stored_with_inputs == 10
        pages = service.requests["GET /chat/completions"]
        second = download(migration, stored=True, newest=120)
        assert second.stored_with_inputs == 120
        assert service.requests["GET /chat/completions"] == pages + 1
        assert service.requests["GET /chat/completions/{}/messages"] == 120


def test_a_shared_file_is_fetched_once(tmp_path: Path, keys: tuple[str, str]) -> None:
    with simulating(account=acme(tmp_path / "account")) as service:
        migration = ready(service, *keys)
        manifest = download(migration)
        shared = entry(manifest, "file-triage1training")
        assert shared.jobs == ("ftjob-triage1",)
        assert len({one.id for one in manifest.files}) == len(manifest.files)


def test_data_with_errors_is_downloaded_and_the_errors_are_told(tmp_path: Path, keys: tuple[str, str]) -> None:
    account = acme(tmp_path / "account")
    bad = tmp_path / "account" / "train.jsonl"
    bad.write_text(bad.read_text() + '{"messages": [{"role": "user"}]}\n')
    with simulating(account=account) as service:
        manifest = download(ready(service, "SUPPORT_KEY"))
    training = entry(manifest, "file-triage1training")
    assert training.state == "downloaded"
    assert training.lint is not None
    assert training.lint.errors > 0


def test_a_key_that_was_renewed_since_the_inventory_fetches_what_the_old_one_saw(
    tmp_path: Path, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    account = acme(tmp_path / "account")
    account["keys"]["sk-support-key-renewed"] = {"project": "proj_support"}
    with simulating(account=account) as service:
        migration = ready(service, "SUPPORT_KEY")
        monkeypatch.setenv("SUPPORT_KEY", "sk-support-key-renewed")
        assert entry(download(migration), "file-triage1training").state == "downloaded"


def test_downloading_without_an_inventory_says_to_take_one() -> None:
    migration = Migration.open(create=True)
    with pytest.raises(UsageError, match="has no inventory"):
        download(migration)


def test_files_that_cannot_fit_are_not_begun(
    service: Simulator, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = ready(service, *keys)
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr("ftbridge.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match="downloading the files needs"):
        download(migration)
    assert "GET /files/{}/content" not in service.requests


def test_a_disk_that_fills_up_leaves_whole_files_and_goes_on_later(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    limit = migration.journal.path.stat().st_size + 1_500  # room for one more file's lines, not for a large file
    code = (
        "import resource, signal\n"
        "from ftbridge.migrate.folder import Migration\nfrom ftbridge.migrate.download import download\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "download(Migration.open())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert DiskFull.__name__ in done.stderr
    left = [path for path in (migration.path / "files").rglob("*") if path.is_file() and path.name.startswith(".")]
    assert left == []
    assert entry(download(migration), "file-triage1training").state == "downloaded"


@pytest.mark.slow
def test_a_file_of_200_mb_is_streamed(tmp_path: Path, keys: tuple[str, str]) -> None:
    account = acme(tmp_path / "account")
    large = tmp_path / "account" / "train.jsonl"
    line = json.dumps({"messages": [{"role": "user", "content": "x" * 50_000}, {"role": "assistant", "content": "y"}]})
    with large.open("w") as stream:
        for _ in range(4_000):
            stream.write(line + "\n")
    with simulating(account=account) as service:
        migration = ready(service, "SUPPORT_KEY")
        code = (
            "import resource\nfrom pathlib import Path\n"
            "from ftbridge.migrate.client import connect\nfrom ftbridge.migrate.folder import Migration\n"
            "migration = Migration.open()\n[client] = connect(migration)\n"
            "client.get('/models', doing='listing models')\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "path = Path('large')\n"
            "assert client.download('/files/file-triage1training/content', path, doing='it').ok\n"
            "print(path.stat().st_size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, cwd=tmp_path, check=True
        )
    size, grown = map(int, done.stdout.split())
    assert size == large.stat().st_size > 200_000_000
    assert grown < 60_000  # kB
    assert migration.path.exists()


def test_a_download_that_breaks_off_is_begun_again_and_is_whole(
    tmp_path: Path, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0.001")
    faults = [{"on": "GET /files/{id}/content", "fault": "cut", "nth": [1, 2, 4]}]
    with simulating(account=acme(tmp_path / "account"), faults=faults) as service:
        manifest = download(ready(service, "SUPPORT_KEY"))
    assert entry(manifest, "file-triage1training").bytes == (tmp_path / "account" / "train.jsonl").stat().st_size


def test_the_manifest_can_be_read_without_the_service(service: Simulator, keys: tuple[str, str]) -> None:
    migration = ready(service, *keys)
    written = download(migration)
    before = sum(service.requests.values())
    assert read_manifest(migration) == written
    assert sum(service.requests.values()) == before


def test_the_command_exits_with_1_where_a_file_cannot_be_had_and_with_0_where_all_are(
    service: Simulator, keys: tuple[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "ftbridge", "migrate"]
    ready(service, *keys)
    partly = subprocess.run([*command, "download", "--json"], capture_output=True, text=True, env=os.environ)
    assert partly.returncode == 1
    assert {one["state"] for one in json.loads(partly.stdout)["files"]} == {"downloaded", "gone", "refused"}
    assert "free, about" in partly.stderr
    account = acme(tmp_path / "whole")
    account["jobs"] = [account["jobs"][0]]
    with simulating(account=account | {"stored": [], "use": []}) as complete:
        base = [
            *command,
            "inventory",
            "--migration",
            "whole",
            "--key-env",
            "SUPPORT_KEY",
            "--base-url",
            complete.base_url,
        ]
        subprocess.run(base, capture_output=True, env=os.environ, check=True)
        done = subprocess.run(
            [*command, "download", "--migration", "whole"], capture_output=True, text=True, env=os.environ
        )
    assert done.returncode == 0, done.stderr


def practice(folder: Path, **job: object) -> dict[str, object]:
    """An account with one reinforcement job that has a validation file."""
    account = acme(folder)
    for name, first, count in (("train", 0, 12), ("valid", 500, 11)):
        lines = [
            {"messages": [{"role": "user", "content": f"What is {number} and 1?"}], "answer": str(number + 1)}
            for number in range(first, first + count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    grader = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}"}
    only = {
        "id": "ftjob-sums1", "project": "proj_support", "model": "o4-mini-2025-04-16", "method": "reinforcement",
        "suffix": "sums", "training": str(folder / "train.jsonl"), "validation": str(folder / "valid.jsonl"),
        "grader": {**grader, "reference": "{{item.answer}}"}, "hyperparameters": {"n_epochs": 1},
    }  # fmt: skip
    return {**account, "jobs": [{**only, **job}], "models": {}, "stored": [], "use": [], "limits": []}


def rules_of(manifest: Manifest, id: str) -> dict[str, int]:
    lint = entry(manifest, id).lint
    assert lint is not None
    return dict(lint.rules)


@pytest.mark.parametrize("validation_is", ["there", "gone"])
def test_a_reinforcement_job_with_a_validation_file_is_not_said_to_lack_one(
    tmp_path: Path, keys: tuple[str, str], validation_is: str
) -> None:
    with simulating(account=practice(tmp_path / "account", validation_is=validation_is)) as service:
        manifest = download(ready(service, "SUPPORT_KEY"))
    training = entry(manifest, "file-sums1training")
    assert training.lint is not None
    assert (training.lint.examples, training.lint.errors) == (12, 0)
    assert "FTB097" not in rules_of(manifest, "file-sums1training")
    if validation_is == "there":
        checked = entry(manifest, "file-sums1validation").lint
        assert checked is not None
        assert checked.examples == 11


def test_a_reinforcement_job_without_a_validation_file_is_still_said_to_lack_one(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    with simulating(account=practice(tmp_path / "account", validation=None)) as service:
        manifest = download(ready(service, "SUPPORT_KEY"))
    assert "FTB097" in rules_of(manifest, "file-sums1training")


def test_a_training_file_that_was_linted_alone_is_linted_again_with_the_others_and_then_no_more(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    with simulating(account=practice(tmp_path / "account")) as service:
        migration = ready(service, "SUPPORT_KEY")
        sha256 = hashlib.sha256((tmp_path / "account" / "train.jsonl").read_bytes()).hexdigest()
        alone = {"examples": 12, "tokens": 1, "errors": 1, "warnings": 0, "rules": {"FTB097": 1}}
        migration.append("file_linted", id="file-sums1training", sha256=sha256, **alone)  # by an earlier version
        assert "FTB097" not in rules_of(download(migration), "file-sums1training")
        linted = len(list(migration.of("file_linted")))
        download(migration)
        assert len(list(migration.of("file_linted"))) == linted
