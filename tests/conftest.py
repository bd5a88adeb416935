"""Fixtures shared by all tests: a home of its own for each test, and the real small model, converted once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.paths import REPOSITORY

if TYPE_CHECKING:
    from support.simulated_service import Service

# Models are converted once for all tests and for `make demo`; the hub is never asked.
os.environ.setdefault("FTBRIDGE_MODELS", str(REPOSITORY / ".ftbridge" / "models"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"

# A shell starts what runs in its background with Ctrl-C ignored, and children inherit that; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FTBRIDGE_HOME in the test's own folder."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FTBRIDGE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def _products(tmp_path_factory: pytest.TempPathFactory) -> None:
    """This machine's speed, made up, so that no test waits for its measurement or depends on it."""
    from ftbridge.planning.machine import this_machine
    from ftbridge.planning.processor import stored_name

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return
    speed = {
        "day": "2026-11-01",
        "compute": "float32",
        "threads": 2,
        "torch": torch,
        "flops": {"512": 8e10},
        "elements": 4e9,
    }
    machine = this_machine(cards=False)
    names = [stored_name(machine, precision, torch) for precision in ("auto", "bf16", "fp16", "fp32")]
    path = tmp_path_factory.mktemp("products") / "products.json"
    path.write_text(json.dumps(dict.fromkeys(names, speed)))
    os.environ["FTBRIDGE_PRODUCTS"] = str(path)


@pytest.fixture(scope="session")
def running_service() -> Iterator[Service]:
    """The simulator as OpenAI's service, started once. Tests take `service`."""
    from ftbridge.server import simulating
    from support.simulated_service import SCENARIO, Service

    with simulating(SCENARIO) as simulator:
        yield Service(simulator)


@pytest.fixture
def service(running_service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A new service on loopback, an environment that points at it, and no waiting between requests."""
    from ftbridge import http
    from support.openai_jobs import KEY

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", running_service.base_url)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "1")
    http.wait_scale(0)
    return running_service.reset()


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """The built-in model: a directory with config, safetensors, tokenizer and chat template."""
    from ftbridge.providers.local.models.find import find_model

    return find_model("smollm2-135m-instruct").path


@pytest.fixture(scope="session")
def tiny_model_dir(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with the built-in model's tokenizer and template."""
    from support.small_model import write_small_model

    return write_small_model(tmp_path_factory.mktemp("tiny"), base_model_dir)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip, with the reason, where there is no CUDA device."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none here"))
