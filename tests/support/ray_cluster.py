"""A real Ray head on this machine, which wants a bearer token."""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx


def missing() -> str | None:
    """Why no head can be started here; None where one can."""
    packages = ("ray", "aiohttp_cors", "opencensus")  # the last two come with ray[default], which has the Jobs API
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"Ray is not installed here ({', '.join(absent)}): pip install 'ray[default]'" if absent else None


class RayCluster:
    """One head with two CPUs and no GPU; its files are in `folder`, whose path must be short (sockets are below it)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, secrets.token_hex(16)
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "RAY_AUTH_TOKEN": self.token,
            "RAY_API_SERVER_ADDRESS": self.address,
            "FTBRIDGE_WAIT_SCALE": "0.05",
            "OMP_NUM_THREADS": "1",
        }
        self._head: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the head and wait until its Jobs API answers."""
        options = {
            "port": _free_port(below=10000), "dashboard-host": "127.0.0.1", "dashboard-port": self.port, "num-cpus": 2,
            "num-gpus": 0, "temp-dir": self.folder, "object-store-memory": 80_000_000,
        }  # fmt: skip
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        with (self.folder / "head.log").open("ab") as log:
            self._head = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        give_up = time.monotonic() + 180
        while not self._answers():
            assert self._head.poll() is None, (self.folder / "head.log").read_text()
            assert time.monotonic() < give_up, "the head does not answer"
            time.sleep(0.5)

    def stop(self) -> None:
        """End the head and everything that it started."""
        if self._head is not None:
            self._head.terminate()
            self._head.wait(60)

    def jobs(self) -> list[str]:
        """Submission ids of all jobs."""
        return [job["submission_id"] for job in self._get("/api/jobs/").json()]

    def _answers(self) -> bool:
        try:
            return self._get("/api/jobs/").status_code == 200
        except httpx.HTTPError:
            return False

    def _get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.address}{path}", headers=headers, timeout=30)


def _free_port(below: int = 65536) -> int:
    """A free port; Ray wants its own outside the range of its workers' (10002 to 19999)."""
    for port in range(6400, below) if below < 65536 else [0]:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise AssertionError("no port is free")
