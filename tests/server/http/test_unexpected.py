"""Every purpose that the contract names, and errors that nobody foresaw: OpenAI's shape, on a connection that goes on."""

from __future__ import annotations

import httpx
import pytest

from ftbridge.errors import UsageError
from ftbridge.server.http.access import read_origins
from ftbridge.server.local.spec import check_models
from support.published import problems
from support.service import lines

PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_file_of_every_published_purpose_is_taken_shown_and_listed(purpose: str, http: httpx.Client) -> None:
    created = http.post("/files", data={"purpose": purpose}, files={"file": ("t.jsonl", lines())})
    assert (created.status_code, created.json()["purpose"]) == (200, purpose)
    assert http.get(f"/files/{created.json()['id']}").json() == created.json()
    assert [file["id"] for file in http.get("/files", params={"purpose": purpose}).json()["data"]] == [
        created.json()["id"]
    ]
    if purpose != "evals":  # the published file object lacks what the published request has
        assert problems(created.json(), "OpenAIFile") == []


@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_upload_in_parts_has_the_purposes_that_are_published_for_it(purpose: str, http: httpx.Client) -> None:
    body = {"filename": "t.jsonl", "purpose": purpose, "bytes": len(lines()), "mime_type": "text/jsonl"}
    response = http.post("/uploads", json=body)
    if purpose in ("user_data", "evals"):
        assert (response.status_code, response.json()["error"]["param"]) == (400, "purpose")
        return
    upload = response.json()["id"]
    part = http.post(f"/uploads/{upload}/parts", files={"data": lines()}).json()["id"]
    completed = http.post(f"/uploads/{upload}/complete", json={"part_ids": [part]})
    assert (completed.status_code, completed.json()["file"]["purpose"]) == (200, purpose)


def test_an_unexpected_error_is_a_500_in_openais_shape_and_the_connection_goes_on(
    simulator, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    transport = http._transport._pool  # type: ignore[attr-defined]
    assert http.get("/models").status_code == 200
    opened.append(transport.connections[0])
    advance = simulator.service.engine.advance
    for where, name, broken in (
        (simulator.service.engine, "base_models", lambda: 1 / 0),  # in a handler
        (simulator.service.engine, "advance", lambda: 1 / 0),  # around all handlers
    ):
        monkeypatch.setattr(where, name, broken)
        response = http.get("/models")
        assert response.status_code == 500
        assert problems(response.json(), "ErrorResponse") == []
        assert "division" not in response.text
        assert response.headers["x-request-id"].startswith("req_")
        monkeypatch.undo()
    assert simulator.service.engine.advance == advance
    assert http.get("/models").status_code == 200
    assert [*transport.connections] == opened


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "http://localhost:3000", "https://Example.org/", "http://[::1]:8080", "chrome-extension://abcdef"],
)
def test_what_a_browser_sends_as_origin_may_be_allowed(origin: str) -> None:
    assert read_origins([origin]) == {origin.rstrip("/").lower()}


@pytest.mark.parametrize(
    "origin", ["banana", "", "localhost:3000", "http://", "http://a.org/page", "http://*.a.org", "http://a b", "a.org"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(UsageError, match="is not the origin"):
        read_origins(["http://localhost:3000", origin])


def test_a_model_that_no_request_could_load_is_refused_and_says_what_can_be_served(tmp_path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "a.gguf").write_bytes(b"")
    check_models([str(tmp_path / "model"), str(tmp_path / "a.gguf"), "smollm2-135m-instruct", "OWNER/NAME"])
    for name in ("nosuch", "./nosuch", "nosuch.gguf", str(tmp_path), "run:", "a/b/c"):
        with pytest.raises(UsageError, match="cannot be served") as raised:
            check_models(["smollm2-135m-instruct", name])
        assert "smollm2-135m-instruct" in (raised.value.hint or "")
