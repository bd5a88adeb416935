"""Faults in words, and keys in none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import DiskFull, FtbridgeError, ProviderRefused
from ftbridge.providers.openai.errors import clean, fault_of
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.server import simulating
from support.openai_jobs import KEY, followed, submission
from support.service_faults import fault
from support.simulated_service import SCENARIO, Service


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"headers: {{'Authorization': 'Bearer {KEY}'}}",
        "Incorrect API key provided: sk-proj-********************abcd.",
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x",
    ],
)
def test_a_key_is_taken_out_of_any_text(service: Service, text: str) -> None:
    result = clean(text)
    assert "[key]" in result
    assert not any(secret in result for secret in (KEY, "abcd", "eyJ"))


def test_a_foreign_error_counts_as_unanswered_so_that_it_is_looked_after() -> None:
    assert fault_of(ValueError("bad JSON")).kind == "lost"


def test_a_planted_key_is_in_nothing_that_a_run_writes_or_says(service: Service, tmp_path: Path, home: Path) -> None:
    """A service that echoes the key in every error, through failures of each step."""
    messages: list[str] = []
    echo = {"message": f"bad key {KEY} Bearer {KEY}"}
    service.meets(
        fault("POST /files", "500", **echo),
        fault("POST /fine_tuning/jobs", "500", **echo),
        fault("POST /fine_tuning/jobs", "429", 2, **echo),
        fault("GET /fine_tuning/jobs/{id}", "500", 2, **echo),
    )
    provider = OpenAIProvider()
    request = submission(tmp_path / "run")
    provider.preflight(request, messages.append)
    handle = provider.submit(request)
    service.say(handle.id, f"the service says {KEY}")
    messages += [event.message for event in followed(provider, handle)[1]]
    service.ends("running", "failed", error={"code": "x", "message": f"because of {KEY}", "param": None})
    other = provider.submit(submission(tmp_path / "other", token="other"))
    status, _ = followed(provider, other)
    messages.append(str(status.error))
    service.meets(fault("GET /models/{id}", "401", None, **echo))
    with pytest.raises(FtbridgeError) as refused:
        provider.preflight(request, messages.append)
    messages.append(str(refused.value))
    written = [path for path in (*tmp_path.rglob("*"), *home.rglob("*")) if path.is_file()]
    assert any("[key]" in text for text in messages)
    assert not [text for text in messages if KEY in text]
    assert written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_the_key_is_what_requests_are_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted key that is written nowhere could also be one that is never used."""
    with simulating(SCENARIO, account={"keys": {KEY: {}}}) as simulator:
        monkeypatch.setenv("OPENAI_BASE_URL", simulator.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        OpenAIProvider().preflight(submission(tmp_path / "run"), lambda _: None)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
        with pytest.raises(ProviderRefused, match="does not accept the API key"):
            OpenAIProvider().preflight(submission(tmp_path / "run"), lambda _: None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_before_the_request_that_it_cannot_note(service: Service, tmp_path: Path) -> None:
    request = submission(tmp_path / "run")
    (request.folder / "openai").mkdir()
    (request.folder / "openai" / "journal.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        OpenAIProvider().submit(request)
    assert service.requests == {}


def test_the_package_is_light_to_import() -> None:
    code = "import sys, ftbridge.providers.openai.provider; print({'openai','httpx','httpx2','torch','keyring'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
