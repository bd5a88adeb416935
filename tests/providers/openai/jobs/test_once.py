"""Created exactly once: jobs and files, through every way a request can fail, crashes, and lists that lag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import DataError, ProviderRefused
from ftbridge.providers.openai.errors import ServiceUnavailable
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.provider import OpenAIProvider
from support.openai_jobs import followed, submission
from support.service_faults import fault, lagging, telling
from support.simulated_service import Service

UNANSWERED = ["reset_before", "reset_after", "cut_after", "html_after", "500", "503", "408", "409"]
CREATE, UPLOAD = "POST /fine_tuning/jobs", "POST /files"


def copies(service: Service) -> list[tuple[str, int]]:
    """Files for training, by content and how many there are of each."""
    contents = service.uploads()
    return [(content[:60].decode(), contents.count(content)) for content in dict.fromkeys(contents)]


@pytest.mark.parametrize("target", ["openai", "custom"])
@pytest.mark.parametrize("kind", UNANSWERED)
def test_a_create_request_without_an_answer_makes_one_job(
    service: Service, tmp_path: Path, kind: str, target: str
) -> None:
    service.change(faults=[fault(CREATE, kind, [1, 2])], jobs={"keeps_metadata": target == "openai"})
    request = submission(tmp_path / "run", openai={"target": target, "base_url": service.base_url})
    handle = OpenAIProvider().submit(request)
    assert list(service.jobs) == [handle.id]
    assert service.jobs[handle.id]["metadata"] == ({TOKEN_KEY: "small-1"} if target == "openai" else None)
    assert service.bodies(CREATE)[0]["metadata"] == {TOKEN_KEY: "small-1"}


@pytest.mark.parametrize("kind", UNANSWERED)
def test_an_upload_without_an_answer_leaves_one_copy_of_each_file(service: Service, tmp_path: Path, kind: str) -> None:
    service.meets(fault(UPLOAD, kind, [1, 3]))
    OpenAIProvider().submit(submission(tmp_path / "run"))
    assert [count for _, count in copies(service)] == [1, 1]
    assert len(service.jobs) == 1


def test_a_list_that_lags_is_looked_at_again_before_anything_is_made_twice(service: Service, tmp_path: Path) -> None:
    service.meets(*lagging(3), fault(UPLOAD, "reset_after"), fault(CREATE, "reset_after"))
    OpenAIProvider().submit(submission(tmp_path / "run"))
    assert len(service.jobs) == 1
    assert [count for _, count in copies(service)] == [1, 1]


def test_a_slow_service_that_shows_a_job_too_late_has_the_twin_cancelled(service: Service, tmp_path: Path) -> None:
    service.meets(*lagging(10), fault(CREATE, "reset_after"))  # as long as anyone looks: each look is at two lists
    handle = OpenAIProvider().submit(submission(tmp_path / "run", validation=False))
    others = [job["status"] for job in service.jobs.values() if job["id"] != handle.id]
    assert others == ["cancelled"]
    assert service.jobs[handle.id]["status"] != "cancelled"


def test_a_submission_called_again_returns_the_job_that_is_there(service: Service, tmp_path: Path) -> None:
    request = submission(tmp_path / "run")
    first = OpenAIProvider().submit(request)
    assert OpenAIProvider().submit(request) == first
    assert service.requests[CREATE] == 1


@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_a_crash_between_the_request_and_its_answer_is_found_out(
    service: Service, tmp_path: Path, keeps_metadata: bool
) -> None:
    """The journal ends with the intent, as after a kill; the job exists at the service."""
    service.change(jobs={"keeps_metadata": keeps_metadata})
    request = submission(
        tmp_path / "run", openai={} if keeps_metadata else {"target": "custom", "base_url": service.base_url}
    )
    handle = OpenAIProvider().submit(request)
    journal = Ledger(request.folder).journal.path
    lines = journal.read_text().splitlines(keepends=True)
    cut = next(where for where, line in enumerate(lines) if '"what":"job"' in line and '"type":"intended"' in line)
    journal.write_text("".join(lines[: cut + 1]))
    assert OpenAIProvider().find(request) == handle
    journal.write_text("".join(lines[: cut + 1]))
    assert OpenAIProvider().submit(request) == handle
    assert service.requests[CREATE] == 1


def test_where_metadata_is_dropped_another_runs_job_on_the_same_file_is_not_taken(
    service: Service, tmp_path: Path
) -> None:
    service.change(jobs={"keeps_metadata": False})
    custom = {"target": "custom", "base_url": service.base_url}
    other = OpenAIProvider().submit(submission(tmp_path / "other", token="other", openai=custom))
    service.meets(fault(CREATE, "reset_before"))
    mine = OpenAIProvider().submit(submission(tmp_path / "mine", token="mine", openai=custom))
    assert mine.id != other.id
    assert service.jobs[mine.id]["training_file"] == service.jobs[other.id]["training_file"]


def test_a_file_is_used_again_by_the_next_run_and_uploaded_anew_when_it_is_gone(
    service: Service, tmp_path: Path
) -> None:
    OpenAIProvider().submit(submission(tmp_path / "one", token="one"))
    OpenAIProvider().submit(submission(tmp_path / "two", token="two"))
    assert service.requests[UPLOAD] == 2
    service.forget("file")
    OpenAIProvider().submit(submission(tmp_path / "three", token="three"))
    assert service.requests[UPLOAD] == 4


def test_a_refused_organisation_is_told_once_and_its_files_are_removed(service: Service, tmp_path: Path) -> None:
    service.meets(fault(CREATE, "closed", None))
    with pytest.raises(ProviderRefused, match="no longer allows this organisation to create") as refused:
        OpenAIProvider().submit(submission(tmp_path / "run"))
    assert refused.value.exit_code == 5
    assert "--provider local" in str(refused.value)
    assert (service.requests[CREATE], service.files) == (1, {})


def test_a_refused_run_does_not_remove_files_of_another(service: Service, tmp_path: Path) -> None:
    OpenAIProvider().submit(submission(tmp_path / "one", token="one"))
    service.meets(fault(CREATE, "closed", None))
    with pytest.raises(ProviderRefused):
        OpenAIProvider().submit(submission(tmp_path / "two", token="two"))
    assert len(service.files) == 2


def test_a_service_that_never_answers_is_given_up_and_the_next_submission_goes_on(
    service: Service, tmp_path: Path
) -> None:
    service.meets(fault(CREATE, "503", None))
    request = submission(tmp_path / "run")
    with pytest.raises(ServiceUnavailable, match="no usable response") as given_up:
        OpenAIProvider().submit(request)
    assert "resume" in str(given_up.value)
    service.meets()
    assert OpenAIProvider().submit(request).id in service.jobs
    assert len(service.jobs) == 1


@pytest.mark.parametrize(
    ("refusal", "tries", "error", "says"),
    [
        ({"kind": "429", "message": "rate limit reached", "headers": {"retry-after": "7"}}, 2, None, ""),
        ({"kind": "400", "message": "the file is not ready yet"}, 2, None, ""),
        ({"kind": "429", "message": "reached the maximum of 4 fine-tuning requests per day for the model"}, 1, ServiceUnavailable, "no more jobs today"),
        ({"kind": "429", "code": "insufficient_quota"}, 1, ProviderRefused, "cannot pay"),
        ({"kind": "401", "message": "Incorrect API key provided"}, 1, ProviderRefused, "does not accept the API key"),
        ({"kind": "422", "message": "n_epochs too large"}, 1, ProviderRefused, "n_epochs too large"),
    ],
)  # fmt: skip
def test_an_answer_that_says_no_is_repeated_only_where_that_can_help(
    service: Service, tmp_path: Path, refusal: dict[str, Any], tries: int, error: type[Exception] | None, says: str
) -> None:
    service.meets(fault(CREATE, **refusal))
    if error is None:
        OpenAIProvider().submit(submission(tmp_path / "run"))
    else:
        with pytest.raises(error, match=says):
            OpenAIProvider().submit(submission(tmp_path / "run"))
    assert service.requests[CREATE] == tries
    looks = service.requests["GET /fine_tuning/jobs"]
    assert looks == (
        1 if error is not None else looks
    )  # the newest job before the attempt, and nothing to look for after it


def test_a_file_that_the_service_finds_bad_is_an_error_of_the_data(service: Service, tmp_path: Path) -> None:
    service.change(file_status="error")
    with pytest.raises(DataError, match="Line 1 cannot be read"):
        OpenAIProvider().submit(submission(tmp_path / "run"))
    assert service.jobs == {}


@pytest.mark.parametrize("status", [None, "uploaded"])
def test_a_host_that_tells_no_file_status_is_not_waited_for(
    service: Service, tmp_path: Path, status: str | None
) -> None:
    service.meets(*telling(status))
    assert OpenAIProvider().submit(submission(tmp_path / "run")).id in service.jobs


def test_azure_gets_files_with_a_byte_order_mark(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-1")
    azure = {"target": "azure", "base_url": service.azure_url, "training_type": "globalStandard"}
    OpenAIProvider().submit(submission(tmp_path / "run", openai=azure))
    assert len(service.uploads()) == 2
    assert all(content.startswith(b"\xef\xbb\xbf{") for content in service.uploads())
    assert service.bodies(CREATE)[0]["trainingType"] == "globalStandard"
    assert not list((tmp_path / "run" / "openai").glob("*train*"))


def test_a_large_file_goes_up_in_parts(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from ftbridge.data import targets
    from ftbridge.providers.openai.jobs import upload

    monkeypatch.setitem(targets.TARGETS, "openai", replace(targets.TARGETS["openai"], upload_in_parts_above=100))
    monkeypatch.setattr(upload, "PART_BYTES", 300)
    service.meets(fault("POST /uploads/{id}/parts", "reset_after", 2))
    request = submission(tmp_path / "run", validation=False)
    OpenAIProvider().submit(request)
    assert service.requests["POST /uploads/{}/parts"] > 2
    assert service.uploads() == [request.train.read_bytes()]


def test_a_failed_job_is_submitted_again_once_when_the_run_is_retried_and_never_when_it_is_resumed(
    service: Service, tmp_path: Path
) -> None:
    service.ends("running", "failed")
    provider = OpenAIProvider()
    failed = provider.submit(submission(tmp_path / "run"))
    assert followed(provider, failed)[0].state == "failed"
    service.ends("running", "succeeded")
    assert OpenAIProvider().resume(failed) == failed
    assert len(service.jobs) == 1
    again = OpenAIProvider().retry(failed)
    assert again.id != failed.id
    assert OpenAIProvider().retry(failed) == again
    assert len(service.jobs) == 2
