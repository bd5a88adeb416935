from __future__ import annotations

from pathlib import Path

import pytest

from ftbridge.errors import JournalCorrupt, RunNotFound
from ftbridge.runs.run import Run
from ftbridge.runs.store import find, runs


def make(home: Path, name: str = "a") -> Run:
    return Run.create(home, name=name, provider="local", spec_text=f"name: {name}\n", spec_suffix=".yaml")


def damage(run: Run) -> None:
    run.append("prepared", data={"splits": {}, "notes": [], "recipe": "", "lines_sha256": ""})
    lines = run.journal_path.read_bytes().splitlines(keepends=True)
    run.journal_path.write_bytes(b"".join([b"rubbish\n", *lines[1:]]))


def test_runs_are_found_by_id_prefix_folder_and_latest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make(home, "alpha"), make(home, "beta")
    assert find(home, first.id).id == first.id
    assert find(home, "bet").id == second.id
    assert find(home, str(first.path)).path == first.path
    assert find(home, "latest").id == second.id
    monkeypatch.chdir(home / "runs")
    assert find(home / "elsewhere", f"./{second.id}").path == second.path
    monkeypatch.chdir(second.path)
    assert find(home / "elsewhere", ".").id == second.id


def test_an_id_goes_before_those_it_begins(home: Path) -> None:
    short = make(home)
    short.path.rename(home / "runs" / "tri")
    make(home, "triage")
    assert find(home, "tri").id == "tri"


def test_an_ambiguous_prefix_lists_what_it_could_mean(home: Path) -> None:
    same = sorted(make(home, "beta").id for _ in range(12))
    with pytest.raises(RunNotFound, match="'beta' begins the ids of 12 runs") as caught:
        find(home, "beta")
    assert [line.strip() for line in caught.value.message.splitlines()[1:]] == [*same[:10], "and 2 more"]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "gamma", "../alpha", "./nowhere", "zzz"])
def test_no_other_name_finds_a_run(home: Path, name: str) -> None:
    make(home, "alpha")
    with pytest.raises(RunNotFound):
        find(home, name)


def test_a_name_nearly_right_gets_the_nearest_ids(home: Path) -> None:
    run = make(home, "alpha")
    with pytest.raises(RunNotFound, match=f"Did you mean {run.id}"):
        find(home, run.id.replace("alpha", "alhpa"))


def test_a_folder_that_is_no_run_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match=r"is not a run folder: it has no journal\.jsonl"):
        find(home, str(tmp_path))


@pytest.mark.parametrize("name", ["latest", "x"])
def test_a_home_without_runs_has_none(home: Path, name: str) -> None:
    assert runs(home) == []
    with pytest.raises(RunNotFound, match="FTBRIDGE_HOME"):
        find(home, name)


def test_runs_come_newest_first(home: Path) -> None:
    items = [make(home, name).id for name in ("b", "c", "a")]
    assert [run.id for run in runs(home)] == items[::-1]


def test_what_is_no_run_or_is_damaged_does_not_hide_the_others(home: Path) -> None:
    good, bad, foreign = make(home, "good"), make(home, "bad"), make(home, "foreign")
    damage(bad)
    foreign.append("evaluated")  # without its candidate
    (home / "runs" / "notes").mkdir()
    (home / "runs" / "notes.txt").write_text("x")
    (home / "runs" / "empty").mkdir()
    (home / "runs" / "empty" / "journal.jsonl").touch()
    (home / "runs" / "odd" / "journal.jsonl").mkdir(parents=True)
    make(home).path.rename(home / "runs" / ".scratch-left-by-a-killed-process")
    assert [run.id for run in runs(home)] == [good.id]
    assert find(home, "latest").id == good.id
    with pytest.raises(JournalCorrupt, match=rf"{bad.id}/journal\.jsonl:1 is damaged"):
        find(home, "bad").state()
    with pytest.raises(JournalCorrupt, match=rf"{foreign.id}/journal\.jsonl, line 2, event evaluated"):
        find(home, "foreign").state()
