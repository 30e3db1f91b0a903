"""Both kinds of dialer: each connection with a relay of its own, and with one that it shares."""

from __future__ import annotations

import pytest

from tests.helpers.kinds import KINDS, Kind


@pytest.fixture(params=KINDS, ids=[str(kind) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    """How a dialer is made whose connections a test does not care to find shared or not."""
    assert isinstance(request.param, Kind)
    return request.param
