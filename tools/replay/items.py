"""Items of the table in a form that people read: ``{"S": "a"}`` is ``"a"``, ``{"N": "1"}`` is ``1``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any


def from_dynamodb(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A DynamoDB item as the client gives it -> the readable form.

    Example:
        >>> from_dynamodb({"pk": {"S": "S#1"}, "expires": {"N": "2.0"}, "nonce": {"B": b"a"}})
        {'pk': 'S#1', 'expires': 2, 'nonce': {'B': 'YQ=='}}
    """
    return {name: _from_attribute(attribute) for name, attribute in item.items()}


def to_dynamodb(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The readable form -> as the client takes it; the opposite of :func:`from_dynamodb`."""
    return {name: _to_attribute(value) for name, value in item.items()}


def _from_attribute(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    if kind == "N":
        number = float(value)
        return int(number) if number.is_integer() else number
    if kind == "B":
        return {"B": base64.b64encode(bytes(value)).decode()}
    return {kind: sorted(value)} if kind.endswith("S") and kind != "S" else value


def _to_attribute(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        return {kind: base64.b64decode(inner) if kind == "B" else inner}
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}
