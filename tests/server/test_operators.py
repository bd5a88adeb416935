"""What operators need: https, keys with names, metrics, the version, a job's events as they come."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import ftbridge
from ftbridge.errors import UsageError
from ftbridge.server.http import network
from support.served_model import first_document
from support.service import BASE, CHAT
from support.waiting import wait_for

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


def certificate(folder: Path, name: str = "one") -> network.Tls:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return network.Tls(cert, key)


# https


@needs_openssl
def test_https_with_named_keys_from_the_command_line(tmp_path: Path):
    tls = certificate(tmp_path)
    keys = {"ana": "k-of-ana-0123456789", "bo": "k-of-bo-0123456789abc"}
    (tmp_path / "keys").write_text("".join(f"{name}={key}\n" for name, key in keys.items()))
    command = ["simulate", "--port", "0", "--json", "--tls-cert", str(tls.certificate), "--tls-key", str(tls.key),
               "--keys", str(tmp_path / "keys")]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ftbridge", *command], stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "FTBRIDGE_HOME": str(tmp_path)},
        )  # fmt: skip
    try:
        base = first_document(process)["base_url"]
        assert base.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(tls.certificate))
        with httpx.Client(base_url=base, verify=trusted, headers={"Authorization": f"Bearer {keys['ana']}"}) as client:
            assert client.post("/chat/completions", json={"model": BASE, "messages": CHAT}).status_code == 200
            assert client.get("/models", headers={"Authorization": "Bearer another"}).status_code == 401
            assert client.get("/models", headers={"Authorization": "", "api-key": keys["bo"]}).status_code == 200
            page = {"Origin": base.removesuffix("/v1"), "Sec-Fetch-Site": "same-origin"}
            assert client.get("/models", headers=page).status_code == 200, "its own page is one over https"
            assert client.get("/models", headers={"Origin": "http" + page["Origin"][5:]}).status_code == 403
            address = base.removesuffix("/v1")
            counted = 'ftbridge_requests_total{route="GET /models",status="200",key="bo"} 1'
            # A request is counted when its reply has gone out: the client may be a moment earlier.
            wait_for(lambda: counted in client.get(f"{address}/metrics").text)
            assert httpx.get(f"{address}/metrics", verify=trusted).status_code == 401
            assert httpx.get(f"{address}/version", verify=trusted).json()["version"] == ftbridge.__version__
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{address}/version")
        with pytest.raises(httpx.TransportError):
            httpx.get("http" + address[5:] + "/version", timeout=5)  # plain HTTP to the port of https
        assert httpx.get(f"{address}/version", verify=trusted).status_code == 200, "which hurts nobody else"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    text = (tmp_path / "log").read_text()
    assert " ana " in text
    assert not any(key in text for key in keys.values())
    assert "Traceback" not in text


@needs_openssl
def test_a_certificate_that_cannot_serve_is_told_before_anything_listens(tmp_path: Path):
    one, other = certificate(tmp_path), certificate(tmp_path, "other")
    one.check()
    assert one.key is not None
    joined = tmp_path / "joined.pem"
    joined.write_bytes(one.certificate.read_bytes() + one.key.read_bytes())
    network.Tls(joined).check()
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", str(one.key), "-aes256", "-passout", "pass:secret", "-out", str(locked)], check=True
    )
    (tmp_path / "text").write_text("no certificate")
    for tls, words in (
        (network.Tls(one.certificate, other.key), "is not that of the certificate"),
        (network.Tls(one.certificate), "not a certificate and its key"),
        (network.Tls(tmp_path / "text", one.key), "not a certificate and its key"),
        (network.Tls(tmp_path / "nowhere.pem", one.key), "nowhere.pem cannot be read"),
        (network.Tls(one.certificate, tmp_path / "nowhere.key"), "nowhere.key cannot be read"),
        (network.Tls(one.certificate, locked), "has a passphrase"),
    ):
        with pytest.raises(UsageError, match=words):
            tls.check()
    wrong = ["simulate", "--port", "0", "--json", "--tls-cert", str(one.certificate), "--tls-key", str(other.key)]
    ended = subprocess.run([sys.executable, "-m", "ftbridge", *wrong], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "other.key" in ended.stderr


# Metrics


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The values of Prometheus' text format 0.0.4; each metric has its HELP and TYPE before it."""
    result, typed = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        if line.startswith("#"):
            continue
        match = re.fullmatch(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)', line)
        assert match, line
        assert re.sub("_(bucket|sum|count)$", "", match[1]) in typed or match[1] in typed, line
        labels = frozenset(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        assert (match[1], labels) not in result, "told once"
        result[match[1], labels] = float(match[3])
    return result


def test_metrics_count_requests_durations_tokens_and_jobs(client, http, training_file):
    address = str(http.base_url).removesuffix("/v1/")
    client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    usage = client.chat.completions.create(model=BASE, messages=CHAT).usage
    list(client.chat.completions.create(model=BASE, messages=CHAT, stream=True))
    client.responses.create(model=BASE, input="x")
    http.get("/no/such%0apath")
    response = httpx.get(f"{address}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = samples(response.text)

    def value(name: str, **labels: str) -> float:
        return values[name, frozenset(labels.items())]

    route = "POST /chat/completions"
    assert value("ftbridge_requests_total", route=route, status="200", key="") == 2
    assert value("ftbridge_requests_total", route="other", status="404", key="") == 1
    assert value("ftbridge_request_seconds_count", route=route) == 2
    bounds = sorted((float(dict(labels)["le"]), count) for (name, labels), count in values.items()
                    if name == "ftbridge_request_seconds_bucket" and dict(labels)["route"] == route)  # fmt: skip
    assert bounds[-1] == (float("inf"), 2)
    assert [count for _, count in bounds] == sorted(count for _, count in bounds)
    assert value("ftbridge_tokens_total", model=BASE, kind="prompt") > 2 * usage.prompt_tokens
    assert value("ftbridge_tokens_total", model=BASE, kind="completion") > 2 * usage.completion_tokens - 1
    assert sum(count for (name, _), count in values.items() if name == "ftbridge_jobs") == 1
    assert value("process_resident_memory_bytes") > 1 << 20


def test_names_that_clients_make_up_do_not_grow_the_metrics_without_end():
    from ftbridge.server.http.metrics import MOST_MODELS, ServerMetrics

    metrics = ServerMetrics()
    for number in range(MOST_MODELS + 500):
        metrics.count_tokens(f"made-up-{number}", 1, 1)
    assert len(metrics.tokens) == 2 * MOST_MODELS + 2
    assert metrics.tokens["other", "prompt"] == 500


# Events


def events_of(http: httpx.Client, job: str) -> list[str]:
    with http.stream("GET", f"/fine_tuning/jobs/{job}/events", params={"stream": "true"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        return [line[6:] for line in stream.iter_lines() if line.startswith("data: ")]


def test_events_come_as_a_stream_until_the_job_has_ended(client, http, training_file):
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    result = events_of(http, job.id)
    assert result[-1] == "[DONE]"
    listed = [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert [json.loads(line)["id"] for line in result[:-1]] == listed[::-1]
    assert events_of(http, job.id) == result, "a job that has ended tells all of it again"
    assert http.get("/fine_tuning/jobs/ftjob-none/events", params={"stream": "true"}).status_code == 404


def test_a_listener_that_leaves_and_a_cancelled_job_end_the_stream(client, http, training_file):
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}}
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file, method=method)
    with http.stream("GET", f"/fine_tuning/jobs/{job.id}/events", params={"stream": "true"}) as stream:
        next(stream.iter_lines())
    client.fine_tuning.jobs.cancel(job.id)
    result = events_of(http, job.id)
    assert "cancelled" in json.loads(result[-2])["message"]
    assert result[-1] == "[DONE]"


# Other methods


def preference(n: int) -> dict[str, Any]:
    def assistant_says(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    settings = {"messages": [{"role": "user", "content": f"Question {n}?"}], "tools": [], "parallel_tool_calls": True}
    return {
        "input": settings,
        "preferred_output": assistant_says(f"Good {n}."),
        "non_preferred_output": assistant_says(f"Bad {n}."),
    }


def prompt(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Question {n}?"}], "answer": "a"}


GRADER = {
    "type": "string_check",
    "name": "g",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
METHODS: dict[str, tuple[Any, dict[str, Any], set[str], set[str]]] = {
    # method: lines of its data, its settings, what every step measures, what validation measures
    "dpo": (preference, {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "beta": 0.2}},
            {"train_loss", "train_reward_accuracy", "train_reward_margin"}, {"valid_loss", "valid_reward_accuracy"}),
    "reinforcement": (prompt, {"grader": GRADER, "hyperparameters": {"n_epochs": 2, "batch_size": 4, "eval_interval": 2}},
                      {"train_mean_reward", "mean_unresponsive_rewards", "completion_tokens_mean"},
                      {"full_valid_mean_reward", "full_valid_mean_parse_error"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", METHODS)
def test_a_job_of_another_method_succeeds_with_its_own_figures(kind, client):
    line, settings, steps, validation = METHODS[kind]

    def upload(first: int) -> str:
        content = "".join(json.dumps(line(n)) + "\n" for n in range(first, first + 12)).encode()
        return client.files.create(file=("data.jsonl", content), purpose="fine-tune").id

    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=upload(0), validation_file=upload(12), method={"type": kind, kind: settings}, seed=3)  # fmt: skip
    give_up = time.monotonic() + 60
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed"):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model
    assert job.method.type == kind
    events = [event for event in client.fine_tuning.jobs.list_events(job.id, limit=100) if event.type == "metrics"][
        ::-1
    ]
    assert [event.data["step"] for event in events] == list(range(1, 7))
    assert all(steps <= set(event.data) for event in events)
    assert [event.data["step"] for event in events if validation <= set(event.data)] == [3, 6]
    assert ("train_loss" in events[0].data) is (kind == "dpo")
    points = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [point.step_number for point in points] == [6, 3]
    assert all(steps | validation <= set(point.metrics.model_dump(exclude_none=True)) for point in points)
    assert client.chat.completions.create(model=points[0].fine_tuned_model_checkpoint, messages=CHAT).choices
    header, *rows = client.files.content(job.result_files[0]).text.splitlines()
    assert steps <= {column.replace("train_mean_token", "train") for column in header.split(",")}
    assert len(rows) == 6
    assert all(row.split(",")[1] for row in rows), "no column is empty from the first step on"


# Reasoning in a script


def test_a_script_has_reasoning_too():
    from openai import OpenAI

    from ftbridge.server import simulating

    script = {"answers": [{"match": "colour", "reply": "Red.", "reasoning": "Lamps are red. "}]}
    with simulating(script) as running, OpenAI(base_url=running.base_url, api_key="any") as client:
        completion = client.chat.completions.create(model=BASE, messages=CHAT, reasoning_effort="high")
        message: Any = completion.choices[0].message
        assert (message.content, message.reasoning_content) == ("Red.", "Lamps are red. ")
        assert completion.usage.completion_tokens_details.reasoning_tokens == 4
        without: Any = client.chat.completions.create(model=BASE, messages=CHAT, reasoning_effort="none")
        assert not hasattr(without.choices[0].message, "reasoning_content")
        item = client.responses.create(model=BASE, input="Which colour?").output[0]
        assert item.type == "reasoning"


# Bodies and names as clients write them


def test_compressed_bodies_of_several_members_and_without_a_frame_are_read(http):
    import gzip
    import zlib

    body = json.dumps({"model": BASE, "messages": CHAT}).encode()
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for content, encoding in (
        (gzip.compress(body[:20]) + gzip.compress(body[20:]), "gzip"),
        (zlib.compress(body), "deflate"),
        (bare.compress(body) + bare.flush(), "deflate"),
    ):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        assert http.post("/chat/completions", content=content, headers=headers).status_code == 200, encoding


@pytest.mark.parametrize("name", ["idna''a%ff.jsonl", "punycode''-%ff", "unicode_escape''%5Cud83d.jsonl", "utf-7''+2D0-.jsonl",
                                  "hex''00", "''%F0%9F.jsonl", "utf-8''%E2%82%AC.jsonl", "utf-16''%3d%d8"])  # fmt: skip
def test_a_file_named_in_any_charset_is_taken(name, http):
    body = (
        f'--z\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--z\r\nContent-Disposition: form-data; '
        f"name=\"file\"; filename=\"plain.jsonl\"; filename*={name}\r\n\r\n{{}}\n\r\n--z--\r\n"
    )  # fmt: skip
    response = http.post("/files", content=body.encode(), headers={"Content-Type": "multipart/form-data; boundary=z"})
    assert response.status_code == 200, response.text
    assert response.json()["filename"].isprintable()
    assert http.get("/files").status_code == 200


def test_a_body_that_trickles_in_and_stops_is_given_up(monkeypatch):
    from ftbridge.server import simulating

    monkeypatch.setattr(network, "BODY_SECONDS", 0.3)
    with simulating() as running:
        port = httpx.URL(running.base_url).port
        with socket.create_connection(("127.0.0.1", port), timeout=5) as held:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            held.sendall(head)
            began = time.monotonic()
            while held.recv(4096):
                pass
            assert time.monotonic() - began < 4


BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"model": BASE, "messages": [{"role": "user", "content": "HALF"}]},
    "/completions": {"model": BASE, "prompt": ["a", "HALF"]},
    "/responses": {"model": BASE, "input": [{"role": "user", "content": [{"type": "input_text", "text": "HALF"}]}]},
    "/embeddings": {"model": BASE, "input": "HALF"},
    "/fine_tuning/jobs": {"model": BASE, "training_file": "file-x", "metadata": {"HALF": "a"}},
    "/uploads": {"filename": "HALF", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/plain"},
    "/batches": {"input_file_id": "HALF", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "/fine_tuning/alpha/graders/run": {"grader": GRADER, "model_sample": "HALF", "item": {}},
    "/fine_tuning/alpha/graders/validate": {"grader": {**GRADER, "name": "HALF"}},
}


@pytest.mark.parametrize("path", BODIES)
def test_half_a_character_is_refused_wherever_it_stands(path, http):
    text = json.dumps(BODIES[path])
    for half in ("\\ud83d", "x\\ude00y", "\\ude00\\ud83d"):
        reply = http.post(path, content=text.replace("HALF", half), headers={"Content-Type": "application/json"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_unicode")
    response = http.post(
        path, content=text.replace("HALF", "\\ud83d\\ude00"), headers={"Content-Type": "application/json"}
    )
    assert response.status_code < 500
    assert (response.json().get("error") or {}).get("code") != "invalid_unicode"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80@evil.example", "[::2]", "localhost:port",
                                  "evil.example:8000", "0x7f000001"])  # fmt: skip
def test_a_name_that_is_not_the_servers_is_not_answered(host, http):
    assert http.get("/models", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:1", "[::1]"])
def test_the_names_of_loopback_are_answered(host, http):
    assert http.get("/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_no_method_serves_a_page_of_another_site(method, http):
    for path in ("/models", "/files", "/chat/completions"):
        assert http.request(method, path, headers={"Origin": "http://evil.example"}).status_code == 403
