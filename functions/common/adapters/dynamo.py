"""A DynamoDB table: conditional writes, transactions, consistent reads, and their errors.

Source: DynamoDB API reference, UpdateItem, TransactWriteItems, GetItem and Query.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from emissary_lib.bridge.items import Item
from emissary_lib.bridge.writes import Write, key_condition
from functions.common.adapters.service import NoAnswerError, Operations, ServiceError
from functions.common.errors import StoreError

#: Tries of a write that meets another transaction on the same item, and the first pause between them in
#: seconds; each following one is twice as long.
_TRIES: Final = 6
_PAUSE: Final = 0.02

#: One of the writes of a transaction, with the table that it is for, as the client takes it.
Action = Mapping[str, Mapping[str, Any]]

_CONFLICTS: Final = frozenset({"TransactionConflict", "TransactionConflictException"})
_FAILED: Final = "ConditionalCheckFailed"
_TRANSACT: Final = "TransactWriteItems"


class ConditionFailedError(Exception):
    """A condition did not hold. Never leaves the adapters.

    Attributes:
        items: The old item for each write, where DynamoDB told.
    """

    def __init__(self, items: Sequence[Item | None]) -> None:
        super().__init__("a condition did not hold")
        self.items = items


class Table:
    """A table.

    Args:
        client: DynamoDB.
        name: The table's name.
        sleep: Waits some seconds.
        rng: Draws the jitter of those waits.

    Every method blocks for at most the client's timeouts times its tries.
    """

    def __init__(
        self, client: Operations, name: str, sleep: Callable[[float], None], rng: random.Random
    ) -> None:
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
        item: Item | None = self._try("GetItem", arguments).get("Item")
        return item

    def query(self, condition: str, values: Item) -> list[Item]:
        """Read all items of one partition that a condition on the keys chooses, consistently.

        Raises:
            StoreError: If they cannot be read.
        """
        found: list[Item] = []
        arguments = {"TableName": self._name, **key_condition(condition, values), "ConsistentRead": True}
        while True:
            answer = self._try("Query", arguments)
            found += answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return found
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def update(self, write: Write) -> Item:
        """Update one item; returns it as it is now.

        Raises:
            ConditionFailedError: With the old item, or None if there is none.
            StoreError: If nothing is known of the outcome.
        """
        item: Item = self._try(
            "UpdateItem",
            {
                "TableName": self._name,
                **write.arguments,
                "ReturnValues": "ALL_NEW",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
        )["Attributes"]
        return item

    def action(self, write: Write) -> Action:
        """A write to this table as one of a transaction."""
        return {
            write.kind: {
                "TableName": self._name,
                **write.arguments,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def transact(self, *actions: Action) -> None:
        """Do all actions or none; they may be on other tables too.

        Raises:
            ConditionFailedError: With the old items.
            StoreError: If nothing is known of the outcome.
        """
        self._try(_TRANSACT, {"TransactItems": actions})

    def _token(self, operation: str) -> Mapping[str, str]:
        # With it, a transaction whose answer was lost is not done once more when the client asks again.
        return {"ClientRequestToken": f"{self._rng.getrandbits(128):032x}"} if operation == _TRANSACT else {}

    def _wait(self, attempt: int) -> None:
        # Jitter, so that two transactions that met do not meet again.
        self._sleep(_PAUSE * 2 ** (attempt - 1) * (0.5 + self._rng.random()))

    def _try(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        for attempt in range(_TRIES):
            if attempt:
                self._wait(attempt)
            try:
                return self._client.call(operation, {**arguments, **self._token(operation)})
            except ServiceError as exc:
                if not _is_conflict(exc):
                    raise _translate(exc) from exc
            except NoAnswerError as exc:
                raise StoreError(f"DynamoDB did not answer: {exc}") from exc
        raise StoreError(f"DynamoDB was busy with another transaction {_TRIES} times")


def _reasons(exc: ServiceError) -> Sequence[Mapping[str, Any]]:
    return exc.details.get("CancellationReasons") or ()


def _is_conflict(exc: ServiceError) -> bool:
    codes = {exc.code, *(reason.get("Code") for reason in _reasons(exc))}
    # A condition that does not hold counts for more: it will not hold the next time either.
    return bool(codes & _CONFLICTS) and _FAILED not in codes


def _translate(exc: ServiceError) -> Exception:
    if exc.code == "ConditionalCheckFailedException":
        return ConditionFailedError([exc.details.get("Item")])
    if any(reason.get("Code") == _FAILED for reason in _reasons(exc)):
        return ConditionFailedError([reason.get("Item") for reason in _reasons(exc)])
    return StoreError(f"DynamoDB refused: {exc.code}")
