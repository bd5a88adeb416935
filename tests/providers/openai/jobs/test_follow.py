"""Following a job: states, events once and in order, figures, failures of any length, what can be asked of it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftbridge import http
from ftbridge.errors import DataError, ModelUnavailable, ProviderRefused, TrainingFailed, UsageError, from_document
from ftbridge.providers.base import JobHandle
from ftbridge.providers.openai import retry
from ftbridge.providers.openai.errors import ServiceFault
from ftbridge.providers.openai.jobs.follow import chosen_by
from ftbridge.providers.openai.jobs.results import parse_result_file
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.providers.openai.request import OpenAIRequest
from support.openai_jobs import followed, lowered, submission
from support.service_faults import fault
from support.simulated_service import Service

JOB, EVENTS = "GET /fine_tuning/jobs/{id}", "GET /fine_tuning/jobs/{id}/events"
CSV = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,1.5,0.5,,\n2,1.0,0.75,1.25,0.5\n"


@pytest.fixture
def handle(service: Service, tmp_path: Path) -> JobHandle:
    """A job that succeeds at the fourth look."""
    return submitted(service, tmp_path)


def submitted(service: Service, tmp_path: Path, *walk: Any, **jobs: Any) -> JobHandle:
    """A job that walks through these states."""
    service.ends(*walk or ("validating_files", "queued", "running", "succeeded"), **jobs)
    return OpenAIProvider().submit(submission(tmp_path / "run"))


def states(provider: OpenAIProvider, handle: JobHandle) -> list[str]:
    seen: list[str] = []
    for _ in range(30):
        state = provider.poll(handle).state
        seen += [state] if seen[-1:] != [state] else []
        if state in ("succeeded", "failed", "cancelled"):
            break
    return seen


def test_states_are_the_services_own_words_where_they_are_not_known(service: Service, tmp_path: Path) -> None:
    walk = ["validating_files", "notRunning", "running", "pausing", "evaluating_safety", "succeeded"]
    handle = submitted(service, tmp_path, *walk)
    lines = ["validating", "queued", "running", "pausing", "evaluating_safety", "succeeded"]
    assert states(OpenAIProvider(), handle) == lines


def test_every_event_is_told_once_in_order_over_pages_and_processes(service: Service, tmp_path: Path) -> None:
    handle = submitted(service, tmp_path, ["running", 2], "succeeded")
    for number in range(130):
        service.say(handle.id, f"news {number}")
    first = OpenAIProvider()
    first.poll(handle)
    listing = list(first.events(handle, None))
    _, rest = followed(OpenAIProvider(), handle, after=listing[-1].id)
    assert [event.message for event in [*listing, *rest]] == [event["message"] for event in service.events(handle.id)]
    assert {f"news {number}" for number in range(129)} < {event.message for event in listing}
    assert any(event.metrics is not None for event in rest)


def test_an_event_that_comes_late_and_out_of_place_is_told_once(service: Service, tmp_path: Path) -> None:
    handle = submitted(service, tmp_path, ["running", 3], "succeeded")
    service.say(handle.id, "late")
    service.say(handle.id, "in time")
    service.meets({"on": EVENTS, "fault": "lag", "where": {"message": "late"}})
    provider = OpenAIProvider()
    provider.poll(handle)
    listing = list(provider.events(handle, None))
    assert listing[-1].message == "in time"
    assert "late" not in [event.message for event in listing]
    _, rest = followed(provider, handle, after=listing[-1].id)
    assert [event.message for event in rest].count("late") == 1


@pytest.mark.parametrize("base64", [True, False])
def test_figures_come_from_the_result_file_where_events_tell_none(
    service: Service, tmp_path: Path, base64: bool
) -> None:
    handle = submitted(service, tmp_path, "running", "succeeded", metrics=False, base64_results=base64)
    status, result = followed(OpenAIProvider(), handle)
    steps = [event.metrics for event in result if event.metrics is not None]
    job = service.jobs[handle.id]
    table = csv.DictReader(service.content(job["result_files"][0]).decode().splitlines())
    assert [(step.step, step.train_loss, step.train_mean_token_accuracy, step.valid_loss) for step in steps] == [
        (
            int(row["step"]),
            float(row["train_loss"]),
            float(row["train_accuracy"]),
            (row["valid_loss"] and float(row["valid_loss"])) or None,
        )
        for row in table
    ]
    assert [step.step for step in steps] == [1, 2]
    assert status.trained_tokens == job["trained_tokens"] > 0
    assert followed(OpenAIProvider(), handle, after=result[-1].id)[1] == []


def test_a_result_file_of_another_kind_gives_no_figures() -> None:
    assert parse_result_file(b"<html>no</html>") == []
    assert [row.step for row in parse_result_file(b"\xef\xbb\xbf" + CSV.encode())] == [1, 2]
    assert parse_result_file(b"step,train_loss\n1,nan\n")[0].train_loss is None


@pytest.mark.parametrize("kind", ["503", "reset_before", "html_after", "429"])
def test_a_service_that_is_away_changes_nothing_and_is_told_once(
    service: Service, handle: JobHandle, kind: str
) -> None:
    service.meets(fault(JOB, kind, range(3, 40)), fault(EVENTS, kind, [2, 3]))
    status, result = followed(OpenAIProvider(), handle)
    assert status.state == "succeeded"
    notes = [event.message for event in result if "respond" in event.message]
    assert len(notes) == 2
    assert "does not respond" in notes[0]
    assert "responds again" in notes[1]


def test_a_process_that_begins_while_the_service_is_away_knows_the_last_state(service: Service, tmp_path: Path) -> None:
    handle = submitted(service, tmp_path, "running", "succeeded")
    assert OpenAIProvider().poll(handle).state == "running"
    service.meets(fault(JOB, "503", None))
    assert OpenAIProvider().poll(handle).state == "running"


@pytest.mark.parametrize("error", [None, {}, {"code": None, "message": None, "param": None}, "", []])
def test_an_error_full_of_nothing_is_none(service: Service, handle: JobHandle, error: Any) -> None:
    service.alter("job", handle.id, error=error)
    assert OpenAIProvider().poll(handle).error is None


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (
            {"code": "invalid_training_file", "message": "Example 3 cannot be parsed", "param": "training_file"},
            DataError,
        ),
        ({"code": "invalid_n_examples", "message": "needs at least 10", "param": None}, DataError),
        ({"code": "bad", "message": "flagged by moderation: lines 3, 4", "param": None}, DataError),
        ({"code": "exceeded_quota", "message": "no", "param": None}, ProviderRefused),
        ({"code": "server_error", "message": "oops", "param": None}, TrainingFailed),
        (None, TrainingFailed),
    ],
)
def test_a_failed_job_tells_what_kind_of_error_it_is(
    service: Service, tmp_path: Path, error: Any, raised: type[Exception]
) -> None:
    handle = submitted(service, tmp_path, "running", "failed", error=error)
    status, _ = followed(OpenAIProvider(), handle)
    assert status.error is not None
    assert type(from_document(status.error.model_dump())) is raised
    if error:
        assert error["message"] in status.error.message


@pytest.mark.parametrize(("requested", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_job_is_cancelled_and_paused_at_the_service(
    service: Service, tmp_path: Path, requested: str, state: str
) -> None:
    handle = submitted(service, tmp_path, ["running", 9], "succeeded")
    OpenAIProvider().poll(handle)
    service.meets(fault(f"POST /fine_tuning/jobs/{{id}}/{requested}", "reset_after"))
    getattr(OpenAIProvider(), requested)(handle)
    assert OpenAIProvider().poll(handle).state == state


def test_a_paused_job_goes_on_as_the_same_job(service: Service, tmp_path: Path) -> None:
    provider = OpenAIProvider()
    handle = submitted(service, tmp_path, ["running", 9], "succeeded")
    provider.pause(handle)
    assert provider.poll(handle).state == "paused"
    service.meets(fault("POST /fine_tuning/jobs/{id}/resume", "reset_after"))
    assert provider.resume(handle) == handle
    assert service.jobs[handle.id]["status"] in ("queued", "running")
    assert service.requests["POST /fine_tuning/jobs/{}/resume"] == 2  # the answer to the first was lost


def test_cancelling_what_has_ended_is_no_error(service: Service, handle: JobHandle) -> None:
    followed(OpenAIProvider(), handle)
    OpenAIProvider().cancel(handle)
    assert service.jobs[handle.id]["status"] == "succeeded"


def test_a_service_that_cannot_pause_says_so(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBIUS_API_KEY", "nebius-key")
    nebius = {"target": "nebius", "base_url": service.base_url}
    provider = OpenAIProvider()
    handle = provider.submit(submission(tmp_path / "run", openai=nebius))
    with pytest.raises(UsageError, match="cannot pause"):
        provider.pause(handle)


def test_a_job_that_is_gone_or_a_key_that_no_longer_counts_ends_the_following(
    service: Service, handle: JobHandle
) -> None:
    service.meets(fault(JOB, "401"))
    with pytest.raises(ProviderRefused, match="does not accept the API key"):
        OpenAIProvider().poll(handle)
    service.forget("job")
    provider = OpenAIProvider()
    for _ in range(4):  # a read may lag behind a creation
        assert provider.poll(handle).state == "queued"
    with pytest.raises(ModelUnavailable):
        provider.poll(handle)


def test_a_success_without_a_model_is_an_error_that_says_why(service: Service, handle: JobHandle) -> None:
    followed(OpenAIProvider(), handle)
    service.alter("job", handle.id, fine_tuned_model=None)
    with pytest.raises(ModelUnavailable, match="reports no model") as held:
        OpenAIProvider().result(handle)
    assert "safety" in str(held.value)


def test_a_run_goes_on_with_the_service_it_began_with(
    service: Service, handle: JobHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert followed(OpenAIProvider(), handle)[0].state == "succeeded"


def test_the_pace_backs_off_hears_retry_after_and_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert retry.backoff(3, ServiceFault("later", "", retry_after=17)) == 17
    assert all(0 <= retry.backoff(attempt) <= http.CEILING for attempt in range(1, 60))
    assert max(retry.backoff(12) for _ in range(200)) > 20
    http.wait_scale(1)
    pace = retry.PollingPace()
    assert pace.due
    pace.looked(changed=False)
    assert not pace.due
    pace.now()
    assert pace.due
    http.wait_scale(0)
    for _ in range(1000):
        pace.failed(ServiceFault("lost", ""))
    assert pace.due


@pytest.mark.parametrize(
    ("shown", "chosen"),
    [
        ({"n_epochs": "auto", "batch_size": None, "learning_rate_multiplier": -1}, {}),
        ({"n_epochs": 0, "batch_size": float("inf"), "learning_rate_multiplier": True}, {}),
        ({"n_epochs": 4, "batch_size": 2, "learning_rate_multiplier": 1.8, "other": 5}, {"n_epochs": 4, "learning_rate_multiplier": 1.8}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("level", ["method", "top"])
def test_only_numbers_for_what_was_left_to_the_service_are_its_choice(
    shown: dict[str, Any], chosen: dict[str, Any], level: str
) -> None:
    request = lowered(hyperparameters={"batch_size": 2}).request
    inside = {"hyperparameters": shown}
    job = {"method": {"type": "supervised", "supervised": inside}} if level == "method" else inside
    assert chosen_by(OpenAIRequest.of(request), SimpleNamespace(**job)) == chosen
