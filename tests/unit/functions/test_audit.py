"""The estimate in the audit record, against sums written out by hand."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.session import SessionRecord
from functions.common import audit
from tests.helpers.events import DATE, HOST, NONCE, NOW, SESSION


def test_a_minute_without_bytes() -> None:
    expected = (
        4 * 1.00e-6  # opening, END, ENDED twice
        + 2 * 0.25e-6  # two connections, one minute each
        + 0.25 * 60 * 13.3334e-6  # the relay
        + 7 * 0.5 * 0.025 * 13.3334e-6  # the handlers
        + 7 * 0.20e-6
        + 13 * 0.625e-6
        + 6 * 0.125e-6
    )
    cost = audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=0, slots=0)
    assert cost == pytest.approx(expected, rel=1e-12)


def test_each_limit_costs_the_writes_of_its_slot_and_the_reads_of_all_slots() -> None:
    none, one, two = (
        audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=0, slots=slots) for slots in range(3)
    )
    # Taken in the launch's transaction and given back; five are read.
    assert two - one == pytest.approx(3 * 0.625e-6 + 5 * 0.125e-6)
    # The launch itself counts double in a transaction, and the session is read behind it.
    assert one - none == pytest.approx(two - one + 0.625e-6 + 0.125e-6)


def test_a_gigabyte_up_costs_more_than_twice_one_down() -> None:
    nothing = audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=0, slots=0)
    down = audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=10**9, slots=0) - nothing
    up = audit.estimated_cost(seconds=60, dialer_bytes=10**9, relay_bytes=0, slots=0) - nothing
    # 10,584 full messages of 4 units each, and one of 66,016 bytes, which is 3.
    assert down == pytest.approx((10_584 * 4 + 3) * 1.00e-6)
    assert up == pytest.approx(2 * (10_584 * 4 + 3) * 1.00e-6 + 10_585 * (0.20e-6 + 0.5 * 0.025 * 13.3334e-6))


def test_a_small_message_is_one_unit() -> None:
    nothing = audit.estimated_cost(seconds=0, dialer_bytes=0, relay_bytes=0, slots=0)
    small = audit.estimated_cost(seconds=0, dialer_bytes=0, relay_bytes=100, slots=0)
    assert small - nothing == pytest.approx(1e-6)


def test_a_session_without_an_ending_has_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="emissary"):
        audit.record(SessionRecord(SESSION, 1, NONCE, DATE, HOST, NOW, NOW + 60, 0))
    assert caplog.records == []
