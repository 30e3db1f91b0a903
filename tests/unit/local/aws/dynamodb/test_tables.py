"""DynamoDB as a process: how large an item may grow, and what a write costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from emissary_local.aws.dynamodb.tables import Answer, Tables
from emissary_local.template.specs import TableSpec

DEFINITION: dict[str, Any] = {
    "TableName": "t",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}
KEY = {"pk": {"S": "a"}}
REASON = "Item size to update has exceeded the maximum allowed size"

Ask = Callable[..., Awaitable[Answer]]


def with_table(tmp_path: Path, body: Callable[[Ask], Awaitable[None]], *more: dict[str, Any]) -> None:
    async def run() -> None:
        with open(tmp_path / "log", "wb") as log:
            tables = Tables(log)
            try:
                await tables.start(
                    TableSpec("T", each["TableName"], each, None) for each in (DEFINITION, *more)
                )

                async def ask(operation: str, **arguments: Any) -> Answer:
                    named = arguments if "TransactItems" in arguments else {"TableName": "t", **arguments}
                    return await tables.forward(f"DynamoDB_20120810.{operation}", json.dumps(named).encode())

                await body(ask)
            finally:
                await tables.close()

    asyncio.run(run())


def grow(name: str, size: int, **more: Any) -> dict[str, Any]:
    """Arguments of an update that adds a member of ``size`` bytes to a set."""
    return {
        "Key": KEY,
        "UpdateExpression": "ADD f :m",
        "ExpressionAttributeValues": {":m": {"SS": [name * size]}},
        **more,
    }


def test_no_update_grows_an_item_beyond_400_kb(tmp_path: Path) -> None:
    async def body(ask: Ask) -> None:
        room = 400 * 1024 - 3 - 1  # names and the key's value take four bytes
        assert (await ask("UpdateItem", **grow("x", 200_000))).status == 200
        refused = await ask("UpdateItem", **grow("y", room - 200_000 + 1))
        answer = json.loads(refused.body)
        assert (refused.status, answer["__type"].partition("#")[2]) == (400, "ValidationException")
        assert answer["message"] == REASON
        item = json.loads((await ask("GetItem", Key=KEY, ConsistentRead=True)).body)["Item"]
        assert item["f"]["SS"] == ["x" * 200_000], "a refused update leaves the item as it was"
        assert (await ask("UpdateItem", **grow("y", room - 200_000))).status == 200

    with_table(tmp_path, body)


def test_an_item_that_would_be_born_too_large_is_not_born(tmp_path: Path) -> None:
    async def body(ask: Ask) -> None:
        assert (await ask("UpdateItem", **grow("x", 410_000))).status == 400
        assert json.loads((await ask("GetItem", Key=KEY, ConsistentRead=True)).body) == {}

    with_table(tmp_path, body)


def test_a_transaction_with_an_update_that_is_too_large_is_cancelled_whole(tmp_path: Path) -> None:
    async def body(ask: Ask) -> None:
        await ask("UpdateItem", **grow("x", 300_000))
        put = {"Put": {"TableName": "t", "Item": {"pk": {"S": "b"}}}}
        answer = await ask(
            "TransactWriteItems", TransactItems=[put, {"Update": grow("y", 200_000, TableName="t")}]
        )
        reasons = json.loads(answer.body)["CancellationReasons"]
        assert [(each["Code"], each.get("Message")) for each in reasons] == [
            ("None", None),
            ("ValidationError", REASON),
        ]
        found = json.loads((await ask("Scan")).body)["Items"]
        assert [(each["pk"]["S"], len(each["f"]["SS"][0])) for each in found] == [("a", 300_000)]

    with_table(tmp_path, body)


def test_a_write_tells_the_larger_of_the_sizes_before_and_after(tmp_path: Path) -> None:
    async def body(ask: Ask) -> None:
        small = await ask("PutItem", Item=KEY)
        assert small.written == (3,)
        assert (await ask("UpdateItem", **grow("x", 5_000))).written == (5_004,)
        unset = {"Key": KEY, "UpdateExpression": "REMOVE f"}
        failed = await ask("UpdateItem", **unset, ConditionExpression="attribute_not_exists(f)")
        assert (failed.status, failed.written) == (400, (5_004,))
        assert (await ask("UpdateItem", **unset)).written == (5_004,)
        assert (await ask("UpdateItem", **grow("x", 5_000))).written == (5_004,)
        check = {"TableName": "t", "Key": KEY, "ConditionExpression": "attribute_exists(f)"}
        other = {"Put": {"TableName": "t", "Item": {"pk": {"S": "b"}}}}
        both = await ask("TransactWriteItems", TransactItems=[{"ConditionCheck": check}, other])
        assert (both.status, both.written) == (200, (5_004, 3))
        assert (await ask("GetItem", Key=KEY)).written == ()
        assert (await ask("DeleteItem", Key=KEY)).written == (5_004,)

    with_table(tmp_path, body)


def test_a_query_reads_a_partition_in_order_and_a_transaction_writes_to_several_tables(
    tmp_path: Path,
) -> None:
    slots = {
        **DEFINITION,
        "TableName": "slots",
        "KeySchema": [
            {"AttributeName": "limit", "KeyType": "HASH"},
            {"AttributeName": "slot", "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": "limit", "AttributeType": "S"},
            {"AttributeName": "slot", "AttributeType": "N"},
        ],
    }

    def take(slot: int) -> dict[str, Any]:
        item = {"limit": {"S": "L"}, "slot": {"N": str(slot)}}
        return {"Put": {"TableName": "slots", "Item": item}}

    async def body(ask: Ask) -> None:
        session = {"Put": {"TableName": "t", "Item": KEY}}
        both = await ask("TransactWriteItems", TransactItems=[session, take(10), take(9), take(2)])
        assert (both.status, both.written) == (200, (3, 12, 12, 12))
        of_limit = {
            "TableName": "slots",
            "KeyConditionExpression": "#limit = :limit AND #slot < :most",
            "ExpressionAttributeNames": {"#limit": "limit", "#slot": "slot"},
            "ExpressionAttributeValues": {":limit": {"S": "L"}, ":most": {"N": "10"}},
            "ConsistentRead": True,
        }
        found = json.loads((await ask("Query", **of_limit)).body)
        assert [int(item["slot"]["N"]) for item in found["Items"]] == [2, 9], "numbers, not texts"

    with_table(tmp_path, body, slots)
