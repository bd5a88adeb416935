"""The commands of a migration from recording to serving, as a user runs them."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftbridge.cli import main
from support.recorded_account import MODEL, NAMES_THE_COLOUR, account, playing

HOSTED = "gpt-4.1-mini-2025-04-14"


@dataclass
class Result:
    """What a command printed."""

    stdout: str
    stderr: str


def call(*words: str, code: int = 0) -> Result:
    """Run `ftbridge migrate WORDS` in this process, as the command line does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["migrate", *words])
    assert ended.value.code == code, f"{out.getvalue()}\n{err.getvalue()}"
    return Result(out.getvalue(), err.getvalue())


def test_the_whole_way_from_inventory_to_a_proof_that_is_met(tmp_path: Path) -> None:
    played = account(tmp_path, items=40, noise=0.3)
    with playing(tmp_path, played, {"speed": 100, "answers": [NAMES_THE_COLOUR]}) as service:
        call("inventory")
        call("download")
        dry = json.loads(call("record", "desk", "--dry-run", "--json").stdout)
        assert (dry["requests"], dry["way"]) == (80, "live")
        assert service.ledger == []
        recorded = json.loads(call("record", "desk", "--way", "live", "--json").stdout)
        assert recorded["so_far"]["finished"]
        planned = json.loads(
            call("retrain", "desk", "--base", HOSTED, "--provider", "openai", "--dry-run", "--json").stdout
        )
        assert planned["spec"]["data"]["validation"].endswith(".jsonl")
        run = json.loads(call("retrain", "desk", "--base", HOSTED, "--provider", "openai", "--json").stdout)["run_id"]
        again = json.loads(call("retrain", "desk", "--base", HOSTED, "--provider", "openai", "--json").stdout)["run_id"]
        assert again == run
        proof = json.loads(call("prove", "desk", run, "--json").stdout)
        assert proof["ok"]
        assert "May the replacement go live?" in Path(proof["page"]).read_text()
        assert Path(proof["page"]).stat().st_mode & 0o077 == 0
        call("serve", "--check")
        failed = call("prove", "desk", run, "--limit", "3", code=4)
        assert "there is no proof that" in failed.stderr
        assert "tuned by the provider openai" in call("serve", "--map", f"{MODEL}={run}", code=2).stderr


def test_serve_lists_what_clients_used_that_cannot_be_done_here(tmp_path: Path) -> None:
    played = account(tmp_path)
    played["stored"] = [
        {"model": "ftjob-desk1", "count": 3, "image": "kept"},
        {"model": "ftjob-desk1", "count": 2, "newest": -5},
    ]
    with playing(tmp_path, played):
        call("inventory")
        call("download", "--stored")
        nothing = call("serve", "--check", code=2)
        assert "whose proof was met" in nothing.stderr
        listed = call("serve", "--map", f"{MODEL}=some-run", "--check", code=4)
    assert "in 3 stored requests: Parts of type 'image_url' cannot be read here" in listed.stderr
    assert "has no proof that some-run is not worse" in listed.stderr


def test_stored_prompts_are_recorded_newest_first_and_those_with_a_lost_image_are_counted(tmp_path: Path) -> None:
    played = account(tmp_path)
    played["jobs"][0].pop("validation")
    played["stored"] = [
        {"model": "ftjob-desk1", "count": 4, "newest": -2},
        {"model": "ftjob-desk1", "count": 2, "image": "lost", "newest": -9},
    ]
    with playing(tmp_path, played) as service:
        call("inventory")
        call("download", "--stored")
        shown = call("record", "desk", "--way", "live", "--samples", "1")
        assert "4 of 4 items" in shown.stdout
        assert "2 stored completions cannot be used" in shown.stderr
        assert {entry["temperature"] for entry in service.ledger} == {0.0, 0.7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["record", "nobody"], "no tuned model 'nobody'"),
        (["retrain", "desk"], "no base model is named"),
        (["retrain", "desk", "--base", "b", "--file", "oops"], "write ID=PATH"),
        (["prove", "desk", "latest"], "there are no runs"),
        (["prove", "desk", "latest", "--judge-url", "http://x/v1"], "needs --judge"),
        (["record", "desk", "--items", "absent.jsonl"], "cannot be read"),
    ],
)
def test_mistakes_are_named_with_exit_code_2(tmp_path: Path, words: list[str], message: str) -> None:
    with playing(tmp_path, account(tmp_path)):
        call("inventory")
        assert message in call(*words, code=2).stderr


def test_without_a_migration_the_first_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["record", "m"], ["retrain", "m", "--base", "b"], ["prove", "m", "r"], ["serve"]):
        assert "ftbridge migrate inventory" in call(*words, code=2).stderr


def test_a_full_disk_keeps_what_was_recorded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftbridge.runs import journal

    with playing(tmp_path, account(tmp_path)) as service:
        call("inventory")
        call("download")
        real, written = journal._write, 0

        def full(*args: Any) -> None:
            nonlocal written
            written += 1
            if written > 12:
                raise OSError(28, "No space left on device")
            real(*args)

        monkeypatch.setattr(journal, "_write", full)
        assert "no room left" in call("record", "desk", "--way", "live", code=1).stderr
        monkeypatch.setattr(journal, "_write", real)
        assert "6 of 6 items" in call("record", "desk", "--way", "live").stdout
        assert service.paid_twice() == []


def test_a_clock_that_is_wrong_changes_no_deadline(tmp_path: Path) -> None:
    played = account(tmp_path) | {"ahead": 40 * 86_400.0}
    last = datetime.date.today() + datetime.timedelta(days=41)
    played["models"]["gpt-4.1-mini-2025-04-14"] = {"shutdown": last.isoformat()}
    with playing(tmp_path, played):
        call("inventory")
        call("download")
        estimate = json.loads(call("record", "desk", "--dry-run", "--json").stdout)
    assert estimate["way"] == "live"
    assert "the model stops in" in estimate["reason"]
