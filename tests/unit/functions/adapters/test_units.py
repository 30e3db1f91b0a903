"""What a session takes of the table: counted over a run of the handlers, against the audit's estimate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emissary_lib.bridge.limits import Limits
from functions.common import audit
from functions.common.adapters.store import DynamoSessionStore
from tests.helpers.events import load_event
from tests.helpers.sam_template import source
from tests.unit.functions.adapters.conftest import SLOTS, TABLE, Dynamo
from tests.unit.functions.bridge import Bridge

#: Bytes of item in one write unit; a read unit has four times as many.
UNIT = 1024


class Counter:
    """Adds up the request units of a client.

    Attributes:
        writes, reads: Units, of items that are each below :data:`UNIT`, and of which few are read at once.
    """

    def __init__(self, client: Any) -> None:
        self.writes = 0
        self.reads = 0
        client.meta.events.register("provide-client-params.dynamodb", self._count)

    def _count(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        match model.name:
            case "UpdateItem":
                self.writes += 1
            case "TransactWriteItems":
                self.writes += 2 * len(params["TransactItems"])
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
def clients(dynamo: Dynamo) -> Iterator[tuple[Any, Any]]:
    both = dynamo.client(), dynamo.client()
    yield both
    for client in both:
        client.close()


@pytest.mark.parametrize("slots", [0, 1, 2])
def test_a_session_takes_the_units_that_the_audit_record_reckons_with(
    clients: tuple[Any, Any], slots: int
) -> None:
    client, reader = clients
    most = source()["Parameters"]["MaxSessions"]["Default"]
    bridge = Bridge(warm=True)
    store: Any = DynamoSessionStore(client, TABLE, SLOTS, sleep=lambda _seconds: None)
    bridge.store = store
    bridge.limits = Limits(*[most] * slots + [0] * (2 - slots))
    used = Counter(client)

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
