"""The estimate in the audit record, against sums written out by hand."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.constants import MAX_MESSAGE, MAX_PAYLOAD
from emissary_local.billing.meter import Meter, MeterSnapshot
from emissary_local.billing.prices import HERE, us_east_1
from functions.common import audit
from tests.helpers.clock import Clock
from tests.helpers.events import DATE, HOST, NONCE, NOW, SESSION


@pytest.mark.parametrize(("architecture", "gb_second"), [("arm64", 13.3334e-6), ("x86_64", 16.6667e-6)])
def test_a_minute_without_bytes(architecture: str, gb_second: float) -> None:
    expected = (
        6 * 1.00e-6  # opening, END, ENDED twice, two upgrades
        + 2 * 0.25e-6  # two connections, one minute each
        + 0.25 * 60 * gb_second  # the relay
        + 6 * 0.5 * 0.025 * gb_second  # the handlers
        + 7 * 0.20e-6
        + 13 * 0.625e-6
        + 7 * 0.125e-6
    )
    cost = audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=0, slots=0, architecture=architecture)
    assert cost == pytest.approx(expected, rel=1e-12)


def metered(*, seconds: float, to_target: int, from_target: int) -> MeterSnapshot:
    """What the local cloud meters of a session in which all goes well and every message is full."""
    clock = Clock()
    meter = Meter(lambda: clock.now)
    for connection in ("dialer", "relay"):
        meter.connect(accepted=True)
        meter.open_connection(connection)
    for size in [100, 50] + [MAX_MESSAGE] * to_target:  # the opening, END, and data
        meter.message_in(size)
    for size in [50, 50] + [MAX_MESSAGE] * (to_target + from_target):  # ENDED twice, and data
        meter.message_out(size)
    for _ in range(6 + to_target):
        meter.invocation("handlers", 0.025, 512)
    meter.invocation("RelayFunction", seconds, 256)
    clock.advance(seconds)
    return dataclasses.replace(meter.snapshot(), write_units=13.0, read_units=7.0)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize(
    ("seconds", "to_target", "from_target"), [(60, 0, 0), (90.5, 100, 20), (899, 3, 4000)]
)
def test_the_local_cloud_bills_a_session_at_what_the_record_says(
    machine: str, seconds: float, to_target: int, from_target: int
) -> None:
    prices = us_east_1(machine)
    cost = audit.estimated_cost(
        seconds=seconds,
        dialer_bytes=to_target * MAX_PAYLOAD,
        relay_bytes=from_target * MAX_PAYLOAD,
        slots=0,
        architecture=prices.architecture,
    )
    bill = metered(seconds=seconds, to_target=to_target, from_target=from_target).cost(prices)
    assert cost == pytest.approx(bill, rel=1e-9)
    assert f"{prices.region} {prices.as_of}" == audit.PRICES


def test_functions_and_bill_agree_on_what_they_run_on() -> None:
    assert HERE.architecture == audit.ARCHITECTURE


def test_each_limit_costs_the_writes_of_its_slot_and_the_reads_of_all_slots() -> None:
    none, one, two = (
        audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=0, slots=slots) for slots in range(3)
    )
    # Taken in the launch's transaction, leased for less at the end, given back; all are read at once.
    assert two - one == pytest.approx(4 * 0.625e-6 + 1 * 0.125e-6)
    # The launch itself counts double in a transaction, and the session is read behind it.
    assert one - none == pytest.approx(two - one + 0.625e-6 + 0.125e-6)


def test_a_gigabyte_up_costs_more_than_twice_one_down() -> None:
    nothing = audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=0, slots=0)
    down = audit.estimated_cost(seconds=60, dialer_bytes=0, relay_bytes=10**9, slots=0) - nothing
    up = audit.estimated_cost(seconds=60, dialer_bytes=10**9, relay_bytes=0, slots=0) - nothing
    # 10,584 full messages of 4 units each, and one of 66,016 bytes, which is 3.
    assert down == pytest.approx((10_584 * 4 + 3) * 1.00e-6)
    assert up == pytest.approx(
        2 * (10_584 * 4 + 3) * 1.00e-6
        + 10_585 * (0.20e-6 + 0.5 * 0.025 * audit.GIGABYTE_SECOND[audit.ARCHITECTURE])
    )


def test_a_small_message_is_one_unit() -> None:
    nothing = audit.estimated_cost(seconds=0, dialer_bytes=0, relay_bytes=0, slots=0)
    small = audit.estimated_cost(seconds=0, dialer_bytes=0, relay_bytes=100, slots=0)
    assert small - nothing == pytest.approx(1e-6)


def test_a_session_without_an_ending_has_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="emissary"):
        audit.record(SessionRecord(SESSION, 1, NONCE, DATE, HOST, NOW, NOW + 60, 0))
    assert caplog.records == []
