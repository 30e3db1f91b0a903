"""Keeps moto's time and memory for a transaction from growing with the number of items in the table.

Before each action of a transaction moto copies the whole table, in case it must be rolled back, and remembers
every copy of every item for as long as it runs. With some hundreds of sessions in the table, a transaction
then takes seconds and the process a gigabyte, which no DynamoDB does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from moto.core.model_instances import model_data
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table

#: Values of keys that the running transaction may change. One request is served at a time.
_touched: set[str] = set()


class _Forgetful(list[Any]):
    """A list that stays empty."""

    def append(self, item: Any) -> None:
        """Forget it."""


def patch_moto() -> None:
    """Change moto in this process. Idempotent.

    Thread safety: none; afterwards the backend must be asked one request at a time.
    """
    models: Any = model_data["dynamodb"]
    for model in models.values():
        model.instances_tracked = _Forgetful()
    backend: Any = DynamoDBBackend
    tables: Any = Table
    if getattr(backend, "is_patched", False):
        return
    whole = backend.transact_write_items

    def transact_write_items(self: Any, transact_items: Sequence[Mapping[str, Any]]) -> None:
        _touched.update(_keys(transact_items))
        try:
            whole(self, transact_items)
        finally:
            _touched.clear()

    backend.transact_write_items = transact_write_items
    backend.is_patched = True
    tables.__deepcopy__ = _snapshot


def _keys(transact_items: Sequence[Mapping[str, Any]]) -> set[str]:
    """Everything that may be the value of a key in these actions; too many do no harm."""
    actions = [action for item in transact_items for action in item.values()]
    return {
        str(value)
        for action in actions
        for typed in (action.get("Key") or action.get("Item") or {}).values()
        for value in typed.values()
    }


def _snapshot(table: Any, memo: dict[int, Any]) -> Any:
    """A copy for a rollback: items that the transaction may change are copied, the others are shared."""
    snapshot = copy.copy(table)
    snapshot.items = copy.copy(table.items)
    for key, found in table.items.items():
        if str(key.value) in _touched:
            snapshot.items[key] = copy.deepcopy(found, memo)
    return snapshot
