"""Retraining: the jobs of a tuned model become one run elsewhere, once, whatever happens to the process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftbridge.errors import UsageError
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.items import items_of
from ftbridge.migrate.record import RecordWish, record
from ftbridge.migrate.recording import Recording
from ftbridge.migrate.retrain import TERMS, RetrainWish, is_distilled, plan, start
from ftbridge.runner import drive
from ftbridge.runs.run import Run
from support.kills import kill_again_and_again
from support.recorded_account import MODEL, NAMES_THE_COLOUR, account, lamps, playing, write

HOSTED = "gpt-4.1-mini-2025-04-14"


def begin() -> Migration:
    migration = Migration.open(create=True)
    take_inventory(migration)
    return migration


def wish(folder: Path, **more: Any) -> RetrainWish:
    usual = {"model": MODEL, "base": "smollm2-135m-instruct", "stand_ins": {"ftjob-desk1": folder / "train.jsonl"}}
    return RetrainWish(**{**usual, **more})


def test_a_job_becomes_a_spec_in_the_migrations_folder_with_a_report_of_its_fields(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)):
        planned = plan(begin(), wish(tmp_path, overrides=("local.max_length=512",)))
    assert planned.spec.model.local == "smollm2-135m-instruct"
    assert planned.spec.model.openai == HOSTED
    assert planned.spec.data.train == str(tmp_path / "train.jsonl")
    assert planned.spec.local.max_length == 512
    assert planned.spec.hyperparameters.n_epochs == 3
    report = json.loads(planned.path.with_suffix(".fields.json").read_text())
    assert {entry["outcome"] for entry in report} == {"kept", "translated", "not_portable"}
    assert planned.draft().spec.name == planned.spec.name


def test_chained_jobs_are_followed_to_the_first_base_and_their_data_concatenated_in_order(tmp_path: Path) -> None:
    played = account(tmp_path)
    more = write(tmp_path / "more.jsonl", lamps(12, first=900))
    chained = {"id": "ftjob-desk2", "project": "proj_desk", "continues": "ftjob-desk1", "training": str(more)}
    played["jobs"].append({**chained, "suffix": "desk-v2", "created": -10})
    files = {"ftjob-desk1": tmp_path / "train.jsonl", "ftjob-desk2": more}
    with playing(tmp_path, played):
        planned = plan(begin(), wish(tmp_path, model="desk-v2", stand_ins=files))
    assert planned.spec.data.train == [str(tmp_path / "train.jsonl"), str(more)]
    assert planned.spec.model.openai == HOSTED
    assert any(entry.field == "model" and entry.outcome == "translated" for entry in planned.fields)


def test_a_chain_of_two_methods_says_what_to_train_first(tmp_path: Path) -> None:
    played = account(tmp_path)
    pairs = [
        {
            "input": {"messages": line["messages"][:1]},
            "preferred_output": line["messages"][1:],
            "non_preferred_output": [{"role": "assistant", "content": "grey"}],
        }
        for line in lamps(12, first=900)
    ]
    prefer = write(tmp_path / "prefer.jsonl", pairs)
    dpo = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1, "beta": 0.2}
    chained = {"id": "ftjob-desk2", "project": "proj_desk", "continues": "ftjob-desk1", "training": str(prefer)}
    played["jobs"].append({**chained, "method": "dpo", "suffix": "desk-v2", "hyperparameters": dpo, "created": -10})
    files = {"ftjob-desk1": tmp_path / "train.jsonl", "ftjob-desk2": prefer}
    with playing(tmp_path, played):
        planned = plan(begin(), wish(tmp_path, model="desk-v2", stand_ins=files))
    assert (planned.spec.method, planned.spec.data.train, planned.spec.hyperparameters.beta) == (
        "dpo",
        str(prefer),
        0.2,
    )
    assert any(f"ftbridge migrate retrain {MODEL}" in note for note in planned.notes)


def test_a_file_that_is_not_here_is_named_with_what_can_stand_in_for_it(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)):
        migration = begin()
        with pytest.raises(
            UsageError, match=r"the training file \S+ of ftjob-desk1 has not been downloaded"
        ) as missing:
            plan(migration, wish(tmp_path, stand_ins={}))
        assert "--file" in (missing.value.hint or "")
        with pytest.raises(UsageError, match="there is no such file"):
            plan(migration, wish(tmp_path, stand_ins={"ftjob-desk1": tmp_path / "nowhere.jsonl"}))


def test_without_a_base_the_size_of_open_models_that_are_a_common_start_is_suggested(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)), pytest.raises(UsageError, match="no base model is named") as missing:
        plan(begin(), wish(tmp_path, base=None))
    assert "3B to 8B" in (missing.value.hint or "")


def test_a_file_with_other_tokens_than_the_job_was_trained_on_is_noticed(tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", lamps(200))
    played = account(tmp_path)  # bills 900 tokens a step; the file has 485
    played["jobs"][0] |= {
        "steps": 1,
        "hyperparameters": {"n_epochs": 2, "batch_size": 1, "learning_rate_multiplier": 1},
    }
    with playing(tmp_path, played):
        migration = begin()
        same = plan(migration, wish(tmp_path))
        noted = plan(migration, wish(tmp_path, stand_ins={"ftjob-desk1": other}))
    assert not any("may not be the file" in note for note in same.notes)
    assert any("may not be the file" in note for note in noted.notes)


def test_distilled_completions_are_half_of_the_items_with_a_note_on_the_terms(tmp_path: Path) -> None:
    settings = write(tmp_path / "own.jsonl", lamps(20, first=500))
    with playing(tmp_path, account(tmp_path, items=20)):
        migration = begin()
        with pytest.raises(UsageError, match="no completions of .* are recorded to distil from"):
            plan(migration, wish(tmp_path, distil=True))
        record(migration, RecordWish(model=MODEL, items=settings, samples=0, way="live"))
        planned = plan(migration, wish(tmp_path, distil=True))
    _, distilled = planned.spec.data.train
    added = [json.loads(line)["messages"] for line in Path(distilled).read_text().splitlines()]
    chosen = [item for item in items_of(settings, "file") if is_distilled(item)]
    assert [messages[0] for messages in added] == [item.request["messages"][0] for item in chosen]
    assert 0 < len(added) < 20
    assert TERMS in planned.notes


def test_graders_of_a_file_become_the_specs(tmp_path: Path) -> None:
    grader = {
        "type": "string_check",
        "name": "same",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "x",
    }
    (tmp_path / "graders.json").write_text(json.dumps([grader]))
    with playing(tmp_path, account(tmp_path)):
        planned = plan(begin(), wish(tmp_path, graders=tmp_path / "graders.json"))
    assert [grader.name for grader in planned.spec.evaluation.graders] == ["same"]


@pytest.mark.slow
def test_killed_again_and_again_at_its_journal_steps_a_retraining_is_one_run_with_one_paid_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = {"speed": 50, "answers": [NAMES_THE_COLOUR]}
    with playing(tmp_path, account(tmp_path), fast, apart=True) as service:
        begin()
        monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0.01")

        def work() -> None:
            chosen = wish(tmp_path, provider="openai", base=HOSTED)
            migration = Migration.open()
            run = start(migration, plan(migration, chosen), chosen)
            drive.drive(run)

        jobs = len(service.state["jobs"])
        assert kill_again_and_again(work) > 5
        work()
        assert len(service.state["jobs"]) == jobs + 1
        runs = list((Path(os.environ["FTBRIDGE_HOME"]) / "runs").glob("desk-*"))
        assert [Run.open(run).state().state for run in runs] == ["succeeded"]
        assert Migration.open().last("retrained", run=runs[0].name) is not None


def test_completions_that_were_cut_off_are_no_training_data_and_are_counted(tmp_path: Path) -> None:
    prompts = write(tmp_path / "own.jsonl", lamps(20, first=500))
    items = [item for item in items_of(prompts, "file") if is_distilled(item)]
    cut = {"on": "POST /chat/completions", "fault": "alter", "set": {"choices[].finish_reason": "length"}}
    filtered = {**cut, "set": {"choices[].finish_reason": "content_filter"}}
    faults = [{**cut, "nth": list(range(1, 8))}, {**filtered, "nth": list(range(8, 14))}]
    with playing(tmp_path, account(tmp_path, items=20), {"faults": faults}):
        migration = begin()
        record(migration, RecordWish(model=MODEL, items=prompts, samples=0, way="live"))
        planned = plan(migration, wish(tmp_path, distil=True))
    recording = Recording.of(migration, MODEL)
    ends = [recording.samples[item.key, 0].finish_reason for item in items]
    assert {"length", "content_filter", "stop"} == set(ends)
    added = Path(planned.spec.data.train[1]).read_text().splitlines()
    assert len(added) == ends.count("stop")
    note = next(note for note in planned.notes if "Left out of training" in note)
    assert f"cut off: {len(ends) - len(added)} (" in note
    assert f"length {ends.count('length')}" in note
    assert f"content_filter {ends.count('content_filter')}" in note


def test_where_every_completion_was_cut_off_nothing_is_distilled_and_the_reason_is_named(tmp_path: Path) -> None:
    cut = {"on": "POST /chat/completions", "fault": "alter", "set": {"choices[].finish_reason": "length"}}
    with playing(tmp_path, account(tmp_path, items=20), {"faults": [cut]}):
        migration = begin()
        record(migration, RecordWish(model=MODEL, items=tmp_path / "valid.jsonl", samples=0, way="live"))
        with pytest.raises(UsageError, match=r"but ones that were cut off \(length \d+\)"):
            plan(migration, wish(tmp_path, distil=True))


def test_the_report_names_nothing_that_the_spec_lacks_or_that_was_changed_on_the_way(tmp_path: Path) -> None:
    played = account(tmp_path)
    wandb = {"type": "wandb", "wandb": {"project": "desk", "tags": []}}
    played["jobs"][0] |= {"integrations": [wandb], "metadata": {"team.name": "desk"}, "seed": 5}
    grader = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}"}
    (tmp_path / "graders.json").write_text(json.dumps([{**grader, "reference": "x"}]))
    changes = ("hyperparameters.n_epochs=1", "seed=6")
    with playing(tmp_path, played):
        migration = begin()
        local = plan(migration, wish(tmp_path, overrides=changes, graders=tmp_path / "graders.json"))
        hosted = plan(migration, wish(tmp_path, provider="openai", base="gpt-4.1-nano-2025-04-14"))
    written = yaml.safe_load(local.path.read_text())
    assert "openai" not in written
    report = {entry.field: entry for entry in local.fields}
    assert report["integrations[0]"].outcome == "not_portable"
    assert "ftbridge track" in report["integrations[0]"].reason
    assert {entry.outcome for name, entry in report.items() if name.endswith("n_epochs")} == {"not_portable"}
    assert (report["seed"].spec, report["seed"].reason) == (None, "the spec has 6 instead")
    assert report["metadata.team.name"].outcome == "kept"
    saved = json.loads(local.path.with_suffix(".fields.json").read_text())
    assert saved == [entry.model_dump(mode="json") for entry in local.fields]
    elsewhere = {entry.field: entry for entry in hosted.fields}
    assert elsewhere["integrations[0]"].spec == "openai.integrations"
    assert elsewhere["model"].reason == 'the spec has "gpt-4.1-nano-2025-04-14" instead'
