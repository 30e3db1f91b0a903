"""Faults at the endpoint of DynamoDB and Lambda, as an SDK meets them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from emissary_local.aws.dynamodb.stale_reads import StaleReads
from emissary_local.aws.dynamodb.tables import Answer, Tables
from emissary_local.aws.endpoint import AwsEndpoint
from emissary_local.billing.meter import Meter
from emissary_local.faults import FaultEngine, Faults, Site
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import FunctionSpec, TableSpec
from tests.helpers.faults import faults_of
from tests.helpers.patience import HANG
from tests.unit.local.caller import IDENTITIES, client_of

TABLE = TableSpec("T", "t", {"KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]}, None)
KEY = {"pk": {"S": "a"}}


class Store:
    """One item: PutItem replaces it, GetItem reads it. ``refuse`` makes every write fail its condition."""

    def __init__(self) -> None:
        self.item: dict[str, Any] | None = None
        self.writes = 0
        self.refuse = False

    async def forward(self, target: str, body: bytes) -> Answer:
        asked = json.loads(body)
        if target.endswith(".PutItem"):
            if self.refuse:
                return Answer(400, b'{"__type":"ConditionalCheckFailedException","message":"no"}')
            self.writes += 1
            self.item = asked["Item"]
            return Answer(200, b"{}")
        return Answer(200, json.dumps({"Item": self.item} if self.item else {}).encode())


class Invoker:
    def __init__(self) -> None:
        self.ran = 0

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        self.ran += 1
        return InvocationResult(InvocationStatus.OK, b"{}")

    async def enqueue(self, function: str, payload: bytes) -> InvocationResult:
        self.ran += 1
        return InvocationResult(InvocationStatus.QUEUED)


class EndpointHarness:
    def __init__(self, faults: Faults) -> None:
        self.faults = FaultEngine(faults)
        self.store, self.invoker = Store(), Invoker()
        self.url = ""

    def client(self, service: str, attempts: int = 1) -> Any:
        return client_of(self.url, service, attempts=attempts, connect_timeout=HANG, read_timeout=HANG)

    def put(self, database: Any, number: int) -> str:
        """Write; how it ended."""
        try:
            database.put_item(TableName="t", Item={**KEY, "n": {"N": str(number)}})
        except ClientError as exc:
            return str(exc.response["Error"]["Code"])
        except ConnectionClosedError:
            return "reset"
        return "done"

    def run(self, calls: Callable[[EndpointHarness], None]) -> None:
        async def body() -> None:
            spec = FunctionSpec("Worker", "worker", "arn", "a.b", "python3.13", Path(), 3.0, 128, {})
            endpoint = AwsEndpoint(
                {"Worker": spec}, invoker=self.invoker, tables=cast(Tables, self.store), meter=Meter(),
                credentials=IDENTITIES.by_key.get, faults=self.faults,
                earlier=StaleReads([TABLE], self.store),
            )  # fmt: skip
            self.url = await endpoint.start()
            try:
                await asyncio.wait_for(asyncio.to_thread(calls, self), HANG)
            finally:
                await endpoint.close()

        asyncio.run(body())


def test_a_lost_write_is_done_and_its_answer_is_an_error_or_a_reset() -> None:
    def calls(harness: EndpointHarness) -> None:
        database = harness.client("dynamodb")
        seen = {harness.put(database, number) for number in range(10)}
        database.close()
        assert seen == {"InternalServerError", "reset"}
        assert harness.store.writes == 10
        assert harness.faults.counts == {"lost_write": 10}

    EndpointHarness(Faults(seed=1, lost_write=1.0)).run(calls)


def test_the_sdk_repeats_a_lost_write() -> None:
    def calls(harness: EndpointHarness) -> None:
        database = harness.client("dynamodb", attempts=6)
        assert harness.put(database, 1) == "done"
        database.close()
        assert harness.store.writes == 1 + harness.faults.counts["lost_write"] > 1

    seed = next(  # the first one whose first decision is a lost write
        seed
        for seed in range(20)
        if FaultEngine(Faults(seed, lost_write=0.5)).rng(Site.DATABASE).triggers("lost_write")
    )
    EndpointHarness(Faults(seed=seed, lost_write=0.5)).run(calls)


def test_a_write_that_was_refused_loses_no_answer() -> None:
    def calls(harness: EndpointHarness) -> None:
        harness.store.refuse = True
        database = harness.client("dynamodb")
        assert harness.put(database, 1) == "ConditionalCheckFailedException"
        database.close()
        assert harness.faults.counts == {}

    EndpointHarness(Faults(lost_write=1.0)).run(calls)


def test_a_failed_call_does_nothing() -> None:
    def calls(harness: EndpointHarness) -> None:
        database = harness.client("dynamodb")
        assert harness.put(database, 1) == "InternalServerError"
        database.close()
        assert harness.store.writes == 0
        assert harness.faults.counts == {"database_500": 1}

    EndpointHarness(Faults(database_500=1.0)).run(calls)


def test_only_a_read_that_is_not_consistent_is_stale() -> None:
    def calls(harness: EndpointHarness) -> None:
        database = harness.client("dynamodb")
        try:
            assert harness.put(database, 1) == "done"
            assert database.get_item(TableName="t", Key=KEY)["Item"]["n"] == {"N": "1"}
            assert harness.faults.counts == {}
            assert harness.put(database, 2) == "done"
            assert database.get_item(TableName="t", Key=KEY)["Item"]["n"] == {"N": "1"}
            assert harness.faults.counts == {"stale_read": 1}
            fresh = database.get_item(TableName="t", Key=KEY, ConsistentRead=True)
            assert fresh["Item"]["n"] == {"N": "2"}
            assert harness.faults.counts == {"stale_read": 1}
        finally:
            database.close()

    EndpointHarness(Faults(stale_read=1.0, stale_seconds=60.0)).run(calls)


@pytest.mark.parametrize("kind", ["Event", "RequestResponse"])
@pytest.mark.parametrize(
    ("fault", "code"), [("invoke_429", "TooManyRequestsException"), ("invoke_500", "ServiceException")]
)
def test_a_failed_invoke_may_have_taken_effect_unless_it_was_refused(
    kind: str, fault: str, code: str
) -> None:
    def calls(harness: EndpointHarness) -> None:
        service = harness.client("lambda")
        for _ in range(12):
            with pytest.raises(ClientError) as caught:
                service.invoke(FunctionName="worker", InvocationType=kind, Payload=b"{}")
            assert caught.value.response["Error"]["Code"] == code
        service.close()
        assert harness.faults.counts == {fault: 12}
        assert harness.invoker.ran == 0 if fault == "invoke_429" else 0 < harness.invoker.ran < 12

    EndpointHarness(faults_of(1.0, fault)).run(calls)
