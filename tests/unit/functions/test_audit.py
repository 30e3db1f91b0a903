"""The estimate in the audit record, against sums written out by hand."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.prices import us_east_1
from emissary_lib.protocol.constants import MAX_MESSAGE, MAX_PAYLOAD
from emissary_local.billing.meter import Meter, MeterSnapshot, Way
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
        + (4_000 + 5 * 450) * 0.50e-9  # our lines, and Lambda's own of all but $default
    )
    cost = audit.estimated_cost(
        seconds=60, dialer_bytes=0, relay_bytes=0, slots=0, nat=True, prices=us_east_1(architecture)
    )
    assert cost == pytest.approx(expected, rel=1e-12)


def metered(*, seconds: float, to_target: int, from_target: int, relay: Way) -> MeterSnapshot:
    """What the local cloud meters of a session in which all goes well and every message is full.

    The others have no size: the estimate leaves their few bytes out.
    """
    clock = Clock()
    meter = Meter(lambda: clock.now, lambda: audit.LOG_BYTES)
    for connection in ("dialer", "relay"):
        meter.connect(accepted=True)
        meter.open_connection(connection)
    for size in [0, 0] + [MAX_MESSAGE] * to_target:  # the opening, END, and data
        meter.message_in(size, Way.INTERNET)
    for size in [0] + [MAX_MESSAGE] * to_target:  # ENDED, and data
        meter.message_out(size, relay)
    for size in [0] + [MAX_MESSAGE] * from_target:
        meter.sent(size, relay)  # the relay's posts
        meter.message_out(size, Way.INTERNET)
    for number in range(6 + to_target):
        meter.invocation("handlers", 0.025, 512, logged=number < 4)  # not of $default
    meter.invocation("RelayFunction", seconds, 256)
    clock.advance(seconds)
    return dataclasses.replace(meter.snapshot(), write_units=13.0, read_units=7.0)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize("nat", [True, False])
@pytest.mark.parametrize(
    ("seconds", "to_target", "from_target"), [(60, 0, 0), (90.5, 100, 20), (899, 3, 4000)]
)
def test_the_local_cloud_bills_a_session_at_what_the_record_says(
    machine: str, nat: bool, seconds: float, to_target: int, from_target: int
) -> None:
    prices = us_east_1(machine)
    cost = audit.estimated_cost(
        seconds=seconds,
        dialer_bytes=to_target * MAX_PAYLOAD,
        relay_bytes=from_target * MAX_PAYLOAD,
        slots=0,
        nat=nat,
        prices=prices,
    )
    relay = Way.NAT if nat else Way.REGION
    meter = metered(seconds=seconds, to_target=to_target, from_target=from_target, relay=relay)
    assert cost == pytest.approx(meter.cost(prices), rel=1e-9)


def test_each_limit_costs_the_writes_of_its_slot_and_the_reads_of_all_slots() -> None:
    none, one, two = (price(slots=slots) for slots in range(3))
    # Taken in the launch's transaction, leased for less at the end, given back; all are read at once.
    assert two - one == pytest.approx(4 * 0.625e-6 + 1 * 0.125e-6)
    # The launch itself counts double in a transaction, and the session is read behind it.
    assert one - none == pytest.approx(two - one + 0.625e-6 + 0.125e-6)


def price(*, to_target: int = 0, from_target: int = 0, slots: int = 0, nat: bool = False) -> float:
    """Of a session of a minute, on arm64."""
    return audit.estimated_cost(
        seconds=60,
        dialer_bytes=to_target,
        relay_bytes=from_target,
        slots=slots,
        nat=nat,
        prices=us_east_1("arm64"),
    )


#: A GB as metered: 10,584 full messages of 4 units each, and one of 66,016 bytes, which is 3.
UNITS_OF_A_GB = 10_584 * 4 + 3

#: A GB on the wire: base64, and 32 characters of header on each message.
WIRE_OF_A_GB = 10_584 * 126_000 + 32 + 88_022


def test_a_gigabyte_out_of_the_target_pays_for_its_way_to_the_dialer() -> None:
    assert pytest.approx(10**9 * 4 / 3, rel=0.001) == WIRE_OF_A_GB
    out = price(from_target=10**9) - price()
    assert out == pytest.approx(UNITS_OF_A_GB * 1.00e-6 + WIRE_OF_A_GB * 0.09e-9)
    assert out == pytest.approx(0.163, abs=0.001)


def test_a_gigabyte_into_the_target_pays_for_two_hops_and_for_handlers() -> None:
    assert price(to_target=10**9) - price() == pytest.approx(
        2 * UNITS_OF_A_GB * 1.00e-6 + 10_585 * (0.20e-6 + 0.5 * 0.025 * 13.3334e-6)
    )


@pytest.mark.parametrize("stream", ["to_target", "from_target"])
def test_behind_a_nat_gateway_each_way_costs_what_it_weighs_on_the_wire(stream: str) -> None:
    more = price(**{stream: 10**9}, nat=True) - price(**{stream: 10**9})  # type: ignore[arg-type]
    assert more == pytest.approx(WIRE_OF_A_GB * 0.045e-9)
    assert more == pytest.approx(0.060, abs=0.0001)


def test_a_small_message_is_one_unit_and_its_bytes() -> None:
    assert price(from_target=99) - price() == pytest.approx(1e-6 + (32 + 132) * 0.09e-9)


def test_a_session_without_an_ending_has_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="emissary"):
        audit.record(SessionRecord(SESSION, 1, NONCE, DATE, HOST, NOW, NOW + 60, 0), nat=True)
    assert caplog.records == []
