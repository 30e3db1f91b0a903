"""Which permissions a DynamoDB request needs.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon DynamoDB";
DynamoDB Developer Guide, "Using IAM with DynamoDB transactions".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from emissary_local.template import names

#: A transaction needs the permissions of its parts; there is none of its own.
_TRANSACTION_PARTS: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
    "Get": "GetItem",
}

#: PartiQL: what they do is in a language of its own.
_STATEMENTS: Final = frozenset({"ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction"})


def permissions(operation: str, body: bytes) -> list[tuple[str, str]]:
    """What a request must be allowed: pairs of action and resource, each once, in the request's order.

    Args:
        operation: Such as ``GetItem``.
        body: The request's JSON.

    Raises:
        LookupError: If its permissions cannot be told: PartiQL.
        ValueError: If the request is malformed.
    """
    if operation in _STATEMENTS:
        raise LookupError(f"the local cloud does not evaluate permissions of PartiQL ({operation})")
    try:
        return list(dict.fromkeys(_permissions(operation, json.loads(body))))
    except (TypeError, LookupError, AttributeError) as exc:
        raise ValueError(f"the request is malformed: {exc!r}") from exc


def _permissions(operation: str, asked: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if operation in ("TransactWriteItems", "TransactGetItems"):
        for item in asked["TransactItems"]:
            ((kind, action),) = item.items()
            yield f"dynamodb:{_TRANSACTION_PARTS[kind]}", _table_arn(action["TableName"])
    elif operation in ("BatchGetItem", "BatchWriteItem"):
        for table in asked["RequestItems"]:
            yield f"dynamodb:{operation}", _table_arn(table)
    elif "TableName" in asked:
        index = f"/index/{asked['IndexName']}" if asked.get("IndexName") else ""
        yield f"dynamodb:{operation}", _table_arn(asked["TableName"]) + index
    else:
        yield f"dynamodb:{operation}", str(asked.get("ResourceArn", "*"))


def _table_arn(table: Any) -> str:
    if not isinstance(table, str):
        raise TypeError(f"{table!r} is no table's name")
    return table if table.startswith("arn:") else names.attribute("AWS::DynamoDB::Table", table, "Arn")
