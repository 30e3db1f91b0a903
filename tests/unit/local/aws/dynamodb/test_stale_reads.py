"""stale reads: an item as it was before its last write, for a while, and never to a consistent read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from emissary_local.aws.dynamodb.stale_reads import StaleReads
from emissary_local.aws.dynamodb.tables import Answer
from emissary_local.template.specs import TableSpec

TABLE = TableSpec("T", "t", {"KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]}, None)
KEY = {"pk": {"S": "a"}}
OLD = {"Item": {**KEY, "n": {"N": "1"}}}
ITEM = {**KEY, "n": {"N": "2"}}


class Store:
    """Answers every GetItem with the old item, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def forward(self, target: str, body: bytes) -> Answer:
        assert target.endswith(".GetItem")
        self.asked.append(json.loads(body))
        return Answer(200, json.dumps(OLD).encode())


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


WRITES = {
    "PutItem": {"TableName": "t", "Item": ITEM},
    "UpdateItem": {"TableName": "t", "Key": KEY},
    "DeleteItem": {"TableName": "t", "Key": KEY},
    "BatchWriteItem": {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}]}},
    "TransactWriteItems": {"TransactItems": [{"Put": {"TableName": "t", "Item": ITEM}}]},
}


def written(operation: str) -> tuple[StaleReads, Clock]:
    clock, store = Clock(), Store()
    earlier = StaleReads([TABLE], store, clock)
    assert read(earlier) is None, "the first read of an item is fresh, and makes it a watched one"
    earlier.remember(asyncio.run(earlier.images(operation, json.dumps(WRITES[operation]).encode())))
    assert store.asked == [{"TableName": "t", "Key": KEY, "ConsistentRead": True}]
    return earlier, clock


def read(earlier: StaleReads, **asked: Any) -> Any:
    body = json.dumps({"TableName": "t", "Key": KEY, **asked}).encode()
    answer = earlier.of("GetItem", body, 1.0)
    return None if answer is None else json.loads(answer)


@pytest.mark.parametrize("operation", WRITES)
def test_every_write_leaves_the_state_before_it(operation: str) -> None:
    earlier, clock = written(operation)
    assert read(earlier) == OLD
    clock.now += 1.1
    assert read(earlier) is None


def test_write_of_an_item_that_nobody_reads_so_costs_nothing() -> None:
    store = Store()
    earlier = StaleReads([TABLE], store, Clock())
    assert read(earlier, ConsistentRead=True) is None
    assert read(earlier, Key={"pk": {"S": "b"}}) is None
    assert asyncio.run(earlier.images("PutItem", json.dumps(WRITES["PutItem"]).encode())) == {}
    assert store.asked == []


def test_consistent_and_projected_reads_are_fresh() -> None:
    earlier, _ = written("PutItem")
    assert read(earlier, ConsistentRead=True) is None
    assert read(earlier, ProjectionExpression="n") is None
    assert read(earlier, Key={"pk": {"S": "b"}}) is None
    assert earlier.of("Query", b"{}", 1.0) is None
