"""Which run a name stands for, when the replacements of a migration are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbridge.migrate.folder import Migration
from ftbridge.migrate.serving import chosen
from ftbridge.runs.run import Run

MODEL = "ft:gpt-4.1-mini-2025-04-14:acme:desk:1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path))
    return Run.create(tmp_path, name="desk", provider="local", spec_text="name: desk", spec_suffix=".yaml")


def notes_on(run: Run, named: str, *, ok: bool = True) -> list[str]:
    migration = Migration.open("leave", create=True)
    migration.append("proved", model=MODEL, run=run.id, ok=ok, path="proofs/x")
    return [note for note in chosen(migration, {MODEL: named})[1] if "no proof" in note]


@pytest.mark.parametrize("form", ["{id}", "run:{id}", "latest", "run:latest", "desk-local"])
def test_a_proven_run_is_known_by_every_name_it_has(run: Run, form: str) -> None:
    assert notes_on(run, form.format(id=run.id)) == []


@pytest.mark.parametrize("form", ["{id}@12", "another-run"])
def test_what_was_not_proven_is_noted(run: Run, form: str) -> None:
    assert len(notes_on(run, form.format(id=run.id))) == 1


def test_a_proof_that_was_not_met_is_none(run: Run) -> None:
    assert len(notes_on(run, run.id, ok=False)) == 1
