"""One real cluster for all tests of the Slurm provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import slurm_cluster
from support.slurm_cluster import SlurmCluster


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """The daemons."""
    if (reason := slurm_cluster.missing()) is not None:
        pytest.skip(reason)
    started = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def cluster(running_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The cluster, to which this process's and its children's commands speak."""
    for name, value in {**running_cluster.environment, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    return running_cluster
