import pytest

from ftbridge import http


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "1")
    http.wait_scale(0)
