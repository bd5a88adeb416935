"""Resume, retry, cancel, pause and fallback of a run at a service: what is said is so, and nothing is paid unasked."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ftbridge.cli import main
from ftbridge.errors import (
    DataError,
    FtbridgeError,
    GateNotMet,
    InDoubt,
    Interrupted,
    JobStuck,
    ProviderRefused,
    TrainingFailed,
)
from ftbridge.runner import control, drive
from ftbridge.runner.start import create_run
from ftbridge.runs.run import Run
from ftbridge.spec import SpecFile
from support.service_faults import fault, lagging
from support.simulated_service import Service

CREATE, LIST, CANCEL = "POST /fine_tuning/jobs", "GET /fine_tuning/jobs", "POST /fine_tuning/jobs/{id}/cancel"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.01)


def prepared(tmp_path: Path, **more: Any) -> Run:
    for name, count in (("train", 12), ("test", 2)):
        lines = [
            {"messages": [{"role": "user", "content": f"{name} {n}"}, {"role": "assistant", "content": "a"}]}
            for n in range(count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec: dict[str, Any] = {
        "name": "small",
        "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
        "model": {"openai": "gpt-test", "local": "nobody/nothing"},
    }
    return create_run(SpecFile.of({**spec, **more}), "openai")


def types(run: Run) -> list[str]:
    return [event.type for event in run.journal.read()]


@pytest.mark.parametrize(("end", "error"), [("failed", TrainingFailed), ("cancelled", Interrupted)])
def test_resuming_says_how_the_job_ended_and_only_a_retry_pays_again(
    service: Service, tmp_path: Path, end: str, error: type
) -> None:
    service.ends("running", end)
    run = prepared(tmp_path)
    for go in (drive.drive, control.resume, control.resume):
        with pytest.raises(error) as raised:
            go(run)
        assert "ftbridge retry" in str(raised.value)
    assert len(service.jobs) == 1
    service.ends("running", "succeeded")
    control.retry(run)
    assert (len(service.jobs), run.state().state) == (2, "succeeded")
    control.retry(run)
    assert len(service.jobs) == 2


def test_a_retry_that_fails_too_is_not_tried_a_third_time_by_resuming(service: Service, tmp_path: Path) -> None:
    service.ends("running", "failed")
    run = prepared(tmp_path)
    for go in (drive.drive, control.retry, control.resume):
        with pytest.raises(TrainingFailed):
            go(run)
    assert len(service.jobs) == 2


def test_a_retry_of_a_job_that_goes_on_follows_it(service: Service, tmp_path: Path) -> None:
    run = prepared(tmp_path)
    service.meets(fault("GET /fine_tuning/jobs/{id}", "401"))
    with pytest.raises(ProviderRefused):
        drive.drive(run)
    assert run.state().state != "failed"  # its job goes on
    assert types(run)[-1] == "stopped"
    control.retry(run)
    assert len(service.jobs) == 1


def test_a_refused_account_has_paid_for_no_completion(service: Service, tmp_path: Path) -> None:
    service.meets(fault(CREATE, "closed", None))
    with pytest.raises(ProviderRefused):
        drive.drive(prepared(tmp_path))
    assert service.requests["POST /chat/completions"] == 0
    assert service.files == {}


def test_with_a_target_the_base_model_is_still_asked_first(service: Service, tmp_path: Path) -> None:
    service.meets(fault(CREATE, "closed", None))
    with pytest.raises(ProviderRefused):
        drive.drive(prepared(tmp_path, evaluation={"target": 0.9}))
    assert service.requests["POST /chat/completions"] == 2


def asked_while_driven(run: Run, when: str, request: Any) -> tuple[Exception | None, Exception | None]:
    """Drive a run in a thread, and ask something of it when its journal shows `when`: the driver's error and the asker's."""
    errors: list[Exception | None] = [None, None]

    def drive_it() -> None:
        try:
            drive.drive(Run.open(run.path))
        except Exception as error:
            errors[0] = error

    thread = threading.Thread(target=drive_it)
    thread.start()
    while when not in types(run) and thread.is_alive():
        time.sleep(0.005)
    try:
        request(run)
    except Exception as error:
        errors[1] = error
    thread.join(30)
    return errors[0], errors[1]


@pytest.mark.parametrize("status", ["400", "403", "404"])
def test_a_cancel_that_the_service_refuses_is_said_and_the_job_is_followed_to_its_end(
    service: Service, tmp_path: Path, status: str
) -> None:
    service.ends(["running", 30], "succeeded")
    service.meets(fault(CANCEL, status, None))
    run = prepared(tmp_path)
    driver, _ = asked_while_driven(run, "submitted", control.cancel)
    (job,) = service.jobs.values()
    assert job["status"] == "succeeded"
    assert "cancelled" not in types(run)[: types(run).index("result")]
    assert run.state().refused is not None
    assert driver is None


@pytest.mark.parametrize("request_", [control.cancel, control.pause])
def test_what_is_asked_while_files_go_up_is_heeded_before_a_job_is_made(
    service: Service, tmp_path: Path, request_: Any
) -> None:
    service.meets(fault("POST /files", "slow_after", seconds=1.0))
    run = prepared(tmp_path)
    driver, _ = asked_while_driven(run, "submit_intended", request_)
    assert isinstance(driver, Interrupted)
    assert service.jobs == {}
    assert run.state().state == ("cancelled" if request_ is control.cancel else "paused")
    assert len(service.files) == (0 if request_ is control.cancel else 1)


def lost(service: Service, run: Run, lag: int) -> None:
    """A creation that took effect, whose answer was lost, at a service whose lists lag, and that refuses any other."""
    service.meets(*lagging(lag), fault(CREATE, "reset_after"), fault(CREATE, "closed", range(2, 60)))
    with pytest.raises(InDoubt):
        drive.drive(run)


def test_a_cancel_in_doubt_is_not_called_done_and_takes_effect_when_the_job_shows(
    service: Service, tmp_path: Path
) -> None:
    service.ends(["running", 1000], "succeeded")
    run = prepared(tmp_path)
    lost(service, run, 40)
    with pytest.raises(InDoubt, match="is cancelled is not known"):
        control.cancel(run)
    assert run.state().state != "cancelled"
    service.meets()
    control.cancel(run)
    assert run.state().state == "cancelled"
    assert [job["status"] for job in service.jobs.values()] == ["cancelled"]


@pytest.mark.parametrize("later", ["model gone", "key refused", "calendar"])
def test_a_job_in_doubt_is_found_before_anything_else_can_refuse(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    run = prepared(tmp_path)
    lost(service, run, 11)
    service.meets(fault(CREATE, "closed", None))  # nothing lags any more, and no other job is taken
    if later == "model gone":
        service.change(shutdown={"gpt-test": "2026-01-01"})
    elif later == "key refused":
        service.meets(fault(CREATE, "closed", None), fault("GET /models/{id}", "401", None))
    else:
        import datetime

        from ftbridge.providers.openai import calendar
        from ftbridge.providers.openai.client import Connection

        monkeypatch.setattr(calendar, "NO_NEW_JOBS", datetime.date(2020, 1, 1))
        monkeypatch.setattr(Connection, "is_usual_address", True)
    control.resume(run)
    assert (len(service.jobs), run.state().state) == (1, "succeeded")


@pytest.mark.parametrize("how", ["lists lag", "lists are refused", "a page", "half an answer"])
def test_nobody_falls_back_while_it_is_in_doubt(service: Service, tmp_path: Path, how: str) -> None:
    run = prepared(tmp_path, fallback="local")
    control.accept_doubt(run)
    lost_then_refused = [fault(CREATE, "reset_after"), fault(CREATE, "closed", 2)]
    if how == "lists lag":
        service.meets(*lost_then_refused, *lagging(60))
    elif how == "lists are refused":
        service.meets(*lost_then_refused, fault(LIST, "403", None))
    elif how == "a page":
        service.meets(fault(CREATE, "html_after", None), *lagging(90))
    else:
        service.meets(fault(CREATE, "cut_after", None), *lagging(90))
    with pytest.raises(FtbridgeError):
        drive.drive(run)
    assert run.state().continued_by is None
    assert run.state().state != "failed"


@pytest.mark.parametrize(
    "error",
    [
        {"code": "unsafe_training_file", "message": "no", "param": None},
        {"code": None, "message": "Some examples were flagged by our moderation system", "param": None},
        {"code": "x", "message": "bad", "param": "validation_file"},
    ],
)
def test_data_that_the_service_finds_unsafe_or_malformed_are_not_trained_elsewhere(
    service: Service, tmp_path: Path, error: dict[str, Any]
) -> None:
    service.ends("running", "failed", error=error)
    run = prepared(tmp_path, fallback="local")
    with pytest.raises(DataError):
        drive.drive(run)
    assert run.state().continued_by is None


def test_where_jobs_cannot_be_listed_somebody_must_accept_that_before_the_upload(
    service: Service, tmp_path: Path
) -> None:
    service.meets(fault(LIST, "403", None))
    run = prepared(tmp_path)
    with pytest.raises(GateNotMet, match="might be created twice"):
        drive.drive(run)
    assert service.files == {}
    control.accept_doubt(run)
    control.resume(run)
    assert len(service.jobs) == 1


def test_a_job_that_shows_no_sign_of_life_is_waited_for_so_long_and_left(service: Service, tmp_path: Path) -> None:
    service.ends(["queued", 10_000], "running", "succeeded", clock="seconds")
    run = prepared(tmp_path, openai={"max_quiet_hours": 0.2 / 3600})
    with pytest.raises(JobStuck, match="is still running at the service"):
        drive.drive(run)
    assert run.state().state == "queued"
    service.advance(10_000)
    control.resume(run)
    assert len(service.jobs) == 1


def command(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(args))
    return int(left.value.code or 0)


def test_an_accounts_jobs_are_listed_with_their_runs_and_adopted_and_cancelled(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(tmp_path)
    lost(service, run, 40)
    [body, *_] = service.bodies(CREATE)
    service.meets()
    service.create_job({**body, "metadata": {}})
    capsys.readouterr()
    assert command("jobs", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {job["run"] for job in listed} == {run.id, None}
    mine = next(job["id"] for job in listed if job["run"] == run.id)
    other = next(job["id"] for job in listed if job["run"] is None)
    assert command("jobs", "cancel", other) == 0
    assert service.jobs[other]["status"] == "cancelled"
    assert command("jobs", "adopt", mine, run.id) == 0
    control.resume(run)
    assert (len(service.jobs), run.state().state) == (2, "succeeded")
    assert command("jobs", "adopt", mine, run.id) == 2
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "80")
    assert command("jobs") == 0
    assert {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()} >= {mine, other}
    monkeypatch.setenv("COLUMNS", "120")
    assert command("jobs") == 0
    assert run.id in capsys.readouterr().out
    assert command("jobs", "probe", "--json") == 0
    output = json.loads(capsys.readouterr().out)
    assert output["jobs are listed"] == output["lists are filtered by metadata"] == "yes"
    assert output["events"] == "yes"


@pytest.mark.parametrize(
    ("end", "says"), [("succeeded", "has succeeded already"), ("cancelled", "is cancelled already")]
)
def test_a_job_of_an_account_that_has_ended_is_said_to_have(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, says: str
) -> None:
    service.ends("running", end)
    run = prepared(tmp_path)
    with contextlib.suppress(Interrupted):
        drive.drive(run)
    [job] = service.jobs
    assert command("jobs", "cancel", job) == 2
    assert f"{job} {says}, so there is nothing to cancel." in capsys.readouterr().err
    assert command("jobs", "cancel", "ftjob-none") != 0
    assert "already" not in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_probing_a_service_that_answers_nothing_fails_after_the_table(
    service: Service, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    away = ("--target", "custom", "--base-url", "http://127.0.0.1:9/v1")
    assert command("jobs", *away, "probe", *more) == 1
    captured = capsys.readouterr()
    assert "answers nothing" in captured.err
    assert "jobs are listed" in captured.out
    service.meets(fault("GET /models", "500", None))
    assert command("jobs", "probe", *more) == 0
