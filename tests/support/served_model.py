"""A `ftbridge serve` of its own process for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI

from ftbridge.server import served
from ftbridge.server.app import application
from ftbridge.server.http import network

MODEL = "gpt-4.1-mini-2025-04-14"
SETTINGS = ("quantization=none", "max_length=128", "evals_per_epoch=1", "base_learning_rate=1e-3")


def first_document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The first JSON document that a process prints, while it goes on."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, f"it printed no document, and ended with {process.wait(10)}"
        text += line
    document: dict[str, Any] = json.loads(text)
    return document


@contextmanager
def client_of(models: Mapping[str, str], home: Path, settings: Mapping[str, Any]) -> Iterator[OpenAI]:
    """A client of a server in this process; `models` maps the names it serves to model folders, `settings` are of `local`."""
    service = served(models, home / "server", home=home, settings=settings)
    bound = network.bind("127.0.0.1", 0)
    address = f"{network.address_of(bound)}/v1"
    with (
        network.in_background(application(service), bound),
        OpenAI(base_url=address, api_key="any", max_retries=0, timeout=120) as client,
    ):
        yield client
    bound.close()


class Served:
    """A server process over one folder and one model, which can be killed and started again."""

    def __init__(self, folder: Path, model: str | Path = "smollm2-135m-instruct", *settings: str) -> None:
        self.folder, self.model, self.settings = folder, model, (*SETTINGS, *settings)
        self.process: subprocess.Popen[str] | None = None
        self.client = OpenAI(base_url="http://unused", api_key="any")

    def start(self) -> Served:
        settings = [part for setting in self.settings for part in ("--set", setting)]
        command = ["serve", "--map", f"{MODEL}={self.model}", "--port", "0", "--json", *settings]
        with (self.folder / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ftbridge", *command],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "FTBRIDGE_HOME": str(self.folder)},
            )
        result = first_document(self.process)
        self.client = OpenAI(base_url=result["base_url"], api_key="any", max_retries=0, timeout=180)
        give_up = time.monotonic() + 30
        while True:
            try:
                self.client.models.list()
                return self
            except Exception:
                assert time.monotonic() < give_up, (self.folder / "serve.log").read_text()
                time.sleep(0.1)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(120)

    def kill_everything(self) -> None:
        """Pull the plug: the server, the run's driver, the worker, the model that answers."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for entry in Path("/proc").iterdir() if Path("/proc").exists() else []:
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    home = f"FTBRIDGE_HOME={self.folder}".encode()
                    if (
                        home in (entry / "environ").read_bytes().split(b"\0")
                        and b"ftbridge" in (entry / "cmdline").read_bytes()
                    ):
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue
