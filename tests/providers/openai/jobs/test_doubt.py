"""A creation whose outcome is not known: found by every mark, never taken for a refusal, its twins ended."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import FtbridgeError, InDoubt, ProviderRefused, UsageError
from ftbridge.providers.base import JobHandle
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.runs.journal import Journal
from support.openai_jobs import followed, submission
from support.service_faults import fault, lagging, telling
from support.simulated_service import Service

CREATE, LIST, CANCEL = "POST /fine_tuning/jobs", "GET /fine_tuning/jobs", "POST /fine_tuning/jobs/{id}/cancel"


def custom(service: Service) -> dict[str, Any]:
    service.change(jobs={"keeps_metadata": False})
    return {"openai": {"target": "custom", "base_url": service.base_url}}


def notes(folder: Path) -> str:
    return " ".join(event.data["message"] for event in Ledger(folder).of("note"))


def in_doubt(service: Service, submitted: Any) -> None:
    """Leave the journal as a kill right after the request does: with an intent, and a job at the service."""
    OpenAIProvider().submit(submitted)
    journal = Ledger(submitted.folder).journal.path
    lines = journal.read_text().splitlines(keepends=True)
    cut = next(where for where, line in enumerate(lines) if '"what":"job"' in line and '"type":"intended"' in line)
    journal.write_text("".join(lines[: cut + 1]))
    for registry in (submitted.folder.parent).rglob("openai/*.jsonl"):
        if registry.name != "journal.jsonl":
            registry.write_text("")


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_lists_that_are_refused_leave_it_in_doubt_and_nothing_is_made(
    service: Service, tmp_path: Path, status: str
) -> None:
    service.meets(fault(CREATE, "reset_after"), fault(LIST, status, range(2, 99)))
    request = submission(tmp_path / "run")
    with pytest.raises(InDoubt, match="cannot look for it"):
        OpenAIProvider().submit(request)
    assert OpenAIProvider().doubt(request) is not None
    with pytest.raises(InDoubt):
        OpenAIProvider().submit(request)
    assert len(service.jobs) == 1
    service.meets()
    assert OpenAIProvider().submit(request).id in service.jobs
    assert OpenAIProvider().doubt(request) is None
    assert len(service.jobs) == 1


@pytest.mark.parametrize(
    "refusal",
    [{"kind": "403", "code": "training_not_available"}, {"kind": "401"}, {"kind": "404", "code": "model_not_found"}],
)
def test_a_second_attempt_that_is_refused_does_not_end_the_doubt(
    service: Service, tmp_path: Path, refusal: dict[str, Any]
) -> None:
    service.meets(*lagging(10), fault(CREATE, "reset_after"), fault(CREATE, nth=2, **refusal))
    request = submission(tmp_path / "run")
    with pytest.raises(InDoubt, match="earlier attempt got no response"):
        OpenAIProvider().submit(request)
    assert len(service.files) == 2  # a job may train on them
    handle = OpenAIProvider().find(request)
    assert handle is not None
    assert list(service.jobs) == [handle.id]


@pytest.mark.parametrize(
    ("asked_model", "shown_model"),
    [
        ("gpt-test", "gpt-test-2025-04-14"),
        ("gpt-test-2025-04-14", "gpt-test"),
        ("gpt-test", "openai/gpt-test"),
        ("gpt-test", "gpt-test-latest"),
    ],
)
def test_a_lost_job_is_found_under_the_dated_name_of_its_alias(
    service: Service, tmp_path: Path, asked_model: str, shown_model: str
) -> None:
    service.change(models=["gpt-test", "gpt-test-2025-04-14"])
    request = submission(tmp_path / "run", model={"openai": asked_model}, **custom(service))
    in_doubt(service, request)
    (job,) = service.jobs.values()
    service.alter("job", job["id"], model=shown_model)
    handle = OpenAIProvider().find(request)
    assert handle is not None
    assert handle.id == job["id"]


@pytest.mark.parametrize(
    "other",
    [
        {"hyperparameters": {"n_epochs": 9}},
        {"hyperparameters": {"n_epochs": 3, "batch_size": 4}},
        {"seed": 8},
        {"suffix": "another"},
        {"model": {"openai": "gpt-other"}},
    ],
)
def test_a_job_of_the_same_file_with_other_settings_is_not_taken(
    service: Service, tmp_path: Path, other: dict[str, Any]
) -> None:
    service.change(models=["gpt-test", "gpt-other"])
    base = {"hyperparameters": {"n_epochs": 3, "batch_size": 2}, "seed": 7, "suffix": "mine", **custom(service)}
    OpenAIProvider().submit(submission(tmp_path / "first", token="first", **base))  # the files are there
    mine = submission(tmp_path / "mine", token="mine", **base)
    [body] = service.bodies(CREATE)
    changed = submission(tmp_path / "changed", token="x", **{**base, **other}).request.body
    service.create_job({**body, **changed})  # by a program that the registry knows nothing of
    service.meets(fault(CREATE, "reset_before"), fault(CREATE, "503", 2))
    handle = OpenAIProvider().submit(mine)
    assert service.requests[CREATE] == 3
    assert list(service.jobs)[-1] == handle.id


def test_new_jobs_that_tell_nothing_leave_it_to_a_person(service: Service, tmp_path: Path) -> None:
    request = submission(tmp_path / "run", **custom(service))
    in_doubt(service, request)
    (job,) = service.jobs.values()
    service.alter("job", job["id"], training_file=None)
    with pytest.raises(InDoubt, match="does not show"):
        OpenAIProvider().submit(request)
    handle = OpenAIProvider().adopt(request, job["id"])
    assert OpenAIProvider().submit(request) == handle
    assert len(service.jobs) == 1


def test_a_job_that_another_run_has_cannot_be_adopted(service: Service, tmp_path: Path) -> None:
    other = OpenAIProvider().submit(submission(tmp_path / "other", token="other"))
    with pytest.raises(UsageError, match="another run"):
        OpenAIProvider().adopt(submission(tmp_path / "mine", token="mine"), other.id)


def test_a_service_whose_jobs_tell_nothing_is_known_as_such_to_the_next_run(service: Service, tmp_path: Path) -> None:
    settings = custom(service)
    request = submission(tmp_path / "one", token="one", **settings)
    OpenAIProvider().submit(request)
    assert OpenAIProvider().unpromised(request) is None
    registry = next(
        path
        for path in Path(tmp_path).rglob("*.jsonl")
        if path.parent.name == "openai" and path.name != "journal.jsonl"
    )
    Journal(registry).append("marks", token=False, file=False)
    assert "neither" in str(OpenAIProvider().unpromised(request))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def _home(home: Path) -> None:
    pass


@pytest.mark.parametrize("completed", [True, False])
def test_a_twin_with_the_token_is_cancelled_while_the_job_is_followed(
    service: Service, tmp_path: Path, completed: bool
) -> None:
    service.meets(*([] if completed else [fault(CREATE, "reset_after")]))
    request = submission(tmp_path / "run")
    handle = OpenAIProvider().submit(request)
    twin = service.create_job(service.bodies(CREATE)[0])  # a proxy repeated the request, late
    followed(OpenAIProvider(), handle)
    assert service.jobs[twin["id"]]["status"] == "cancelled"
    assert service.jobs[handle.id]["status"] == "succeeded"
    assert f"{twin['id']}, a second job" in notes(request.folder)


def test_a_twin_that_had_ended_is_said_with_what_it_costs(service: Service, tmp_path: Path) -> None:
    request = submission(tmp_path / "run")
    handle = OpenAIProvider().submit(request)
    twin = service.create_job(service.bodies(CREATE)[0])
    service.alter("job", twin["id"], status="succeeded")
    followed(OpenAIProvider(), handle)
    assert "billed like the first" in notes(request.folder)


def test_without_tokens_a_twin_is_cancelled_after_a_lost_answer_and_else_only_named(
    service: Service, tmp_path: Path
) -> None:
    settings = custom(service)
    for name, faults, end in (
        ("clean", [], "queued"),
        ("lost", [fault(CREATE, "reset_before")], "cancelled"),
    ):
        service.meets(*faults)
        request = submission(tmp_path / name, token=name, seed=len(name), **settings)
        handle = OpenAIProvider().submit(request)
        twin = service.create_job(service.bodies(CREATE)[-1])
        followed(OpenAIProvider(), handle)
        assert service.jobs[twin["id"]]["status"] == end
        assert twin["id"] in notes(request.folder)


def test_a_twin_that_cannot_be_cancelled_leaves_the_run_in_doubt(service: Service, tmp_path: Path) -> None:
    request = submission(tmp_path / "run")
    handle = OpenAIProvider().submit(request)
    service.create_job(service.bodies(CREATE)[0])
    service.meets(fault(CANCEL, "400", None))
    followed(OpenAIProvider(), handle)
    assert "may still be running" in str(OpenAIProvider().doubt(request))


def test_a_stop_that_is_asked_between_two_files_makes_no_job(service: Service, tmp_path: Path) -> None:
    def stop() -> None:
        raise FtbridgeError("stop")

    request = submission(tmp_path / "run").model_copy(update={"check_requests": stop})
    with pytest.raises(FtbridgeError, match="stop"):
        OpenAIProvider().submit(request)
    assert (service.jobs, len(service.files)) == ({}, 1)
    OpenAIProvider().discard(request)
    assert service.files == {}


@pytest.mark.parametrize("status", ["failed", "error", "expired", "cancelled"])
def test_a_file_that_nothing_will_be_made_of_is_an_error_at_once_and_removed(
    service: Service, tmp_path: Path, status: str
) -> None:
    service.meets(*telling(status))
    with pytest.raises(FtbridgeError) as raised:
        OpenAIProvider().submit(submission(tmp_path / "run"))
    assert raised.value.exit_code == 3
    assert (service.requests["GET /files/{}"], service.files) == (1, {})


def test_a_file_that_another_run_takes_up_meanwhile_stays(service: Service, tmp_path: Path) -> None:
    first = submission(tmp_path / "first", token="first")
    service.meets(fault(CREATE, "429", message="at most 2 requests per day"))
    with pytest.raises(FtbridgeError):
        OpenAIProvider().submit(first)
    OpenAIProvider().submit(submission(tmp_path / "second", token="second"))
    service.meets(fault(CREATE, "closed", None))
    with pytest.raises(ProviderRefused):
        OpenAIProvider().submit(first)
    assert len(service.files) == 2


def test_an_upload_that_a_proxy_repeats_leaves_one_copy(service: Service, tmp_path: Path) -> None:
    service.meets({"on": "POST /files", "fault": "twice"})
    request = submission(tmp_path / "run", validation=False)
    name = f"ftbridge-train-{hashlib.sha256(request.train.read_bytes()).hexdigest()[:16]}.jsonl"
    OpenAIProvider().submit(request)
    assert service.requests["DELETE /files/{}"] == 1
    assert [file["filename"] for file in service.files.values()] == [name]


@pytest.mark.parametrize("lag", [1, 3])
def test_a_job_that_reads_do_not_know_yet_is_waited_for(service: Service, tmp_path: Path, lag: int) -> None:
    handle = OpenAIProvider().submit(submission(tmp_path / "run"))
    service.meets(fault("GET /fine_tuning/jobs/{id}", "404", range(1, 1 + lag)))
    assert followed(OpenAIProvider(), handle)[0].state == "succeeded"


@pytest.mark.parametrize("finish", [0, -5, 1e20, float("inf"), float("nan"), "soon", True, None])
def test_an_expected_end_that_cannot_be_is_none(service: Service, tmp_path: Path, finish: object) -> None:
    handle = OpenAIProvider().submit(submission(tmp_path / "run"))
    service.meets({"on": "GET /fine_tuning/jobs/{id}", "fault": "alter", "set": {"estimated_finish": finish}})
    assert OpenAIProvider().poll(handle).estimated_finish is None


def test_an_expected_end_in_milliseconds_is_read_as_such(service: Service, tmp_path: Path) -> None:
    handle = OpenAIProvider().submit(submission(tmp_path / "run"))
    service.alter("job", handle.id, estimated_finish=1_764_116_000_000)
    assert OpenAIProvider().poll(handle).estimated_finish == 1_764_116_000


def test_events_without_ids_or_times_are_told_once(service: Service, tmp_path: Path) -> None:
    handle: JobHandle = OpenAIProvider().submit(submission(tmp_path / "run", validation=False))
    for text in ("again", "again", "else"):
        service.say(handle.id, text)
    for where, event in enumerate(service.events(handle.id)):
        service.alter("event", event["id"], created_at=[None, "2026-11-26T10:00:00Z", float(where)][where % 3])
    service.meets({"on": "GET /fine_tuning/jobs/{id}/events", "fault": "alter", "set": {"data[].id": None}})
    _, result = followed(OpenAIProvider(), handle)
    messages = [event.message for event in result]
    assert (messages.count("again"), messages.count("else")) == (2, 1)
