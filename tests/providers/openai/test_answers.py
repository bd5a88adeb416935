"""What an answer means: over real HTTP, with the bodies that services, firewalls and proxies write."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from ftbridge.errors import DataError, ModelUnavailable, ProviderRefused, ServiceUnavailable
from ftbridge.http import LONGEST_RETRY_AFTER
from ftbridge.providers.openai.errors import error_of, fault_of
from ftbridge.providers.openai.sampling.answers import RULES, answers_table, is_about_data

HTML = "<!DOCTYPE html><html><body>Access denied</body></html>"


def error_body(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}


class Mirror(BaseHTTPRequestHandler):
    """Answers everything with what the test puts here."""

    status, body, headers_out = 200, "", {}

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        moved = self.status == 302 and self.path != "/login"
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        self.send_response(self.status if moved or self.status != 302 else 404)
        self.send_header("content-type", "application/json" if isinstance(self.body, dict) else "text/html")
        for name, value in {"content-length": str(len(text)), **self.headers_out}.items():
            self.send_header(name, value)
        if moved:
            self.send_header("location", "/login")
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _serve  # noqa: N815


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield openai.OpenAI(api_key="sk-answers", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0)
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mirror, "headers_out", {})


def fault(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, status: int, body: object, *, create: bool = True
) -> Any:
    monkeypatch.setattr(Mirror, "status", status)
    monkeypatch.setattr(Mirror, "body", body)
    jobs = client.fine_tuning.jobs
    with pytest.raises(openai.APIStatusError) as raised:
        jobs.create(model="m", training_file="f") if create else jobs.retrieve("ftjob-1")
    return fault_of(raised.value)


@pytest.mark.parametrize(
    ("status", "body", "kind", "sure"),
    [
        (403, error_body("wound down", "training_not_available"), "refused", True),
        (403, HTML, "foreign", False),
        (403, "error code: 1020", "foreign", False),
        (403, {"message": "Forbidden"}, "foreign", False),
        (401, error_body("bad key", "invalid_api_key"), "refused", True),
        (401, HTML, "foreign", False),
        (404, HTML, "foreign", False),
        (404, error_body("The model has been deprecated", "model_not_found"), "missing", True),
        (404, {"detail": "Not Found"}, "missing", False),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "too large"}]}, "refused", False),
        (407, "proxy authentication required", "foreign", False),
        (451, HTML, "foreign", False),
        (302, "", "foreign", False),
        (511, HTML, "foreign", False),
        (409, error_body("conflict"), "lost", True),
        (504, HTML, "lost", False),
        (429, HTML, "later", False),
        (429, error_body("slow down", "rate_limit_exceeded"), "later", True),
        (429, error_body("no money", "insufficient_quota"), "refused", True),
        (429, error_body("reached the maximum of 3 fine-tuning requests per day"), "tomorrow", True),
        (400, error_body("Cannot find file file-7, or project does not have access to it."), "not_ready", True),
        (400, error_body("File 'file-7' does not exist", "invalid_file", "training_file"), "not_ready", True),
        (404, error_body("No such File object: no such file"), "not_ready", True),
        (
            400,
            error_body("The file reference must point to a completed file import.", "invalidPayload"),
            "not_ready",
            True,
        ),
        (400, error_body("file-7 has not been fully processed"), "not_ready", True),
        (400, error_body("Example 4 has no assistant message", "invalid_file_format", "training_file"), "data", True),
        (400, error_body("blocked by moderation", None, "training_file"), "data", True),
        (400, error_body("n_epochs too large", "invalid_value", "n_epochs"), "refused", True),
    ],
)
def test_an_answer_to_a_creation_is_of_its_kind(client, monkeypatch, status, body, kind, sure) -> None:
    result = fault(client, monkeypatch, status, body)
    assert (result.kind, result.sure) == (kind, sure)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, error_body("no such file"), "missing"),
        (400, error_body("bad", None, "training_file"), "refused"),
        (403, HTML, "foreign"),
        (302, "", "foreign"),
    ],
)
def test_what_holds_for_creations_only_is_not_said_of_other_requests(client, monkeypatch, status, body, kind) -> None:
    assert fault(client, monkeypatch, status, body, create=False).kind == kind


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after": "100000"}, LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER),
        ({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}, LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0, 0),
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"retry-after": "-5"}, 0, 0),
    ],
)
def test_retry_after_has_a_ceiling_in_every_form(client, monkeypatch, header, low, high) -> None:
    monkeypatch.setattr(Mirror, "headers_out", header)
    result = fault(client, monkeypatch, 429, error_body("slow down"))
    assert low <= result.retry_after <= high


@pytest.mark.parametrize("header", ["nan", "inf", "soon", ""])
def test_a_retry_after_that_makes_no_sense_is_none(client, monkeypatch, header) -> None:
    monkeypatch.setattr(Mirror, "headers_out", {"retry-after": header})
    assert fault(client, monkeypatch, 429, error_body("slow down")).retry_after is None


@pytest.mark.parametrize(
    ("status", "body", "error", "code"),
    [
        (403, HTML, ServiceUnavailable, 1),
        (403, error_body("no", "training_not_available"), ProviderRefused, 5),
        (404, error_body("gone", "model_not_found"), ModelUnavailable, 1),
        (400, error_body("line 3 is bad", "invalid_training_file", "training_file"), DataError, 3),
    ],
)
def test_each_kind_has_its_error_and_exit_code(client, monkeypatch, status, body, error, code) -> None:
    raised = error_of(fault(client, monkeypatch, status, body), "creating the job", "the service")
    assert (type(raised), raised.exit_code) == (error, code)


@pytest.mark.parametrize(
    ("code", "param", "message", "about"),
    [
        ("content_policy_violation", None, "blocked", True),
        (None, None, "This training file was blocked for safety reasons.", True),
        ("unsafe_file", None, "no", True),
        (None, None, "The examples were flagged", True),
        ("invalid_file_content", None, "Example 5 has no assistant message", True),
        ("anything", "validation_file", "bad", True),
        ("server_error", None, "The job failed on the service's side.", False),
        ("exceeded_quota", None, "no money", False),
        (None, None, "internal error in worker", False),
    ],
)
def test_an_error_of_a_job_is_about_its_data_whatever_its_code(code, param, message, about) -> None:
    assert is_about_data(code, param, message) is about


def test_the_table_of_the_documentation_has_a_row_for_every_rule() -> None:
    assert len(answers_table().splitlines()) == len(RULES) + 3
