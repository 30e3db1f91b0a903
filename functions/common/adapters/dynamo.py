"""One DynamoDB table: conditional writes, transactions, consistent reads, and their errors.

Source: DynamoDB API reference, UpdateItem, TransactWriteItems, GetItem and BatchGetItem.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from emissary_lib.bridge.items import Item
from functions.common.errors import StoreError

#: Tries of a write that meets another transaction on the same item, and the first pause between them in
#: seconds; each following one is twice as long.
_TRIES: Final = 6
_PAUSE: Final = 0.02

_CONFLICTS: Final = frozenset({"TransactionConflict", "TransactionConflictException"})
_FAILED: Final = "ConditionalCheckFailed"


class ConditionFailed(Exception):
    """A condition did not hold. Never leaves the adapters.

    Attributes:
        items: The old item for each write, where DynamoDB told.
    """

    def __init__(self, items: Sequence[Item | None]) -> None:
        super().__init__("a condition did not hold")
        self.items = items


@dataclass(frozen=True, slots=True)
class Write:
    """One conditional Put or Update. Every attribute in an expression is written ``#name``."""

    kind: str
    arguments: Mapping[str, Any] = field(repr=False)

    @classmethod
    def put(cls, item: Item, condition: str) -> Write:
        """Replace an item, under a condition."""
        return cls("Put", {"Item": item, "ConditionExpression": condition, **_names(condition)})

    @classmethod
    def update(cls, key: Item, update: str, condition: str, values: Item) -> Write:
        """Change an item, or make one, under a condition."""
        return cls(
            "Update",
            {
                "Key": key,
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeValues": values,
                **_names(update + condition),
            },
        )


def _names(expressions: str) -> dict[str, Any]:
    # Always by placeholder: "state", "date" and some 570 other words are reserved.
    return {"ExpressionAttributeNames": {name: name[1:] for name in re.findall(r"#\w+", expressions)}}


class Table:
    """A table.

    Args:
        client: A botocore DynamoDB client.
        name: The table's name.
        sleep: Waits some seconds.
        rng: Draws the jitter of those waits.

    Every method blocks for at most the client's timeouts times its tries.
    """

    def __init__(self, client: Any, name: str, sleep: Callable[[float], None], rng: random.Random) -> None:
        self._client = client
        self._name = name
        self._sleep = sleep
        self._rng = rng

    def get(self, key: Item) -> Item | None:
        """Read one item, consistently.

        Raises:
            StoreError: If it cannot be read.
        """
        arguments = {"TableName": self._name, "Key": key, "ConsistentRead": True}
        item: Item | None = self._try(self._client.get_item, arguments).get("Item")
        return item

    def get_many(self, keys: Sequence[Item]) -> list[Item]:
        """Read those of at most 100 items that exist, each consistently, in no order.

        Raises:
            StoreError: If they cannot be read.
        """
        found: list[Item] = []
        asked: Mapping[str, Any] = {self._name: {"Keys": list(keys), "ConsistentRead": True}}
        for attempt in range(_TRIES):
            if attempt:
                self._wait(attempt)
            answer = self._try(self._client.batch_get_item, {"RequestItems": asked})
            found += answer.get("Responses", {}).get(self._name, ())
            asked = answer.get("UnprocessedKeys") or {}
            if not asked:
                return found
        raise StoreError(f"the session table left reads undone {_TRIES} times")

    def update(self, write: Write) -> Item:
        """Update one item; returns it as it is now.

        Raises:
            ConditionFailed: With the old item, or None if there is none.
            StoreError: If nothing is known of the outcome.
        """
        item: Item = self._try(
            self._client.update_item,
            {
                "TableName": self._name,
                **write.arguments,
                "ReturnValues": "ALL_NEW",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
        )["Attributes"]
        return item

    def transact(self, *writes: Write) -> None:
        """Do all writes or none.

        Raises:
            ConditionFailed: With the old items.
            StoreError: If nothing is known of the outcome.
        """
        actions = [
            {
                write.kind: {
                    "TableName": self._name,
                    **write.arguments,
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            }
            for write in writes
        ]
        self._try(self._client.transact_write_items, {"TransactItems": actions})

    def _wait(self, attempt: int) -> None:
        # Jitter, so that two transactions that met do not meet again.
        self._sleep(_PAUSE * 2 ** (attempt - 1) * (0.5 + self._rng.random()))

    def _try(self, call: Callable[..., Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        for attempt in range(_TRIES):
            if attempt:
                self._wait(attempt)
            try:
                result: Mapping[str, Any] = call(**arguments)
                return result
            except ClientError as exc:
                if not _is_conflict(exc):
                    raise _translated(exc) from exc
            except BotoCoreError as exc:
                raise StoreError(f"the session table did not answer: {exc}") from exc
        raise StoreError(f"the session table was busy with another transaction {_TRIES} times")


def _reasons(exc: ClientError) -> Sequence[Mapping[str, Any]]:
    reasons: Sequence[Mapping[str, Any]] = exc.response.get("CancellationReasons") or ()
    return reasons


def _is_conflict(exc: ClientError) -> bool:
    codes = {exc.response["Error"]["Code"], *(reason.get("Code") for reason in _reasons(exc))}
    # A condition that does not hold counts for more: it will not hold the next time either.
    return bool(codes & _CONFLICTS) and _FAILED not in codes


def _translated(exc: ClientError) -> Exception:
    error = exc.response["Error"]
    if error["Code"] == "ConditionalCheckFailedException":
        response: Any = exc.response
        return ConditionFailed([response.get("Item")])
    if any(reason.get("Code") == _FAILED for reason in _reasons(exc)):
        return ConditionFailed([reason.get("Item") for reason in _reasons(exc)])
    return StoreError(f"the session table refused: {error['Code']}")
