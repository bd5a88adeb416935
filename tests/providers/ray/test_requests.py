"""What the Ray provider sends, and what it makes of answers that are not Ray's. No cluster is needed."""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ftbridge import providers
from ftbridge.errors import ServiceUnavailable, SpecError, UsageError
from ftbridge.providers.cluster.scheduler import Order
from ftbridge.providers.ray.scheduler import RayJobs, entrypoint
from ftbridge.spec import JobSpec
from ftbridge.spec.sections import RaySpec

SPEC: dict[str, Any] = {"name": "a", "data": {"train": "t.jsonl"}, "model": {"local": "m"}}
ORDER = Order("token.1", Path("/shared/it's/run"), "run")


class Page(BaseHTTPRequestHandler):
    """A login page in place of Ray's dashboard; what is posted to it gets an empty 503."""

    def do_GET(self) -> None:
        self._reply(200, b"<html>Please log in</html>")

    def do_POST(self) -> None:
        self._reply(503, b"")

    def _reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_section_becomes_a_request_of_the_jobs_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTBRIDGE_MODELS", "models")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    settings = RaySpec(
        address="http://head:8265/", gpus=2, cpus=8, memory_gb=64, resources={"a100": 1},
        runtime_env={"pip": ["ftbridge"], "env_vars": {"HF_HUB_OFFLINE": "0"}},
    )  # fmt: skip
    body = RayJobs(settings)._body(ORDER)
    assert (body["entrypoint_num_gpus"], body["entrypoint_num_cpus"], body["entrypoint_memory"]) == (2, 8, 64 * 10**9)
    assert body["entrypoint_resources"] == {"a100": 1}
    assert body["submission_id"] == "token.1"
    variables = body["runtime_env"]["env_vars"]
    assert body["runtime_env"]["pip"] == ["ftbridge"]
    assert variables["FTBRIDGE_MODELS"] == str(tmp_path / "models"), "a node has another working directory"
    assert variables["HF_HUB_OFFLINE"] == "0", "the spec's variables come before this process's"
    assert "hf_secret" not in str(body)
    assert RayJobs(settings).address == "http://head:8265"


def test_the_command_hands_paths_over_as_they_are_and_appends_to_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    python = tmp_path / "py thon"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (folder / "worker.log").write_text("before\n")
    command = entrypoint(RaySpec(python=str(python)), Order("token.1", folder, "run"))
    subprocess.run(["sh", "-c", command], check=True)
    lines = (folder / "worker.log").read_text().splitlines()
    assert lines == ["before", "-m", "ftbridge.providers.cluster.node", "run", str(folder), "token.1", "token.1", "0"]
    assert shlex.split(command)[0] == "exec"


def test_a_section_that_is_wrong_is_refused_by_field() -> None:
    for ray, problem in (({"address": "ray://head:10001"}, "ray.address"), ({"gpus": -1}, "ray.gpus"), ({"adress": "x"}, "address")):  # fmt: skip
        with pytest.raises(SpecError, match=problem):
            JobSpec.from_dict({**SPEC, "ray": ray})


def test_the_section_is_mapped_here_and_unused_elsewhere() -> None:
    spec = JobSpec.from_dict({**SPEC, "ray": {"address": "http://head:8265", "gpus": 0}})
    reports = {
        name: {report.field: report for report in providers.load(name).lower(providers.resolve(spec, 400, name)).fields}
        for name in ("ray", "slurm", "local")
    }
    assert reports["ray"]["ray.address"].outcome == "exact"
    assert reports["ray"]["ray.gpus"].how == "no GPU is requested"
    assert reports["ray"]["slurm.time"].how == "for --provider slurm"
    assert reports["slurm"]["ray.address"].outcome == reports["local"]["ray.address"].outcome == "unused"


def test_without_an_address_the_error_says_where_to_put_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="needs the address") as error:
        RayJobs(RaySpec()).check(ORDER, lambda _: None)
    assert "ray.address" in str(error.value)


def test_a_page_in_place_of_ray_is_no_answer(page: str) -> None:
    jobs = RayJobs(RaySpec(address=page))
    with pytest.raises(ServiceUnavailable, match="Please log in"):
        jobs.check(ORDER, lambda _: None)
    with pytest.raises(ServiceUnavailable):
        jobs.submit(ORDER)
