"""A job object of OpenAI's becomes a spec, and every field of it is accounted for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ftbridge.errors import SpecError
from ftbridge.spec.from_openai import spec_from_job
from ftbridge.spec.job_object import JobField, tuned_name, unknown_fields

_NAMES = """
id created_at error.code error.message error.param fine_tuned_model finished_at model object organization_id result_files status
hyperparameters.batch_size hyperparameters.learning_rate_multiplier hyperparameters.n_epochs
trained_tokens training_file validation_file integrations[].type integrations[].wandb.project integrations[].wandb.name
integrations[].wandb.entity integrations[].wandb.tags seed estimated_finish metadata.team method.type
method.supervised.hyperparameters.batch_size method.supervised.hyperparameters.learning_rate_multiplier
method.supervised.hyperparameters.n_epochs
method.dpo.hyperparameters.beta method.dpo.hyperparameters.batch_size
method.dpo.hyperparameters.learning_rate_multiplier method.dpo.hyperparameters.n_epochs
method.reinforcement.grader method.reinforcement.hyperparameters.batch_size
method.reinforcement.hyperparameters.learning_rate_multiplier method.reinforcement.hyperparameters.n_epochs
method.reinforcement.hyperparameters.compute_multiplier method.reinforcement.hyperparameters.eval_interval
method.reinforcement.hyperparameters.eval_samples method.reinforcement.hyperparameters.reasoning_effort
"""
PUBLISHED = _NAMES.split()
"""Every property of the published FineTuningJob (openai-openapi 2.3.0), down to the leaves."""

REPORTED_WHOLE = ("error", "integrations[0]")
"""Objects that the report has one entry for."""

JOB: dict[str, Any] = {
    "object": "fine_tuning.job",
    "id": "ftjob-oak7",
    "model": "gpt-4o-mini-2024-07-18",
    "created_at": 1_730_000_000,
    "finished_at": 1_730_003_600,
    "estimated_finish": None,
    "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:harbour:tides:B1x9",
    "organization_id": "org-harbour",
    "result_files": ["file-curve"],
    "status": "succeeded",
    "training_file": "file-train",
    "validation_file": "file-valid",
    "hyperparameters": {"batch_size": 4, "learning_rate_multiplier": 1.8, "n_epochs": 3},
    "trained_tokens": 48_210,
    "error": {"code": None, "message": None, "param": None},
    "seed": 911,
    "integrations": [
        {"type": "wandb", "wandb": {"project": "tides", "name": None, "entity": "harbour", "tags": ["a"]}}
    ],
    "metadata": {"team": "pilots"},
}
METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"hyperparameters": {"batch_size": 4, "learning_rate_multiplier": 1.8, "n_epochs": 3}},
    "dpo": {"hyperparameters": {"batch_size": 2, "learning_rate_multiplier": "auto", "n_epochs": 1, "beta": 0.3}},
    "reinforcement": {
        "grader": {
            "type": "string_check",
            "operation": "eq",
            "input": "{{sample.output_text}}",
            "reference": "{{item.a}}",
        },
        "hyperparameters": {
            "batch_size": 8,
            "learning_rate_multiplier": 2,
            "n_epochs": 2,
            "compute_multiplier": 1.5,
            "eval_interval": 4,
            "eval_samples": 2,
            "reasoning_effort": "low",
        },
    },
}


def imported(job: dict[str, Any], **more: Any) -> tuple[Any, dict[str, JobField]]:
    created = spec_from_job(job, train="train.jsonl", validation="valid.jsonl", local="base", **more)
    return created.spec, {entry.field: entry for entry in created.fields}


def with_method(kind: str) -> dict[str, Any]:
    old = None if kind != "supervised" else JOB["hyperparameters"]
    return {**JOB, "hyperparameters": old, "method": {"type": kind, kind: METHODS[kind]}}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_property_is_accounted_for_with_a_reason(name: str) -> None:
    kind = next((kind for kind in METHODS if f"method.{kind}." in name), "supervised")
    _, report = imported(with_method(kind))
    path = name.replace("[]", "[0]")
    complete = next((one for one in REPORTED_WHOLE if path.startswith(one)), path)
    entry = report[complete]
    assert entry.reason
    assert entry.field not in unknown_fields(list(report.values()))
    assert (entry.spec is None) == (entry.outcome == "not_portable")


def test_a_property_that_nobody_published_is_named_as_unknown() -> None:
    created = spec_from_job({**with_method("dpo"), "moon_phase": "full"}, train="t.jsonl", local="base")
    assert unknown_fields(created.fields) == ["moon_phase"]


def test_old_and_new_shapes_of_a_supervised_job_become_the_same_spec() -> None:
    old, _ = imported(JOB)
    new, _ = imported({**with_method("supervised"), "hyperparameters": None})
    assert old == new
    assert (old.hyperparameters.n_epochs, old.hyperparameters.batch_size) == (3, 4)
    assert (old.name, old.suffix, old.seed, old.metadata) == ("tides", "tides", 911, {"team": "pilots"})
    assert old.data.validation == "valid.jsonl"
    assert old.openai.integrations[0].project == "tides"


def test_the_multiplier_of_another_service_is_left_at_auto_and_kept_for_a_job_that_is_created_here() -> None:
    spec, report = imported(JOB)
    assert spec.hyperparameters.learning_rate_multiplier == "auto"
    assert report["hyperparameters.learning_rate_multiplier"].outcome == "not_portable"
    spec, report = imported(JOB, keeps_multiplier=True)
    assert spec.hyperparameters.learning_rate_multiplier == 1.8
    assert report["hyperparameters.learning_rate_multiplier"].outcome == "kept"


@pytest.mark.parametrize("old_has_the_number", [True, False])
def test_auto_that_was_settled_to_a_number_becomes_the_number(old_has_the_number: bool) -> None:
    auto, number = {"n_epochs": "auto"}, {"n_epochs": 4}
    old, new = (number, auto) if old_has_the_number else (auto, number)
    job = {**JOB, "hyperparameters": old, "method": {"type": "supervised", "supervised": {"hyperparameters": new}}}
    for order in (job, {"method": job["method"], **job}):
        spec, report = imported(order)
        assert spec.hyperparameters.n_epochs == 4
        assert "auto" in " ".join(entry.reason for name, entry in report.items() if name.endswith("n_epochs"))


def test_a_preference_job_keeps_beta_wherever_a_service_writes_it() -> None:
    spec, _ = imported(with_method("dpo"))
    assert (spec.method, spec.hyperparameters.beta) == ("dpo", 0.3)
    azure = {**JOB, "hyperparameters": None, "method": {"type": "dpo", "dpo": {"beta": 0.2, "l2_multiplier": 0.1}}}
    spec, report = imported(azure)
    assert spec.hyperparameters.beta == 0.2
    assert report["method.dpo.l2_multiplier"].outcome == "not_portable"


def test_the_grader_of_a_reinforcement_job_becomes_the_specs_grader_and_gets_the_name_that_guides_leave_out() -> None:
    spec, report = imported(with_method("reinforcement"))
    assert [grader.name for grader in spec.evaluation.graders] == ["reward"] == [spec.openai.grader]
    assert spec.hyperparameters.reasoning_effort == "low"
    assert report["method.reinforcement.grader"].outcome == "translated"


def test_the_parts_of_a_multi_grader_are_named_whether_they_come_as_a_map_or_a_list() -> None:
    part = METHODS["reinforcement"]["grader"]
    for parts in ({"exact": part}, [{**part, "name": "exact"}], {**part, "name": "exact"}):
        job = with_method("reinforcement")
        grader = {"type": "multi", "graders": parts, "calculate_output": "exact"}
        job["method"] = {"type": "reinforcement", "reinforcement": {"grader": grader}}
        spec, _ = imported(job)
        assert list(spec.evaluation.graders[0].graders) == ["exact"]


def test_what_compatible_services_add_to_hyperparameters_becomes_the_local_section() -> None:
    extra = {"n_epochs": 2, "lora": True, "lora_r": 8, "lora_alpha": 16, "context_length": 4096, "packing": False}
    spec, report = imported({**JOB, "method": None, "hyperparameters": extra})
    assert (spec.local.tuning, spec.local.lora.r, spec.local.lora.alpha) == ("lora", 8, 16)
    assert (spec.local.max_length, spec.local.packing) == (4096, False)
    assert report["hyperparameters.lora_r"].spec == "local.lora.r"


def test_values_outside_the_specs_bounds_are_reported_and_do_not_stop_the_import() -> None:
    job = {**JOB, "hyperparameters": {"n_epochs": 900, "batch_size": 4.0}, "seed": None, "metadata": {"k" * 99: "v"}}
    spec, report = imported(job)
    assert (spec.hyperparameters.n_epochs, spec.hyperparameters.batch_size) == ("auto", 4)
    assert "bounds" in report["hyperparameters.n_epochs"].reason
    assert report["seed"].outcome == "not_portable"
    assert spec.metadata == {}


def test_the_mark_of_a_run_is_not_carried_into_another_run() -> None:
    spec, report = imported({**JOB, "metadata": {"ftbridge_run": "abc", "team": "x"}})
    assert spec.metadata == {"team": "x"}
    assert report["metadata.ftbridge_run"].outcome == "not_portable"


def test_a_method_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SpecError, match=r"ftjob-oak7: there is no method 'osmosis'; known methods: supervised"):
        spec_from_job({**JOB, "method": {"type": "osmosis"}}, train="t.jsonl", local="base")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ft:gpt-4o:acme:triage:a1", ("gpt-4o", "acme", "triage", "a1", None)),
        ("ft:gpt-4o:acme::a1", ("gpt-4o", "acme", None, "a1", None)),
        ("ft:gpt-4o:acme::a1:ckpt-step-90", ("gpt-4o", "acme", None, "a1", 90)),
        ("gpt-4o", None),
        ("ft:gpt-4o", None),
    ],
)
def test_the_parts_of_a_tuned_models_name(name: str, parts: Any) -> None:
    assert tuned_name(name) == parts


_SHAPES: dict[str, list[Any]] = {
    "n_epochs": [None, "auto", 3, 3.0, 900],
    "batch_size": ["auto", 4],
    "learning_rate_multiplier": [None, "auto", 1.8],
}


def _jobs() -> list[dict[str, Any]]:
    """Jobs of every method whose older and newer fields differ in every way, with what services add and what is not valid."""
    rows = [dict(zip(_SHAPES, row, strict=True)) for row in itertools.product(*_SHAPES.values())]
    pairs = [(older, newer) for older in [None, *rows] for newer in rows]
    suffixes = itertools.cycle([None, "tides", "x" * 70])
    shown = itertools.cycle([None, [], JOB["integrations"], [{"type": "other"}], JOB["integrations"] * 7])
    seeds, kinds = itertools.cycle([None, 5, -1]), itertools.cycle(METHODS)
    jobs = []
    for (older, newer), suffix, integrations, seed, kind in zip(pairs, suffixes, shown, seeds, kinds, strict=False):
        settings = {**METHODS[kind], "hyperparameters": {**METHODS[kind]["hyperparameters"], **newer, "lora_r": 8}}
        method = {"type": kind, kind: settings}
        job = {**JOB, "integrations": integrations, "seed": seed, "user_provided_suffix": suffix}
        jobs.append({**job, "hyperparameters": older, "method": method, "metadata": {"a.b": "c", "k" * 99: "v"}})
        jobs.append({"method": method, **jobs[-1]})  # a job says its fields in any order
    return jobs


def _value_at(document: Any, path: str) -> Any:
    if path.startswith("metadata."):
        return document["metadata"][path.removeprefix("metadata.")]
    for part in path.split("."):
        document = document[part]
    return document


@pytest.mark.parametrize("keeps_multiplier", [True, False])
def test_the_report_names_no_field_that_the_spec_does_not_have(keeps_multiplier: bool) -> None:
    checked = 0
    for job in _jobs():
        created = spec_from_job(
            job, train="t.jsonl", validation="v.jsonl", local="base", keeps_multiplier=keeps_multiplier
        )
        document = created.spec.model_dump(mode="json", exclude_unset=True)
        for entry in created.fields:
            assert (entry.spec is None) == (entry.outcome == "not_portable"), entry
            if entry.spec is None:
                continue
            value = _value_at(document, entry.spec)  # raises KeyError for a field that is not there
            checked += 1
            if entry.outcome == "kept":
                assert value == entry.value, entry
    assert checked > 5_000


def test_the_older_multiplier_is_not_portable_where_the_newer_is_not() -> None:
    _, report = imported(with_method("supervised"))
    entry = report["hyperparameters.learning_rate_multiplier"]
    assert (entry.outcome, entry.spec) == ("not_portable", None)
    assert "base rate" in entry.reason


def test_settings_of_the_caller_that_win_are_what_the_report_says() -> None:
    grader = {**METHODS["reinforcement"]["grader"], "name": "reward", "operation": "ne"}
    extra = {**with_method("reinforcement"), "hyperparameters": {"lora_r": 8, "packing": True}}
    spec, report = imported(extra, settings={"lora": {"r": 4}}, evaluation={"graders": [grader]})
    assert spec.local.lora.r == 4
    assert report["hyperparameters.lora_r"].reason == "the spec has 4 instead"
    assert report["hyperparameters.packing"].spec == "local.packing"
    assert report["method.reinforcement.grader"].outcome == "not_portable"
