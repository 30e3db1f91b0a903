"""Makes moto cost what a transaction touches, refuse items that grow too large, and tell how large they are.

Before each action of a transaction moto copies the whole table, in case it must be rolled back, and remembers
every copy of every item for as long as it runs. With some hundreds of sessions in the table, a transaction
then takes seconds and the process a gigabyte, which no DynamoDB does. An update may grow an item without end.
And nobody else could tell what a write costs: DynamoDB bills it by the larger of the item's sizes before and
after.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moto.core.model_instances import model_data
from moto.dynamodb.exceptions import ItemSizeToUpdateTooLarge
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table

from emissary_local.aws.dynamodb.sizes import MAX_ITEM
from emissary_local.billing.item_size import item_size

#: Values of keys that the running transaction may change. One request is served at a time.
_touched: set[str] = set()


#: The larger of the sizes before and after, of each item that the running request writes or checks.
_written: list[int] = []

#: Whether a transaction is running; its actions are measured by itself.
_transaction = False


class ValidationError(Exception):
    """Why a transaction is cancelled; its name and text are the reason's in the answer."""


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
    backend.transact_write_items = _transact(backend.transact_write_items)
    backend.update_item = _measured(_bounded(backend.update_item))
    backend.put_item = _measured(backend.put_item)
    backend.delete_item = _measured(backend.delete_item)
    backend.is_patched = True
    tables.__deepcopy__ = _snapshot


def take_written() -> list[int]:
    """Sizes of the items that the request has written, each the larger of before and after; forgets them."""
    sizes = list(_written)
    _written.clear()
    return sizes


def _transact(whole: Callable[..., None]) -> Callable[..., None]:
    def transact_write_items(self: Any, transact_items: Sequence[Mapping[str, Any]]) -> None:
        global _transaction
        places = [
            (str(action.get("TableName")), action.get("Key") or action.get("Item") or {})
            for item in transact_items
            for action in item.values()
        ]
        before = [_size(self, *place) for place in places]
        _touched.update(_keys(transact_items))
        _transaction = True
        try:
            whole(self, transact_items)
        finally:
            _transaction = False
            _touched.clear()
            _written.extend(map(max, before, (_size(self, *place) for place in places)))

    return transact_write_items


def _measured(whole: Callable[..., Any]) -> Callable[..., Any]:
    def write(self: Any, table_name: str, item: dict[str, Any], *args: Any, **options: Any) -> Any:
        before = 0 if _transaction else _size(self, table_name, item)
        try:
            return whole(self, table_name, item, *args, **options)
        finally:
            if not _transaction:
                _written.append(max(before, _size(self, table_name, item)))

    return write


def _bounded(whole: Callable[..., Any]) -> Callable[..., Any]:
    """An update that would make an item too large is refused, and leaves it as it was."""

    def update_item(self: Any, table_name: str, key: dict[str, Any], *args: Any, **options: Any) -> Any:
        found = _find(self, table_name, key)
        earlier = copy.deepcopy(found)
        try:
            item = whole(self, table_name, key, *args, **options)
            if item_size(item.to_json()["Attributes"]) > MAX_ITEM:
                raise ItemSizeToUpdateTooLarge
        except ItemSizeToUpdateTooLarge as exc:
            if found is not None:
                found.attrs = earlier.attrs
            else:
                table = self.get_table(table_name)
                table.delete_item(*self.get_keys_value(table, key))
            if _transaction:
                raise ValidationError(exc.message) from exc
            raise
        return item

    return update_item


def _find(backend: Any, table_name: str, item: Mapping[str, Any]) -> Any:
    """The stored item with the key of this one; None if there is none, or it is no key."""
    table = backend.tables.get(table_name)
    if table is None or any(name not in item for name in table.table_key_attrs):
        return None
    return table.get_item(*backend.get_keys_value(table, item))


def _size(backend: Any, table_name: str, item: Mapping[str, Any]) -> int:
    found = _find(backend, table_name, item)
    return item_size(found.to_json()["Attributes"]) if found is not None else 0


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
        if not _is_touched(key):
            continue
        if table.has_range_key:
            snapshot.items[key] = {
                sort_key: copy.deepcopy(item, memo) if _is_touched(sort_key) else item
                for sort_key, item in found.items()
            }
        else:
            snapshot.items[key] = copy.deepcopy(found, memo)
    return snapshot


def _is_touched(key: Any) -> bool:
    return str(key.value) in _touched
