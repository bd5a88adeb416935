"""Bad input: OpenAI's error shape and status, nothing half-written."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ftbridge.errors import UsageError
from ftbridge.server import simulating
from support.published import problems
from support.served_model import first_document
from support.service import BASE, CHAT, lines


def refused(response: httpx.Response, status: int, code: str | None = None) -> str:
    assert response.status_code == status, response.text
    assert problems(response.json(), "ErrorResponse") == []
    error = response.json()["error"]
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])


def nothing_kept(simulator) -> bool:
    service = simulator.service
    return not simulator.files and not any(any(f.iterdir()) for f in (service.files, service.incoming) if f.exists())


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="t.jsonl"\r\n\r\n'
PURPOSE = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
TORN = {
    "no boundary at all": (b"hello", {"Content-Type": "multipart/form-data"}),
    "json": (b"{}", {"Content-Type": "application/json"}),
    "no type": (b"x", {}),
    "nothing": (b"", MULTIPART),
    "noise": (os.urandom(500), MULTIPART),
    "no end": (PURPOSE + HEAD + lines(), MULTIPART),
    "a header without a colon": (b"--b\r\nContent Disposition\r\n\r\nx\r\n--b--\r\n", MULTIPART),
    "two files": (PURPOSE + (HEAD + lines() + b"\r\n") * 2 + b"--b--\r\n", MULTIPART),
    "a field that is too long": (PURPOSE.replace(b"fine-tune", b"x" * 100_000) + b"--b--\r\n", MULTIPART),
    "many fields": (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' * 40 + b"--b--\r\n", MULTIPART),
}


@pytest.mark.parametrize("name", TORN)
def test_a_malformed_multipart_body_leaves_nothing(name, http, simulator):
    content, headers = TORN[name]
    refused(http.post("/files", content=content, headers=headers), 400)
    assert nothing_kept(simulator)


@pytest.mark.parametrize(
    ("form", "name", "content", "code"),
    [
        ({}, "t.jsonl", lines(), "missing_required_parameter"),
        ({"purpose": "fun"}, "t.jsonl", lines(), "invalid_value"),
        ({"purpose": "fine-tune", "colour": "red"}, "t.jsonl", lines(), "unknown_parameter"),
        ({"purpose": "fine-tune"}, "t.json", lines(), "invalid_file_extension"),
        ({"purpose": "fine-tune"}, "t.jsonl", b"", "invalid_jsonl_file"),
        ({"purpose": "fine-tune"}, "t.jsonl", b"[1, 2]\n", "invalid_jsonl_file"),
        ({"purpose": "fine-tune"}, "t.jsonl", lines(2) + b'{"messages": [\n', "invalid_jsonl_file"),
        ({"purpose": "fine-tune"}, "t.jsonl", lines(2) + b'{"a": "\xff"}\n', "invalid_jsonl_file"),
        ({"purpose": "fine-tune", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "t.jsonl", lines(), None),
        ({"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"}, "t.jsonl", lines(), None),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_taken_leaves_nothing(form, name, content, code, http, simulator):
    refused(http.post("/files", data=form, files={"file": (name, content)}), 400, code)
    assert nothing_kept(simulator)


def test_a_body_of_five_gigabytes_is_refused_before_it_is_read(simulator):
    host, port = simulator.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {5 << 30}\r\n\r\n".encode()
        )
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]
    assert nothing_kept(simulator)


def test_a_body_that_says_nothing_of_its_size_is_cut_at_the_limit(simulator, http):
    object.__setattr__(simulator.service.limits, "file", 10_000)

    def endless():
        yield PURPOSE + HEAD
        for _ in range(2000):
            yield lines(12)

    try:
        response = http.post("/files", content=endless(), headers=MULTIPART)
    except httpx.TransportError:
        pass  # the server closed while there was more to send
    else:
        refused(response, 413, "too_large")
    assert nothing_kept(simulator)


def test_a_json_body_that_is_too_large_or_none(http):
    refused(http.post("/chat/completions", content=b"{" + b" " * (65 << 20)), 413, "too_large")
    for content in (b"", b"[]", b"nonsense", b'{"model": NaN}', b"[" * 100_000, b"\xff"):
        refused(http.post("/chat/completions", content=content), 400)


def test_an_upload_that_breaks_off_leaves_nothing(simulator):
    host, port = simulator.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        body = PURPOSE + HEAD + lines()
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {len(body) + 1000}\r\n\r\n".encode()
            + body
        )
    httpx.get(f"{simulator.base_url}/models")
    for _ in range(100):
        if nothing_kept(simulator):
            break
    assert nothing_kept(simulator)


BAD_IDS = [
    "../server.sqlite",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2fserver.sqlite",
    "file-none",
    "a" * 5000,
    "%00",
    "ü",
    "' OR 1=1",
]


@pytest.mark.parametrize("name", BAD_IDS)
def test_an_id_is_never_a_path(name, http):
    for path in ("/files/{}", "/files/{}/content", "/fine_tuning/jobs/{}", "/fine_tuning/jobs/{}/events", "/batches/{}", "/models/{}"):  # fmt: skip
        response = http.get(path.format(name))
        assert response.status_code in (404, 405), response.text
        assert problems(response.json(), "ErrorResponse") == []
        assert "root:" not in response.text
    assert http.delete(f"/files/{name}").status_code in (404, 405)
    body = {"model": BASE, "training_file": name}
    refused(http.post("/fine_tuning/jobs", json=body), 400, "invalid_file")


@pytest.mark.parametrize(
    ("epochs", "says"),
    [
        (60, "less than or equal to 50."),
        (0, "greater than or equal to 1."),
        ("many", "'auto' or a valid integer."),
    ],
)
def test_a_value_out_of_range_is_said_to_be_and_one_of_another_type_hears_of_every_type(
    epochs, says, http, training_file
):
    body = {"model": BASE, "training_file": training_file, "hyperparameters": {"n_epochs": epochs}}
    message = http.post("/fine_tuning/jobs", json=body).json()["error"]["message"]
    assert message == f"'hyperparameters.n_epochs' is not acceptable: input should be {says}"


def test_a_job_needs_a_model_and_a_training_file_that_are_there(http, client, training_file):
    chat = client.files.create(file=("b.jsonl", lines()), purpose="batch").id
    create = lambda **body: http.post("/fine_tuning/jobs", json=body)  # noqa: E731
    refused(create(model="gpt-9", training_file=training_file), 400, "model_not_available")
    refused(create(model=BASE, training_file=chat), 400, "invalid_file_purpose")
    refused(create(model=BASE, training_file=training_file, validation_file="file-none"), 400, "invalid_file")
    refused(create(model=BASE, training_file=training_file, method={"type": "dpo", "supervised": {}}), 400)
    refused(create(model=BASE, training_file=training_file, method={"type": "reinforcement"}), 400)
    twice = {"n_epochs": 2}
    refused(create(model=BASE, training_file=training_file, hyperparameters=twice, method={"type": "dpo"}), 400)
    grader = {"type": "string_check", "name": "g"}
    response = create(
        model=BASE, training_file=training_file, method={"type": "reinforcement", "reinforcement": {"grader": grader}}
    )
    assert "operation" in refused(response, 400)
    assert client.fine_tuning.jobs.list().data == []


def test_a_file_in_use_is_not_deleted_until_the_job_has_ended(simulator, client, http, training_file):
    simulator.play({"jobs": {"walk": [["running", 1e6], "succeeded"]}})
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    assert job.id in refused(http.delete(f"/files/{training_file}"), 409)
    client.fine_tuning.jobs.cancel(job.id)
    assert client.files.delete(training_file).deleted
    refused(http.get(f"/files/{training_file}"), 404)


def test_an_upload_that_ended_takes_no_more(simulator, http):
    settings = {"filename": "t.jsonl", "purpose": "fine-tune", "bytes": 100, "mime_type": "text/jsonl"}
    begin = lambda **more: http.post("/uploads", json={**settings, **more}).json()["id"]  # noqa: E731
    part = lambda upload: http.post(f"/uploads/{upload}/parts", files={"data": lines(1)})  # noqa: E731
    gone = begin()
    assert http.post(f"/uploads/{gone}/cancel").json()["status"] == "cancelled"
    refused(part(gone), 400, "invalid_upload_state")
    refused(http.post(f"/uploads/{gone}/cancel"), 400, "invalid_upload_state")
    refused(http.post(f"/uploads/{gone}/complete", json={"part_ids": ["x"]}), 400, "invalid_upload_state")

    short = begin(bytes=len(lines(1)) + 1)
    name = part(short).json()["id"]
    complete = lambda upload, **body: http.post(f"/uploads/{upload}/complete", json=body)  # noqa: E731
    assert "announced" in refused(complete(short, part_ids=[name]), 400)
    refused(complete(short, part_ids=["part_none"]), 400)

    right = begin(bytes=len(lines(1)))
    name = part(right).json()["id"]
    refused(complete(right, part_ids=[name, name]), 400)
    assert "MD5" in refused(complete(right, part_ids=[name], md5="0" * 32), 400)
    refused(complete(short, part_ids=[name]), 400)
    late = begin()
    simulator.advance(3601)
    refused(part(late), 400, "invalid_upload_state")
    refused(http.post("/uploads/upload_none/cancel"), 404)
    refused(http.post("/uploads", json={**settings, "bytes": 9 << 30}), 400)
    assert not simulator.files


def test_files_expire(simulator, http):
    form = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    name = http.post("/files", data=form, files={"file": ("t.jsonl", lines())}).json()["id"]
    simulator.advance(3500)
    assert http.get(f"/files/{name}").status_code == 200
    simulator.advance(200)
    refused(http.get(f"/files/{name}"), 404)
    assert nothing_kept(simulator)


def test_a_full_disk_is_told_and_leaves_nothing(simulator, http, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ftbridge.server.http.multipart.os.fsync", full)
    response = http.post("/files", data={"purpose": "fine-tune"}, files={"file": ("t.jsonl", lines())})
    monkeypatch.undo()
    refused(response, 507, "disk_full")
    assert nothing_kept(simulator)
    assert http.get("/models").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": "x", "weight": 1}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"stop": [""]},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"top_logprobs": 3},
        {"stream_options": {"include_usage": True}},
        {"frequency_penalty": 3.0},
        {"logit_bias": {"five": 10}},
        {"logit_bias": {"5": 1000}},
        {"min_p": 2},
        {"modalities": ["audio"]},
        {"tool_choice": "required"},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"tools": [{"type": "function", "function": {"name": "has space"}}]},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "yaml"}},
    ],
)
def test_a_chat_that_cannot_be_answered_as_asked_is_refused(change, http):
    body = {"model": BASE, "messages": CHAT, **change}
    refused(http.post("/chat/completions", json=body), 400)
    if "stream_options" not in change:
        refused(http.post("/chat/completions", json={**body, "stream": True}), 400)


def test_lists_refuse_bad_limits_and_cursors(http, client, training_file):
    for query in (
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "-1"},
        {"limit": "99999999999"},
        {"after": "nobody"},
        {"page": "2"},
    ):
        refused(http.get("/files", params=query), 400)
    refused(http.get("/files", params={"order": "up"}), 400)
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file).id
    refused(http.get(f"/fine_tuning/jobs/{job}/events", params={"after": job}), 400)
    refused(http.get("/fine_tuning/jobs", params={"metadata": "x"}), 400)
    refused(http.get("/fine_tuning/jobs", params={'metadata[a"b]': "x"}), 400)


def test_unknown_addresses_and_methods(http):
    assert "Unknown request URL" in refused(http.get("/engines"), 404)
    refused(http.put("/files"), 405)
    refused(http.delete(f"/models/{BASE}"), 403)
    refused(http.delete("/models/ft:none"), 404, "model_not_found")


# The command


def simulate(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ftbridge", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_command_tells_its_address_and_stops_at_a_signal(tmp_path):
    running = simulate("--port", "0", "--json", "--folder", str(tmp_path / "kept"))
    result = first_document(running)
    assert httpx.get(f"{result['base_url']}/models").status_code == 200
    second = simulate("--port", "0", "--folder", str(tmp_path / "kept"))
    assert second.wait(30) == 2
    assert "another server" in second.stderr.read()
    port = result["base_url"].split(":")[2].removesuffix("/v1")
    third = simulate("--port", port)
    assert third.wait(30) == 2
    assert "cannot listen" in third.stderr.read()
    running.terminate()
    assert running.wait(30) in (0, -15)
    assert '"GET /v1/models" 200' in running.stderr.read()


def test_beyond_loopback_a_token_is_needed(tmp_path):
    open_to_all = simulate("--host", "0.0.0.0", "--port", "0")
    assert open_to_all.wait(30) == 2
    assert "FTBRIDGE_SERVER_TOKEN" in open_to_all.stderr.read()
    guarded = simulate("--host", "0.0.0.0", "--port", "0", "--json", FTBRIDGE_SERVER_TOKEN="long-random-text")
    result = first_document(guarded)
    url = result["base_url"].replace("0.0.0.0", "127.0.0.1")
    refused(httpx.get(f"{url}/models"), 401, "missing_api_key")
    refused(httpx.get(f"{url}/models", headers={"Authorization": "Bearer wrong"}), 401, "invalid_api_key")
    assert httpx.get(f"{url}/models", headers={"Authorization": "Bearer long-random-text"}).status_code == 200
    assert httpx.get(url.removesuffix("/v1") + "/health").status_code == 200
    guarded.terminate()
    guarded.wait(30)
    assert "long-random-text" not in guarded.stderr.read()


def test_a_web_page_cannot_reach_a_loopback_server_by_a_name_of_its_own(simulator):
    response = httpx.get(f"{simulator.base_url}/models", headers={"Host": "evil.example"})
    refused(response, 403, "wrong_host")


def test_a_scenario_that_is_none_is_misuse(tmp_path):
    path = Path(tmp_path) / "faults.yaml"
    for text in (
        "faults: [{fault: flood}]",
        "fault: []",
        "jobs: {walk: [[running, 5]]}",
        "faults: [{on: nowhere}]",
        "faults: [{fault: alter}]",
        "faults: [{nth: 1, every: 2}]",
        "answers: [{match: '('}]",
        ": :",
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"faults\.yaml"), simulating(path):
            pass
    with pytest.raises(UsageError, match="cannot be read"), simulating(tmp_path / "absent.yaml"):
        pass
