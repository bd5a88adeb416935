"""Following a job: states, events once and in order, figures, failures of any length, what can be asked of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftbridge import http
from ftbridge.errors import DataError, ModelUnavailable, ProviderRefused, TrainingFailed, UsageError, from_document
from ftbridge.providers.base import JobHandle
from ftbridge.providers.openai import retry
from ftbridge.providers.openai.errors import Fault
from ftbridge.providers.openai.jobs.follow import chosen_by
from ftbridge.providers.openai.jobs.results import parse_result_file
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.providers.openai.request import OpenAIRequest
from support.openai_jobs import followed, lowered, submission
from support.openai_service import CSV, Service

JOB, EVENTS = "GET /fine_tuning/jobs/ID", "GET /fine_tuning/jobs/ID/events"


@pytest.fixture
def handle(service: Service, tmp_path: Path) -> JobHandle:
    return OpenAIProvider().submit(submission(tmp_path / "run"))


def states(provider: OpenAIProvider, handle: JobHandle) -> list[str]:
    seen: list[str] = []
    for _ in range(30):
        state = provider.poll(handle).state
        seen += [state] if seen[-1:] != [state] else []
        if state in ("succeeded", "failed", "cancelled"):
            break
    return seen


def test_states_are_the_services_own_words_where_they_are_not_known(service: Service, handle: JobHandle) -> None:
    service.statuses = ["validating_files", "notRunning", "running", "pausing", "evaluating_safety", "succeeded"]
    lines = ["validating", "queued", "running", "pausing", "evaluating_safety", "succeeded"]
    assert states(OpenAIProvider(), handle) == lines


def test_every_event_is_told_once_in_order_over_pages_and_processes(service: Service, handle: JobHandle) -> None:
    for number in range(130):
        service.say(handle.id, f"news {number}")
    service.statuses = ["running", "running", "succeeded"]
    first = OpenAIProvider()
    first.poll(handle)
    listing = list(first.events(handle, None))
    _, rest = followed(OpenAIProvider(), handle, after=listing[-1].id)
    messages = [event.message for event in [*listing, *rest]]
    assert messages[:3] == ["created the job", "news 0", "news 1"]
    assert len(messages) == len(set(messages)) == 1 + 130 + 2 + 1
    assert messages[-1] == "the job is done"


def test_an_event_that_comes_late_and_out_of_place_is_told_once(service: Service, handle: JobHandle) -> None:
    service.statuses = ["running", "running", "running", "succeeded"]
    provider = OpenAIProvider()
    provider.poll(handle)
    listing = list(provider.events(handle, None))
    late = {**service.events[handle.id][-1], "id": "ftevent-late", "message": "late"}
    service.events[handle.id].append(late)
    _, rest = followed(provider, handle, after=listing[-1].id)
    assert [event.message for event in rest].count("late") == 1


@pytest.mark.parametrize("base64", [True, False])
def test_figures_come_from_the_result_file_where_events_tell_none(
    service: Service, handle: JobHandle, base64: bool
) -> None:
    service.tell_metrics, service.base64_results = False, base64
    status, result = followed(OpenAIProvider(), handle)
    steps = [event.metrics for event in result if event.metrics is not None]
    assert [(step.step, step.train_loss, step.train_mean_token_accuracy, step.valid_loss) for step in steps] == [
        (1, 1.5, 0.5, None),
        (2, 1.0, 0.75, 1.25),
    ]
    assert status.trained_tokens == 4480
    assert followed(OpenAIProvider(), handle, after=result[-1].id)[1] == []


def test_a_result_file_of_another_kind_gives_no_figures() -> None:
    assert parse_result_file(b"<html>no</html>") == []
    assert [row.step for row in parse_result_file(b"\xef\xbb\xbf" + CSV.encode())] == [1, 2]
    assert parse_result_file(b"step,train_loss\n1,nan\n")[0].train_loss is None


@pytest.mark.parametrize("kind", ["503", "reset_before", "html_after", "429"])
def test_a_service_that_is_away_changes_nothing_and_is_told_once(
    service: Service, handle: JobHandle, kind: str
) -> None:
    service.faults = [{"route": JOB, "nth": nth, "kind": kind} for nth in range(3, 40)]
    service.faults += [{"route": EVENTS, "nth": nth, "kind": kind} for nth in (2, 3)]
    status, result = followed(OpenAIProvider(), handle)
    assert status.state == "succeeded"
    notes = [event.message for event in result if "answer" in event.message]
    assert len(notes) == 2
    assert "does not answer" in notes[0]
    assert "answers again" in notes[1]


def test_a_process_that_begins_while_the_service_is_away_knows_the_last_state(
    service: Service, handle: JobHandle
) -> None:
    service.statuses = ["running"]
    assert OpenAIProvider().poll(handle).state == "running"
    service.faults = [{"route": JOB, "nth": nth, "kind": "503"} for nth in range(2, 9)]
    assert OpenAIProvider().poll(handle).state == "running"


@pytest.mark.parametrize("error", [None, {}, {"code": None, "message": None, "param": None}, "", []])
def test_an_error_full_of_nothing_is_none(service: Service, handle: JobHandle, error: Any) -> None:
    service.jobs[handle.id]["error"] = error
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
    service: Service, handle: JobHandle, error: Any, raised: type[Exception]
) -> None:
    service.statuses, service.job_error = ["running", "failed"], error
    status, _ = followed(OpenAIProvider(), handle)
    assert status.error is not None
    assert type(from_document(status.error.model_dump())) is raised
    if error:
        assert error["message"] in status.error.message


@pytest.mark.parametrize(("requested", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_job_is_cancelled_and_paused_at_the_service(
    service: Service, handle: JobHandle, requested: str, state: str
) -> None:
    service.statuses = ["running"]
    service.faults = [{"route": f"POST /fine_tuning/jobs/ID/{requested}", "kind": "reset_after"}]
    getattr(OpenAIProvider(), requested)(handle)
    assert OpenAIProvider().poll(handle).state == state


def test_a_paused_job_goes_on_as_the_same_job(service: Service, handle: JobHandle) -> None:
    provider = OpenAIProvider()
    provider.pause(handle)
    assert provider.resume(handle) == handle
    assert service.jobs[handle.id]["status"] == "queued"


def test_cancelling_what_has_ended_is_no_error(service: Service, handle: JobHandle) -> None:
    service.statuses = ["succeeded"]
    OpenAIProvider().poll(handle)
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
    service.faults = [{"route": JOB, "kind": "401"}]
    with pytest.raises(ProviderRefused, match="does not accept the API key"):
        OpenAIProvider().poll(handle)
    service.jobs.clear()
    provider = OpenAIProvider()
    for _ in range(4):  # a read may lag behind a creation
        assert provider.poll(handle).state == "queued"
    with pytest.raises(ModelUnavailable):
        provider.poll(handle)


def test_a_success_without_a_model_is_an_error_that_says_why(service: Service, handle: JobHandle) -> None:
    followed(OpenAIProvider(), handle)
    service.jobs[handle.id]["fine_tuned_model"] = None
    with pytest.raises(ModelUnavailable, match="names no model") as held:
        OpenAIProvider().result(handle)
    assert "safety" in str(held.value)


def test_a_run_goes_on_with_the_service_it_began_with(
    service: Service, handle: JobHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert followed(OpenAIProvider(), handle)[0].state == "succeeded"


def test_the_pace_backs_off_hears_retry_after_and_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert retry.backoff(3, Fault("later", "", retry_after=17)) == 17
    assert all(0 <= retry.backoff(attempt) <= http.CEILING for attempt in range(1, 60))
    assert max(retry.backoff(12) for _ in range(200)) > 20
    http.wait_scale(1)
    pace = retry.Pace()
    assert pace.due
    pace.looked(changed=False)
    assert not pace.due
    pace.now()
    assert pace.due
    http.wait_scale(0)
    for _ in range(1000):
        pace.failed(Fault("lost", ""))
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
