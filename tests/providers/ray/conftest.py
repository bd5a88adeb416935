"""One real head for all tests of the Ray provider."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ray_cluster
from support.ray_cluster import RayCluster


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[RayCluster]:
    """The head."""
    if (reason := ray_cluster.missing()) is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    started = RayCluster(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(running_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The head, at which this process and its children ask, with its token."""
    for name, value in running_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return running_cluster
