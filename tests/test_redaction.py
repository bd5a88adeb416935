"""Keys and passwords: in no text, in no address, and at no other origin."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import UsageError
from ftbridge.evaluation.candidate_names import parse_candidate
from ftbridge.graders.judge_keys import check_judges
from ftbridge.providers.openai.client import http_client
from ftbridge.providers.openai.errors import SentElsewhere
from ftbridge.redaction import address_problem, remember, without_keys, without_secrets
from ftbridge.spec import JobSpec

PASSWORD = "pw-1f0c77a9b2"
JUDGE = {
    "type": "score_model",
    "name": "j",
    "model": "m",
    "input": [{"role": "user", "content": "{{sample.output_text}}"}],
}


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://api.example.com/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        (f"https://user:{PASSWORD}@example.com/v1", "user name or password"),
        (f"https://{PASSWORD}@example.com/v1", "user name or password"),
        (f"https://example.com/v1?api_key={PASSWORD}", "ends with ?"),
        (f"https://example.com/v1#{PASSWORD}", "ends with ?"),
        (f"ftp://user:{PASSWORD}@example.com", "not a service's address"),
        (f"https://[{PASSWORD}/v1", "cannot be read"),
        ("example.com/v1", "not a service's address"),
    ],
)
def test_an_address_holds_no_secret_and_its_refusal_repeats_none(address: str, says: str | None) -> None:
    problem = address_problem(address)
    assert (problem is None) == (says is None)
    assert (says or "") in (problem or "")
    assert PASSWORD not in (problem or "")


@pytest.mark.parametrize("position", ["openai", "grader", "multi", "candidate"])
@pytest.mark.parametrize("scheme", ["https", "ftp"])
def test_a_password_in_a_spec_or_a_candidate_is_refused_without_being_told(position: str, scheme: str) -> None:
    address = f"{scheme}://user:{PASSWORD}@example.com/v1"
    grader: dict[str, Any] = {**JUDGE, "base_url": address}
    multi = {"type": "multi", "name": "m", "graders": {"a": grader}, "calculate_output": "a"}
    changes: dict[str, Any] = {
        "openai": {"openai": {"target": "custom", "base_url": address}},
        "grader": {"evaluation": {"graders": [grader]}},
        "multi": {"evaluation": {"graders": [multi]}},
    }.get(position, {})
    spec = {"name": "n", "data": {"train": "t.jsonl"}, "model": {"openai": "m"}, **changes}
    read = functools.partial(parse_candidate, f"{address}#model") if position == "candidate" else None
    with pytest.raises(UsageError) as refused:
        read() if read is not None else JobSpec.from_dict(spec)
    assert PASSWORD not in str(refused.value)


def test_a_refused_spec_leaves_no_run_and_tells_no_password(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{}\n")
    spec = {
        "name": "n", "data": {"train": "t.jsonl"}, "model": {"openai": "m"},
        "openai": {"target": "custom", "base_url": f"http://u:{PASSWORD}@127.0.0.1:1/v1"},
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "ftbridge", "run", "job.json", "--provider", "openai", "-vv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert PASSWORD not in done.stdout + done.stderr
    assert not (tmp_path / ".ftbridge" / "runs").exists()


@pytest.mark.parametrize("name", ["SOMEBODY_API_KEY", "HF_TOKEN", "DB_PASSWORD"])
def test_every_secret_of_the_environment_is_taken_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, PASSWORD)
    text = f"refused for {PASSWORD} through http://me:other-{PASSWORD}@proxy:3128/"
    assert without_secrets(text) == "refused for [key] through http://[password]@proxy:3128/"


def test_a_short_placeholder_stays_a_word_of_answers() -> None:
    remember("not-needed")
    assert without_keys("a key is not-needed here") == "a key is not-needed here"


class Origin:
    """An HTTP origin that redirects, and remembers what it was sent."""

    def __init__(self, status: int = 200, to: str = "") -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                origin.seen.append((self.command, {k.lower(): v for k, v in self.headers.items()}, body))
                again = origin.to.startswith("/") and self.path == origin.to
                self.send_response(200 if again else status)
                if origin.to:
                    self.send_header("location", origin.to)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = _serve  # noqa: N815

        self.to = to
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def other() -> Iterator[Origin]:
    created = Origin()
    yield created
    created.close()


HEADERS = {"authorization": f"Bearer {PASSWORD}", "api-key": PASSWORD, "openai-organization": "org", "cookie": PASSWORD}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_to_another_origin_carries_no_key_and_no_data(other: Origin, status: int, method: str) -> None:
    first = Origin(status, f"{other.address}/v1/files")
    try:
        client = http_client(f"{first.address}/v1")
        content = b"data" if method == "POST" else None
        with pytest.raises(SentElsewhere) if status > 303 and method == "POST" else contextlib.nullcontext():
            client.request(method, f"{first.address}/v1/files", headers=HEADERS, content=content)
        assert first.seen[0][1]["authorization"] == f"Bearer {PASSWORD}"
        for _, headers, body in other.seen:
            assert not set(headers) & set(HEADERS)
            assert body == b""
        assert bool(other.seen) == (status <= 303 or method == "GET")
    finally:
        first.close()


def test_a_redirect_within_the_origin_is_followed_with_the_key() -> None:
    first = Origin(307, "/v1/files/")
    try:
        client = http_client(f"{first.address}/v1")
        client.post(f"{first.address}/v1/files", headers=HEADERS, content=b"data")
        assert (first.seen[-1][1]["api-key"], first.seen[-1][2]) == (PASSWORD, b"data")
    finally:
        first.close()


CUSTOM = {"target": "custom", "base_url": "https://host.example/v1"}


@pytest.mark.parametrize(
    ("openai", "environment", "judge", "refused"),
    [
        (CUSTOM, {}, {}, True),
        ({"base_url": "https://gateway.example/v1"}, {}, {}, True),
        ({"target": "azure", "base_url": "https://r.example/openai/v1"}, {}, {}, True),
        (CUSTOM, {"OPENAI_BASE_URL": "https://another.example/v1"}, {}, True),
        (CUSTOM, {"OPENAI_BASE_URL": "https://host.example/other"}, {}, False),
        (CUSTOM, {}, {"base_url": "https://api.openai.com/v1"}, False),
        ({"target": "azure", "base_url": "https://r.example/v1"}, {"AZURE_OPENAI_API_KEY": "azure-key"}, {}, False),
        ({"target": "nebius"}, {}, {}, False),
        ({"base_url": "https://eu.api.openai.com/v1"}, {}, {}, False),
        ({"base_url": "https://api.openai.com.evil.example/v1"}, {}, {}, True),
        ({}, {}, {}, False),
    ],
)
def test_the_key_of_one_host_never_goes_to_another_with_a_judge(
    openai: dict[str, Any],
    environment: dict[str, str],
    judge: dict[str, Any],
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"OPENAI_API_KEY": PASSWORD, **environment}.items():
        monkeypatch.setenv(name, value)
    spec = JobSpec.from_dict(
        {
            "name": "n",
            "data": {"train": "t"},
            "model": {"openai": "m"},
            "openai": openai,
            "evaluation": {"graders": [{**JUDGE, **judge}]},
        }
    )
    with pytest.raises(UsageError, match="base_url") if refused else contextlib.nullcontext():
        check_judges(spec)


def test_an_error_in_a_journal_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftbridge.errors import ServiceUnavailable, document

    remember(PASSWORD)
    for error in (ServiceUnavailable(f"refused for {PASSWORD}"), ValueError(PASSWORD)):
        assert PASSWORD not in str(document(error))
