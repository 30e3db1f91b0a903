"""What a session takes of the table: counted over a run of the handlers, against the audit's estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from emissary_lib.bridge.limits import Limits
from functions.common import audit
from functions.common.adapters.service import Operations
from functions.common.adapters.store import DynamoSessionStore
from tests.helpers.events import load_event
from tests.helpers.sam_template import source
from tests.unit.functions.adapters.conftest import SLOTS, TABLE, Dynamo
from tests.unit.functions.bridge import Bridge

#: Bytes of item in one write unit; a read unit has four times as many.
UNIT = 1024


class Counter:
    """Adds up the request units of a DynamoDB.

    Attributes:
        writes, reads: Units, of items that are each below :data:`UNIT`, and of which few are read at once.
    """

    def __init__(self, real: Operations) -> None:
        self._real = real
        self.writes = 0
        self.reads = 0

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self._count(operation, arguments)
        return self._real.call(operation, arguments)

    def _count(self, operation: str, arguments: Mapping[str, Any]) -> None:
        match operation:
            case "UpdateItem":
                self.writes += 1
            case "TransactWriteItems":
                self.writes += 2 * len(arguments["TransactItems"])
            case "GetItem":
                self.reads += 1
            case "Query":
                self.reads += 1
            case other:
                raise AssertionError(f"how much is {other}?")


def size(item: dict[str, dict[str, Any]]) -> int:
    """Bytes of an item, rather too many. Source: DynamoDB developer guide, "Item sizes and formats"."""
    total = 0
    for name, typed in item.items():
        ((kind, value),) = typed.items()
        total += len(name) + 3 + (sum(map(len, value)) if kind == "SS" else len(value))
    return total


@pytest.fixture
def used(dynamo: Dynamo) -> Iterator[Counter]:
    aws = dynamo.aws()
    yield Counter(aws.dynamodb)
    aws.close()


@pytest.fixture
def reader(dynamo: Dynamo) -> Iterator[Any]:
    client = dynamo.client()
    yield client
    client.close()


@pytest.mark.parametrize("slots", [0, 1, 2])
def test_a_session_takes_the_units_that_the_audit_record_reckons_with(
    used: Counter, reader: Any, slots: int
) -> None:
    most = source()["Parameters"]["MaxSessions"]["Default"]
    bridge = Bridge(warm=True)
    store: Any = DynamoSessionStore(used, TABLE, SLOTS, sleep=lambda _seconds: None)
    bridge.store = store
    bridge.limits = Limits(*[most] * slots + [0] * (2 - slots))

    def small() -> None:
        items = reader.scan(TableName=TABLE)["Items"]
        assert max(map(size, items)) < UNIT

    bridge.open()
    small()
    for _ in range(3):
        bridge.message(load_event("default_data"))
    bridge.message(load_event("default_end"))
    small()
    bridge.disconnect(load_event("disconnect_dialer"))
    bridge.disconnect(load_event("disconnect_relay", close_code=1000))
    small()
    assert (used.writes, used.reads) == (audit.write_units(slots), audit.read_units(slots))
