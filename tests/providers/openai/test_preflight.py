"""Before anything is uploaded: key, model, dates, sizes, money, and what kind of failure each is."""

from __future__ import annotations

import datetime
import json
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import DataError, FtbridgeError, GateNotMet, ModelUnavailable, ProviderRefused, UsageError
from ftbridge.providers.openai import calendar, preflight
from ftbridge.providers.openai.client import connect
from ftbridge.providers.openai.errors import ServiceUnavailable
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.providers.openai.request import OpenAIRequest
from support.openai_jobs import submission
from support.service_faults import fault
from support.simulated_service import Service

TODAY = datetime.date(2026, 11, 24)


def check(submitted: Any, today: datetime.date = TODAY) -> list[str]:
    lines: list[str] = []
    at = connect(OpenAIRequest.model_validate(submitted.request), submitted.folder)
    preflight.check(at, submitted, lines.append, today)
    return lines


def test_a_job_that_can_work_passes_and_nothing_is_sent(service: Service, tmp_path: Path) -> None:
    OpenAIProvider().preflight(submission(tmp_path / "run"), lambda _: None)
    assert dict(service.requests) == {"GET /models/{}": 1, "GET /fine_tuning/jobs": 1}


def test_without_a_key_it_says_which_variable_to_set(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set") as missing:
        check(submission(tmp_path / "run"))
    assert (missing.value.exit_code, service.requests) == (2, {})


def test_an_unknown_model_is_told_with_the_nearest_names(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no model 'gpt-tset'") as unknown:
        check(submission(tmp_path / "run", model={"openai": "gpt-tset"}))
    assert "gpt-test" in str(unknown.value)


@pytest.mark.parametrize(
    ("failure", "error", "code", "says"),
    [
        ({"kind": "401", "message": "Incorrect API key provided: sk-planted-8f2e7c61d0"}, ProviderRefused, 5, "does not accept the API key"),
        ({"kind": "html_after"}, FtbridgeError, 1, "HTML page"),
        ({"kind": "reset_before"}, FtbridgeError, 1, "no usable response"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_be_used_is_told_before_the_upload(
    service: Service, tmp_path: Path, failure: dict[str, Any], error: type[FtbridgeError], code: int, says: str
) -> None:
    service.meets(fault("GET /models/{id}", nth=None, **failure))
    with pytest.raises(error, match=says) as result:
        check(submission(tmp_path / "run"))
    assert result.value.exit_code == code
    assert "sk-planted" not in str(result.value)
    assert service.requests["POST /files"] == 0


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"OPENAI_BASE_URL": "not an address"}, "not a service's address"),
        ({"OPENAI_BASE_URL": "https://user:secret@gateway.example/v1"}, "holds a user name or password"),
        ({"OPENAI_API_KEY": "schlüssel\u2026"}, "key"),
    ],
)
def test_an_address_or_key_that_cannot_be_used_is_a_mistake_of_usage(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=says) as result:
        check(submission(tmp_path / "run"))
    assert "secret@" not in str(result.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_nobody_vouches_for_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "self-signed.pem"
    items = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*items, "-keyout", certificate, "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "cert.pem").read_text())
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-8f2e7c61d0")
    monkeypatch.setenv("OPENAI_BASE_URL", f"https://127.0.0.1:{server.server_port}/v1")
    try:
        with pytest.raises(ServiceUnavailable, match="certificate that cannot be verified") as result:
            check(submission(tmp_path / "run"))
    finally:
        server.shutdown()
    assert "SSL_CERT_FILE" in str(result.value)


def test_a_proxy_that_refuses_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(407)

        def log_message(self, *_: Any) -> None:
            pass

    proxy = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-8f2e7c61d0")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://service.example/v1")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
    try:
        with pytest.raises(FtbridgeError, match="through the proxy") as result:
            check(submission(tmp_path / "run"))
    finally:
        proxy.shutdown()
    assert "HTTPS_PROXY" in str(result.value)


@pytest.mark.parametrize("status", ["403", "404"])
def test_a_service_without_a_list_of_models_is_no_reason_to_stop(service: Service, tmp_path: Path, status: str) -> None:
    service.meets(fault("GET /models/{id}", status), fault("GET /models", status))
    custom = {"target": "custom", "base_url": service.base_url}
    assert "was not checked" in check(submission(tmp_path / "run", openai=custom))[0]


@pytest.mark.parametrize(("today", "refused"), [("2027-01-05", False), ("2027-01-06", True), ("2027-02-01", True)])
def test_openai_takes_no_jobs_after_its_last_day(service: Service, tmp_path: Path, today: str, refused: bool) -> None:
    request = submission(tmp_path / "run")
    if not refused:
        check(request, datetime.date.fromisoformat(today))
        return
    with pytest.raises(ProviderRefused, match="no new fine-tuning jobs since 2027-01-06") as result:
        check(request, datetime.date.fromisoformat(today))
    assert (result.value.exit_code, service.requests) == (5, {})


def test_the_services_own_shutdown_date_goes_before_the_table(service: Service, tmp_path: Path) -> None:
    service.change(shutdown={"gpt-test": "2026-12-24"})
    assert "stop on 2026-12-24, in 30 days" in check(submission(tmp_path / "run"))[0]
    service.change(shutdown={"gpt-test": "2026-11-24"})
    with pytest.raises(ProviderRefused, match="shut down on 2026-11-24"):
        check(submission(tmp_path / "run"))


@pytest.mark.parametrize(
    ("model", "day"),
    [
        ("gpt-4.1-mini-2025-04-14", "2027-01-14"),
        ("ft:gpt-4.1-2025-04-14:org:suffix:id", "2027-01-14"),
        ("gpt-4.1-nano-2025-04-14", "2026-10-23"),
        ("gpt-4o-2024-05-13", "2026-10-23"),
        ("gpt-4o-2024-08-06", "2027-01-14"),
        ("o4-mini-2025-04-16", "2026-10-23"),
        ("gpt-5", "2026-12-11"),
        ("gpt-5-mini", None),
        ("gpt-6-luna", None),
    ],
)
def test_the_calendar_knows_a_model_by_its_family_and_date(model: str, day: str | None) -> None:
    result = calendar.shutdown(model)
    assert (result.isoformat() if result else None) == day


@pytest.mark.parametrize(("days", "passes"), [(51, True), (52, False)])
def test_a_model_that_stops_too_soon_is_refused_before_the_upload(
    service: Service, tmp_path: Path, days: int, passes: bool
) -> None:
    service.change(models=["gpt-4.1-mini-2025-04-14"])
    request = submission(tmp_path / "run", model={"openai": "gpt-4.1-mini-2025-04-14"}, plan={"min_life_days": days})
    if passes:
        assert any("in 51 days" in note for note in check(request))
        return
    with pytest.raises(GateNotMet, match="in 51 days; plan.min_life_days is 52"):
        check(request)
    assert not any(name.startswith("POST") for name in service.requests)


@pytest.mark.parametrize(("budget", "passes"), [(6.0, True), (5.0, False)])
def test_a_budget_is_held_by_the_price_list(service: Service, tmp_path: Path, budget: float, passes: bool) -> None:
    service.change(models=["gpt-4.1-mini-2025-04-14"])
    model = {"openai": "gpt-4.1-mini-2025-04-14"}
    request = submission(tmp_path / "run", model=model, hyperparameters={"n_epochs": 2}, budget={"max_usd": budget})
    split = {"examples": 10, "tokens": 550_000, "sha256": "0", "sources": []}
    manifest = {"splits": {"train": split}, "notes": [], "recipe": "", "lines_sha256": ""}
    (request.train.parent / "manifest.json").write_text(json.dumps(manifest))
    if passes:
        check(request)
        return
    with pytest.raises(GateNotMet, match=r"about \$5\.50 \(550,000 tokens x 2 epochs") as result:
        check(request)
    assert result.value.exit_code == 4


def test_a_file_larger_than_the_service_takes_is_an_error_of_the_data(service: Service, tmp_path: Path) -> None:
    request = submission(tmp_path / "run")
    with request.train.open("r+b") as stream:
        stream.truncate(8_100_000_000)  # sparse
    with pytest.raises(DataError, match="accepts files up to 8 GB"):
        check(request)
