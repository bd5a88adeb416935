"""What tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.priced_judge import Judge


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    """A judge that costs money, with retries that do not wait."""
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    one = Judge()
    yield one
    one.server.shutdown()
    one.server.server_close()
