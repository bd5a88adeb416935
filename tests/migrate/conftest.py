from collections.abc import Iterator
from pathlib import Path

import pytest

from ftbridge.server import Simulator, simulating
from support.acme_account import ADMIN, BILLING, SUPPORT, acme


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Names of the variables that hold the keys of both projects; the admin key is in the environment too."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPPORT_KEY", SUPPORT)
    monkeypatch.setenv("BILLING_KEY", BILLING)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", ADMIN)
    return "SUPPORT_KEY", "BILLING_KEY"


@pytest.fixture
def service(tmp_path: Path, keys: tuple[str, str]) -> Iterator[Simulator]:
    """The account `acme`, on loopback."""
    with simulating(account=acme(tmp_path / "account")) as simulator:
        yield simulator
