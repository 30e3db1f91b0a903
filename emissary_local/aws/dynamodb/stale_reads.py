"""Items as they were before their last write: what a read that is not consistent may see."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from emissary_local.aws.dynamodb.tables import Answer
from emissary_local.template.specs import TableSpec

_GET_ITEM: Final = "DynamoDB_20120810.GetItem"

#: A table and a key.
Place = tuple[str, str]


class Backend(Protocol):
    """Where the items are: :class:`emissary_local.aws.dynamodb.tables.Tables`."""

    async def forward(self, target: str, body: bytes) -> Answer:
        """Pass one request on."""


class StaleReads:
    """Remembers items as they were before their last write.

    Only ``GetItem`` without a projection is ever
    stale, and an item's first such read is not: from then on it is watched. So nobody pays for a second read
    with each write while all reads are consistent.

    Source: DynamoDB Developer Guide, "Read consistency": eventually consistent reads "might not reflect the
    results of a recently completed write operation".

    Args:
        tables: The template's, for their keys.
        store: Where they are now.
        clock: Seconds on a clock that never goes back.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self, tables: Iterable[TableSpec], store: Backend, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = {
            table.name: [part["AttributeName"] for part in table.definition["KeySchema"]] for table in tables
        }
        self._store = store
        self._clock = clock
        self._watched: set[Place] = set()
        self._earlier: dict[Place, tuple[float, bytes]] = {}

    async def images(self, operation: str, body: bytes) -> dict[Place, bytes]:
        """Read those of the items that a write is about to change which are watched."""
        found: dict[Place, bytes] = {}
        if not self._watched:
            return found
        for table, key in self._written(operation, json.loads(body)):
            if _place(table, key) not in self._watched:
                continue
            request = {"TableName": table, "Key": key, "ConsistentRead": True}
            answer = await self._store.forward(_GET_ITEM, json.dumps(request).encode())
            if answer.status == 200:
                found[_place(table, key)] = answer.body
        return found

    def remember(self, images: Mapping[Place, bytes]) -> None:
        """The write has been done."""
        now = self._clock()
        self._earlier.update({place: (now, image) for place, image in images.items()})

    def of(self, operation: str, body: bytes, seconds: float) -> bytes | None:
        """The answer that a read would have had before the item's last write, or None if it must be fresh.

        Args:
            operation: Of DynamoDB.
            body: The request.
            seconds: How long after a write the old state may still be seen.
        """
        if operation != "GetItem":
            return None
        asked = json.loads(body)
        if asked.get("ConsistentRead") or "ProjectionExpression" in asked or "AttributesToGet" in asked:
            return None
        place = _place(asked["TableName"], asked["Key"])
        self._watched.add(place)
        at, image = self._earlier.get(place, (0.0, None))
        return image if image is not None and self._clock() - at <= seconds else None

    def _written(self, operation: str, asked: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        if operation == "TransactWriteItems":
            single = [
                (item["TableName"], item.get("Key") or item.get("Item"))
                for action in asked["TransactItems"]
                for kind, item in action.items()
                if kind != "ConditionCheck"
            ]
        elif operation == "BatchWriteItem":
            single = [
                (table, item.get("Key") or item.get("Item"))
                for table, requests in asked["RequestItems"].items()
                for request in requests
                for item in request.values()
            ]
        else:
            single = [(asked["TableName"], asked.get("Key") or asked.get("Item"))]
        return [
            (table, {name: item[name] for name in self._keys[table] if name in item})
            for table, item in single
            if table in self._keys and item
        ]


def _place(table: str, key: Mapping[str, Any]) -> Place:
    return table, json.dumps(key, sort_keys=True)
