"""The command's tests count sessions and relays: each connection has its own, whatever the default is."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMISSARY_CONNECTIONS_PER_RELAY", "1")
