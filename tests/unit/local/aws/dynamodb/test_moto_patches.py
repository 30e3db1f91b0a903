"""A transaction costs what it touches, not what the table holds."""

from __future__ import annotations

from typing import Any

import pytest
from moto.dynamodb.exceptions import TransactionCanceledException
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import Item

from emissary_local.aws.dynamodb.moto_patches import patch_moto


def create(backend: Any, name: str, **keys: str) -> None:
    kinds = dict(zip(keys, ("HASH", "RANGE"), strict=False))
    backend.create_table(
        name,
        schema=[{"AttributeName": key, "KeyType": kind} for key, kind in kinds.items()],
        throughput=None,
        attr=[{"AttributeName": key, "AttributeType": type_} for key, type_ in keys.items()],
        global_indexes=None,
        indexes=None,
        streams=None,
        billing_mode="PAY_PER_REQUEST",
        sse_specification=None,
        tags=[],
        deletion_protection_enabled=False,
        warm_throughput=None,
    )


@pytest.fixture
def backend() -> Any:
    """A table with a hundred items, and one of two partitions with fifty each, in a patched moto."""
    patch_moto()
    backend = DynamoDBBackend("us-east-1", "123456789012")
    create(backend, "T", pk="S")
    create(backend, "P", limit="S", slot="N")
    for number in range(100):
        backend.put_item("T", {"pk": {"S": f"S#{number}"}, "n": {"N": "1"}})
        slot = {"limit": {"S": "LK"[number % 2]}, "slot": {"N": str(number // 2)}, "n": {"N": "1"}}
        backend.put_item("P", slot)
    return backend


def update(number: int, condition: str) -> dict[str, Any]:
    return {
        "Update": {
            "TableName": "T",
            "Key": {"pk": {"S": f"S#{number}"}},
            "UpdateExpression": "SET #n = :two",
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":two": {"N": "2"}},
        }
    }


def stored(backend: Any) -> dict[str, Any]:
    return {str(key.value): item for key, item in backend.tables["T"].items.items()}


def test_failed_transaction_is_undone_and_shares_what_it_did_not_touch(backend: Any) -> None:
    before = stored(backend)
    with pytest.raises(TransactionCanceledException):
        backend.transact_write_items(
            [update(1, "attribute_exists(#n)"), update(2, "attribute_not_exists(#n)")]
        )
    after = stored(backend)
    assert [after[f"S#{number}"].attrs["n"].value for number in (1, 2, 3)] == ["1", "1", "1"]
    assert [key for key in before if after[key] is not before[key]] == ["S#1", "S#2"]


def slots(backend: Any) -> dict[tuple[str, str], Any]:
    return {
        (key.value, sort_key.value): item
        for key, partition in backend.tables["P"].items.items()
        for sort_key, item in partition.items()
    }


def test_failed_transaction_over_two_tables_is_undone_in_both(backend: Any) -> None:
    before = slots(backend)
    taken = update(1, "attribute_exists(#n)")
    taken["Update"] |= {"TableName": "P", "Key": {"limit": {"S": "L"}, "slot": {"N": "7"}}}
    new = update(1, "attribute_not_exists(#n)")
    new["Update"] |= {"TableName": "P", "Key": {"limit": {"S": "L"}, "slot": {"N": "1000"}}}
    with pytest.raises(TransactionCanceledException):
        backend.transact_write_items([new, taken, update(2, "attribute_not_exists(#n)")])
    after = slots(backend)
    assert after.keys() == before.keys()
    assert after["L", "7"].attrs["n"].value == "1"
    assert [key for key in before if after[key] is not before[key]] == [("L", "7")]


def test_transaction_that_holds_changes_the_items_it_names(backend: Any) -> None:
    backend.transact_write_items([update(1, "attribute_exists(#n)"), update(2, "attribute_exists(#n)")])
    assert [stored(backend)[f"S#{number}"].attrs["n"].value for number in (1, 2, 3)] == ["2", "2", "1"]


def test_copies_are_not_remembered(backend: Any) -> None:
    for _ in range(10):
        backend.transact_write_items([update(1, "attribute_exists(#n)")])
    tracked: Any = Item
    assert len(tracked.instances_tracked) == 0
