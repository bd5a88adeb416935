"""Who may ask the server, in whose name, and whom it asks: pages of other sites, keys, judges, what reaches the log."""

import gzip
import http.server
import json
import logging
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from ftbridge.errors import UsageError
from ftbridge.server.api import graders
from ftbridge.server.app import application
from ftbridge.server.http import network
from ftbridge.server.http.access import Access, read_keys
from support.service import BASE, CHAT, lines
from support.waiting import wait_for

FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    {"Origin": "https://127.0.0.1"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_reaches_nothing(headers, http, simulator):
    refusals = [
        http.post("/files", data={"purpose": "fine-tune"}, files={"file": ("t.jsonl", lines())}, headers=headers),
        http.post("/chat/completions", json={"model": BASE, "messages": CHAT}, headers=headers),
        http.get("/models", headers=headers),
        http.delete("/models/x", headers=headers),
    ]
    assert [one.status_code for one in refusals] == [403] * 4
    assert refusals[0].json()["error"]["code"] == "foreign_origin"
    assert "access-control-allow-origin" not in refusals[0].headers
    assert not simulator.files


def test_the_servers_own_page_and_programs_may_ask(http, simulator):
    settings = simulator.base_url.removesuffix("/v1")
    for headers in ({"Origin": settings, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert http.get("/models", headers=headers).status_code == 200
    linked = httpx.get(settings, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert linked.status_code == 200, "a link to the list of routes is not a request of a page"


@pytest.mark.parametrize(
    "kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_json_under_another_type_is_not_taken(kind, http):
    body = json.dumps({"model": BASE, "messages": CHAT}).encode()
    response = http.post("/chat/completions", content=body, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_content_type")


@contextmanager
def guarded(simulator, access):
    """The simulator's service behind other rules."""
    bound = network.bind("127.0.0.1", 0)
    simulator.service.store.close = lambda: None  # the simulator closes it
    app = application(simulator.service, access=access)
    with network.in_background(app, bound), httpx.Client(base_url=f"{network.address_of(bound)}/v1") as client:
        yield client
    bound.close()


def test_an_allowed_origin_is_answered_with_what_its_browser_wants(simulator):
    page = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}
    with guarded(simulator, Access(origins=frozenset({"http://localhost:3000"}))) as client:
        settings = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        before = client.options("/chat/completions", headers=settings)
        assert (before.status_code, before.headers["access-control-allow-headers"]) == (204, "authorization")
        after = client.get("/models", headers=page)
        assert (after.status_code, after.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
        assert client.get("/models", headers={"Origin": "http://other:3000"}).status_code == 403


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server has logged. A request's line, like its count, follows its reply: wait for it."""
    formatter = network.OneLine("%(message)s")
    return [formatter.format(record) for record in list(caplog.records) if record.name == "ftbridge.server"]


def test_several_keys_have_names(simulator, tmp_path, caplog):
    path = tmp_path / "keys"
    path.write_text("# people\nana = k-of-ana-0123456789\nbo=k-of-bo-0123456789abc\n")
    keys = read_keys(path)
    with guarded(simulator, Access(keys)) as client, caplog.at_level(logging.INFO, "ftbridge.server"):
        assert client.get("/models").status_code == 401
        assert client.get("/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/models", headers={"Authorization": f"bearer {keys['ana']}"}).status_code == 200
        assert client.get("/models", headers={"api-key": keys["bo"]}).status_code == 200
        metrics = str(client.base_url).removesuffix("/v1/") + "/metrics"
        counted = 'ftbridge_requests_total{route="GET /models",status="200",key="ana"} 1'
        wait_for(lambda: counted in client.get(metrics, headers={"api-key": keys["bo"]}).text)
        wait_for(lambda: any(" bo " in line for line in logged(caplog)))
    lines_of_log = logged(caplog)
    assert not any(key in line for line in lines_of_log for key in keys.values())


@pytest.mark.parametrize(
    "text", ["ana", "ana=short", "ana=0123456789abcdef\nana=0123456789abcdeg", "", "=0123456789abcdef"]
)
def test_a_file_of_keys_that_is_none(text, tmp_path):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError):
        read_keys(tmp_path / "keys")


HALVES = ["a\\ud83d", "\\ude00", "x\\udfff y"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("messages[0].content", '{"model": "%s", "messages": [{"role": "user", "content": "%s"}]}'),
        ("messages[0].content[0].text",
         '{"model": "%s", "messages": [{"role": "user", "content": [{"type": "text", "text": "%s"}]}]}'),
        ("user", '{"model": "%s", "messages": [{"role": "user", "content": "x"}], "user": "%s"}'),
        ("stop", '{"model": "%s", "messages": [{"role": "user", "content": "x"}], "stop": "%s"}'),
    ],
)  # fmt: skip
def test_half_a_character_is_named_and_ends_nothing(half, where, body, http):
    text = body % (BASE, half)
    for content in (text, text[:-1] + ', "stream": true}'):
        response = http.post("/chat/completions", content=content, headers={"Content-Type": "application/json"})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "invalid_unicode", where)
    assert http.get("/models").status_code == 200


@pytest.mark.parametrize(
    "content", [b'{"a": 1e999}', b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", b'{"a": "\xed\xa0\xbd"}']
)
def test_json_that_nobody_could_read_back_is_refused(content, http):
    response = http.post("/chat/completions", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400


JUDGE = {
    "type": "score_model",
    "name": "g",
    "model": "any",
    "input": [{"role": "user", "content": "{{sample.output_text}}"}],
}
NESTED = {"type": "multi", "name": "m", "graders": {"g": JUDGE}, "calculate_output": "g"}


@contextmanager
def judge():
    """A judge on loopback that notes with which key it was asked."""
    seen = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers.get("authorization"))
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": '{"score": 1}'}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("grader", [JUDGE, NESTED], ids=["alone", "in a multi grader"])
def test_a_client_cannot_choose_whom_the_server_asks(grader, simulator, monkeypatch):
    monkeypatch.setenv("FTBRIDGE_JUDGE_API_KEY", "the-operators")
    monkeypatch.setenv("OPENAI_API_KEY", "the-servers")
    with judge() as (address, seen), httpx.Client(base_url=simulator.base_url) as client:

        def run(base_url):
            document = json.loads(
                json.dumps(grader).replace('"model": "any"', f'"model": "any", "base_url": {json.dumps(base_url)}')
            )
            document = grader if base_url is None else document
            return client.post(
                "/fine_tuning/alpha/graders/run", json={"grader": document, "model_sample": "x", "item": {}}
            )

        for tried in (address, None):
            response = run(tried)
            assert (response.status_code, response.json()["error"]["code"]) == (403, "judge_not_allowed")
        simulator.service.judges = graders.judges([address])
        for tried in (
            f"{address}/../x",
            address.replace("127.0.0.1", "127.0.0.2"),
            address.replace("//", "//u@"),
            f"{address}?a",
        ):
            assert run(tried).status_code in (400, 403), tried
        assert seen == []
        for tried in (None, address, f"{address}/"):
            assert run(tried).status_code == 200, tried
        assert seen == ["Bearer the-operators"] * 3


def test_judges_of_two_hosts_would_share_one_key():
    with pytest.raises(UsageError, match="several hosts"):
        graders.judges(["https://a.example/v1", "https://b.example/v1"])
    with pytest.raises(UsageError, match="not an http"):
        graders.judges(["file:///etc/passwd"])


def test_control_characters_never_reach_the_log(simulator, caplog):
    port = httpx.URL(simulator.base_url).port
    with caplog.at_level(logging.INFO, "ftbridge.server"):
        for path in ("/v1/files/%1b%5b31mred", "/v1/a%0d%0a12:00:00%20forged", "/v1/%e2%80%ae%c2%85x"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 404
        wait_for(lambda: len(logged(caplog)) >= 3)
    assert all(line.isprintable() for line in logged(caplog))


@pytest.mark.parametrize("path", ["/models/", "//models", "/models//", "/files/?limit=1"])
def test_slashes_too_many_are_not_minded(path, simulator):
    assert httpx.get(f"{simulator.base_url}{path}").status_code == 200


def test_compressed_bodies_are_read_within_the_limits(http, simulator):
    body = json.dumps({"model": BASE, "messages": CHAT}).encode()
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert http.post("/chat/completions", content=gzip.compress(body), headers=headers).status_code == 200
    assert http.post("/chat/completions", content=gzip.compress(body)[:-9], headers=headers).status_code == 400
    assert http.post("/chat/completions", content=b"not gzip", headers=headers).status_code == 400
    bomb = gzip.compress(b" " * (80 << 20))
    assert http.post("/chat/completions", content=bomb, headers=headers).status_code == 413
    assert (
        http.post("/chat/completions", content=body, headers={**headers, "Content-Encoding": "br"}).status_code == 415
    )


@pytest.mark.parametrize("sent", [b"", b"GET /v1/mod", b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_a_connection_that_sends_no_whole_request_is_closed(sent, monkeypatch):
    from ftbridge.server import simulating

    monkeypatch.setattr(network, "HEAD_SECONDS", 0.3)
    with simulating() as running:
        port = httpx.URL(running.base_url).port
        with socket.create_connection(("127.0.0.1", port), timeout=5) as held:
            held.sendall(sent)
            began = time.monotonic()
            assert held.recv(100) == b""
            assert time.monotonic() - began < 4


def test_idle_connections_make_room_when_there_are_too_many(monkeypatch):
    from ftbridge.server import simulating

    monkeypatch.setattr(network, "most_connections", lambda: 8)
    with simulating() as running:
        port = httpx.URL(running.base_url).port
        held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
        assert httpx.get(f"{running.base_url}/models").status_code == 200
        for one in held:
            one.close()
