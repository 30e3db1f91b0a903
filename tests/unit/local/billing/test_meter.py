"""meter: what is counted is what AWS's pricing pages say is billed."""

from __future__ import annotations

import json
import platform

import pytest

from emissary_lib.prices import HERE, us_east_1
from emissary_local.billing.meter import Meter, MeterSnapshot, Way, message_units


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("size", "units"), [(0, 1), (1, 1), (32_768, 1), (32_769, 2), (33 * 1024, 2), (126_000, 4), (131_072, 4)]
)
def test_a_message_is_billed_in_steps_of_32_kb(size: int, units: int) -> None:
    """API Gateway pricing's own example: 33 KB is two messages."""
    assert message_units(size) == units


def test_connection_time_counts_closed_and_open_connections() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.open_connection("a")
    meter.open_connection("b")
    clock.now += 30
    meter.close_connection("a")
    meter.close_connection("a")
    clock.now += 60
    assert meter.snapshot().connection_seconds == pytest.approx(30 + 90)


def test_lambda_time_is_rounded_up_to_milliseconds_and_weighed_by_memory() -> None:
    meter = Meter()
    meter.invocation("Default", 0.0101, 512)
    meter.invocation("Default", 0.011, 512)
    meter.invocation("Relay", 2.0, 256)
    snapshot = meter.snapshot()
    assert snapshot.invocations == {"Default": 2, "Relay": 1}
    assert snapshot.gb_seconds == pytest.approx({"Default": 0.022 / 2, "Relay": 0.5})


def item(size: int) -> dict[str, object]:
    """An item of ``size`` bytes."""
    return {"pk": {"S": "x" * (size - len("pk"))}}


@pytest.mark.parametrize(
    ("operation", "request_", "response", "write", "read"),
    [
        ("PutItem", {"Item": item(500)}, {}, 1, 0),
        ("PutItem", {"Item": item(1500)}, {}, 2, 0),
        ("DeleteItem", {"Key": {}}, {}, 1, 0),
        ("TransactWriteItems", {"TransactItems": [{"Put": item(100)}, {"Put": item(1500)}]}, {}, 2 + 4, 0),
        ("BatchWriteItem", {"RequestItems": {"t": [{"PutRequest": item(10)}] * 3}}, {}, 3, 0),
        ("GetItem", {"ConsistentRead": True}, {"Item": item(100)}, 0, 1),
        ("GetItem", {}, {"Item": item(100)}, 0, 0.5),
        ("GetItem", {"ConsistentRead": True}, {"Item": item(4096)}, 0, 1),
        ("GetItem", {"ConsistentRead": True}, {"Item": item(4097)}, 0, 2),
        # Only what a query reads together is rounded up.
        ("Query", {"ConsistentRead": True}, {"Items": [item(82)] * 1000, "Count": 1000}, 0, 21),
        ("Query", {}, {"Items": [item(82)] * 1000, "Count": 1000}, 0, 10.5),
        ("Query", {"ConsistentRead": True}, {"Items": [], "Count": 0}, 0, 1),
        ("Scan", {"ConsistentRead": True}, {"Items": [item(3000), item(3000)]}, 0, 2),
        ("GetItem", {"ConsistentRead": True}, {}, 0, 1),
        ("TransactGetItems", {}, {"Responses": [{"Item": item(10)}, {"Item": item(10)}]}, 0, 4),
        (
            "BatchGetItem",
            {"RequestItems": {"t": {"Keys": [{}, {}, {}], "ConsistentRead": True}, "u": {"Keys": [{}]}}},
            {"Responses": {"t": [item(10), item(5000)]}},
            0,
            1 + 2 + 1 + 0.5,
        ),
        ("CreateTable", {}, {}, 0, 0),
    ],
)
def test_dynamodb_request_units(
    operation: str, request_: object, response: object, write: float, read: float
) -> None:
    meter = Meter()
    meter.dynamodb(operation, json.dumps(request_).encode(), json.dumps(response).encode())
    assert (meter.snapshot().write_units, meter.snapshot().read_units) == (write, read)


@pytest.mark.parametrize(
    ("operation", "written", "units"),
    [
        ("UpdateItem", (1024,), 1),
        ("UpdateItem", (409_600,), 400),
        ("DeleteItem", (1025,), 2),
        ("BatchWriteItem", (10, 3000), 1 + 3),
        ("TransactWriteItems", (10, 3000), 2 + 6),
        ("PutItem", (0,), 1),
    ],
)
def test_a_write_costs_by_the_item_and_not_by_the_request(
    operation: str, written: tuple[int, ...], units: int
) -> None:
    meter = Meter()
    meter.dynamodb(operation, b"{}", b"{}", written)
    assert meter.snapshot().write_units == units


def busy() -> MeterSnapshot:
    clock = Clock()
    meter = Meter(clock, lambda: 550)
    meter.connect(accepted=True)
    meter.connect(accepted=False)
    meter.open_connection("a")
    meter.message_in(126_000, Way.NAT)
    meter.message_out(10, Way.INTERNET)
    meter.callback("POST", posted=True)
    meter.callback("DELETE")
    meter.invocation("Default", 1.0, 1024)
    meter.dynamodb("PutItem", b"{}")
    clock.now += 60
    return meter.snapshot()


@pytest.mark.parametrize(
    ("machine", "gb_second"), [("x86_64", 0.0000166667), ("aarch64", 0.0000133334), ("arm64", 0.0000133334)]
)
def test_the_cost_is_the_sum_of_counts_times_prices(machine: str, gb_second: float) -> None:
    # 2 connects + 4 units in + 1 out + 1 for the DELETE = 8 message units, one minute, one request, ...
    expected = (8 * 1.00 + 1 * 0.25 + 1 * 0.20 + 1 * 0.625) / 1e6 + gb_second
    # ... 10 bytes out to the internet, 126,000 through NAT, 550 of log and 450 that are Lambda's own.
    expected += (10 * 0.09 + 126_000 * 0.045 + 1_000 * 0.50) / 1e9
    assert busy().cost(us_east_1(machine)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("way", "internet", "nat"), [(Way.INTERNET, 50, 0), (Way.REGION, 0, 0), (Way.NAT, 0, 50 + 30 + 7)]
)
def test_bytes_are_billed_by_the_way_they_take(way: Way, internet: int, nat: int) -> None:
    meter = Meter()
    meter.message_out(50, way)
    meter.message_in(30, way)
    meter.sent(7, way)
    assert (meter.snapshot().internet_bytes, meter.snapshot().nat_bytes) == (internet, nat)


def test_unless_told_otherwise_the_functions_run_on_this_machine() -> None:
    assert busy().cost() == busy().cost(us_east_1(platform.machine()))


def test_an_empty_run_costs_nothing() -> None:
    assert Meter().snapshot().cost() == 0.0


def test_a_snapshot_survives_json() -> None:
    assert MeterSnapshot.from_json(busy().to_json()) == busy()


def test_the_difference_of_two_snapshots_is_what_happened_between() -> None:
    twice = busy()
    assert (twice - twice).cost() == 0.0
    assert (twice - MeterSnapshot()).cost() == pytest.approx(twice.cost())


def test_the_bill_names_its_date_and_ends_with_the_total() -> None:
    lines = busy().bill().splitlines()
    assert f"us-east-1, {HERE.architecture}, prices of {HERE.as_of}" in lines[0]
    assert any("Default: 1 requests, 1.0000 GB-seconds" in line for line in lines)
    assert lines[-1].split() == ["total", "$", f"{busy().cost():.8f}"]
