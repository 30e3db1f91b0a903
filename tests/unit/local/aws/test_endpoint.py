"""Names, errors and authorisation at the endpoint of DynamoDB and Lambda."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from emissary_local.aws.dynamodb.tables import Answer, Tables
from emissary_local.aws.endpoint import AwsEndpoint, function_name
from emissary_local.aws.secrets import SecretStore
from emissary_local.billing.meter import Meter
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import FunctionSpec
from tests.helpers.patience import HANG
from tests.unit.local.caller import IDENTITIES, client_of

ARN = "arn:aws:lambda:us-east-1:123456789012:function:worker"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/"


class Invoker:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, result: InvocationResult) -> None:
        self.result = result
        self.asked: list[tuple[str, str, bytes]] = []

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        self.asked.append(("invoke", function, payload))
        return self.result

    async def enqueue(self, function: str, payload: bytes) -> InvocationResult:
        self.asked.append(("enqueue", function, payload))
        return InvocationResult(InvocationStatus.QUEUED)


class FakeTables:
    """Answers every request with an empty object, and keeps it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []

    async def forward(self, target: str, body: bytes) -> Answer:
        self.asked.append((target, body))
        return Answer(200, b"{}")


class EndpointHarness:
    def __init__(self, result: InvocationStatus = InvocationStatus.OK, allowed: bool = True) -> None:
        self.invoker = Invoker(InvocationResult(result, b'{"answer": 1}'))
        self.tables = FakeTables()
        self.meter = Meter()
        self.decisions: list[tuple[str, str, str]] = []
        self.url = ""
        self._clients: list[Any] = []
        self._allowed = allowed

    def authorize(self, identity: str, action: str, arn: str) -> str | None:
        self.decisions.append((identity, action, arn))
        return None if self._allowed else f"{identity} may not {action} on {arn}"

    def client(self, service: str) -> Any:
        self._clients.append(client_of(self.url, service))
        return self._clients[-1]

    def run(self, calls: Callable[[EndpointHarness], Any]) -> Any:
        """Start a endpoint, make ``calls`` in a thread, stop it; returns what they return."""

        async def body() -> Any:
            spec = FunctionSpec("Worker", "worker", ARN, "a.b", "python3.13", Path(), 3.0, 128, {})
            endpoint = AwsEndpoint(
                {"Worker": spec}, invoker=self.invoker, tables=cast(Tables, self.tables), meter=self.meter,
                credentials=IDENTITIES.by_key.get, authorize=self.authorize,
                secrets=SecretStore([("keys", SECRET, "first")]),
            )  # fmt: skip
            self.url = await endpoint.start()
            work: Awaitable[Any] = asyncio.to_thread(calls, self)
            try:
                return await asyncio.wait_for(work, HANG)
            finally:
                for client in self._clients:
                    client.close()
                await endpoint.close()

        return asyncio.run(body())


def _code(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    "name", ["worker", ARN, ARN + ":$LATEST", "123456789012:function:worker", "worker:$LATEST"]
)
def test_function_is_found_by_every_form_of_its_name(name: str) -> None:
    harness = EndpointHarness()
    answer = harness.run(
        lambda h: h.client("lambda").invoke(FunctionName=name, Payload=b"[1]")["Payload"].read()
    )
    assert json.loads(answer) == {"answer": 1}
    assert harness.invoker.asked == [("invoke", "Worker", b"[1]")]
    assert function_name(name) == "worker"


def test_event_invocation_is_queued_with_202() -> None:
    harness = EndpointHarness()
    answer = harness.run(lambda h: h.client("lambda").invoke(FunctionName="worker", InvocationType="Event"))
    assert answer["StatusCode"] == 202
    assert harness.invoker.asked == [("enqueue", "Worker", b"{}")]


@pytest.mark.parametrize("status", [InvocationStatus.FUNCTION_ERROR, InvocationStatus.TIMEOUT])
def test_failed_function_is_a_200_with_the_error_header(status: InvocationStatus) -> None:
    answer = EndpointHarness(status).run(lambda h: h.client("lambda").invoke(FunctionName="worker"))
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")


def test_throttled_invocation_is_a_429() -> None:
    harness = EndpointHarness(InvocationStatus.THROTTLED)
    code = harness.run(lambda h: _code(lambda: h.client("lambda").invoke(FunctionName="worker")))
    assert code == "TooManyRequestsException"


def test_event_over_one_megabyte_is_refused() -> None:
    payload = json.dumps("x" * 1_048_576).encode()
    harness = EndpointHarness()
    code = harness.run(
        lambda h: _code(
            lambda: h.client("lambda").invoke(FunctionName="worker", InvocationType="Event", Payload=payload)
        )
    )
    assert code == "RequestEntityTooLargeException"
    assert harness.invoker.asked == []


def test_database_call_is_passed_on_and_metered() -> None:
    harness = EndpointHarness()
    harness.run(lambda h: h.client("dynamodb").put_item(TableName="t", Item={"pk": {"S": "x" * 1500}}))
    assert [target for target, _ in harness.tables.asked] == ["DynamoDB_20120810.PutItem"]
    assert harness.meter.snapshot().write_units == 2.0


def test_every_part_of_a_transaction_is_authorised() -> None:
    harness = EndpointHarness()
    key = {"pk": {"S": "x"}}
    parts = [
        {"Put": {"TableName": "a", "Item": key}},
        {"Delete": {"TableName": "b", "Key": key}},
        {"Put": {"TableName": "a", "Item": key}},
    ]
    harness.run(lambda h: h.client("dynamodb").transact_write_items(TransactItems=parts))
    assert harness.decisions == [
        ("ClientRole", "dynamodb:PutItem", f"{TABLE}a"),
        ("ClientRole", "dynamodb:DeleteItem", f"{TABLE}b"),
    ]


@pytest.mark.parametrize(
    ("service", "call", "status", "refused"),
    [
        ("dynamodb", "get_item", 400, f"dynamodb:GetItem on {TABLE}t"),
        ("lambda", "invoke", 403, f"lambda:InvokeFunction on {ARN}"),
        ("secretsmanager", "get_secret_value", 400, f"secretsmanager:GetSecretValue on {SECRET}"),
    ],
)
def test_call_that_is_not_allowed_goes_nowhere(service: str, call: str, status: int, refused: str) -> None:
    """Each service has its own form; botocore finds code and message in all of them."""
    calls: dict[str, dict[str, Any]] = {
        "get_item": {"TableName": "t", "Key": {"pk": {"S": "x"}}},
        "invoke": {"FunctionName": "worker"},
        "get_secret_value": {"SecretId": "keys"},
    }
    harness = EndpointHarness(allowed=False)

    def denied(h: EndpointHarness) -> Any:
        with pytest.raises(ClientError) as caught:
            getattr(h.client(service), call)(**calls[call])
        return caught.value.response

    answer = harness.run(denied)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert answer["Error"]["Code"] == "AccessDeniedException"
    assert answer["Error"]["Message"] == f"ClientRole may not {refused}"
    assert (harness.invoker.asked, harness.tables.asked) == ([], [])


def test_whoever_may_not_invoke_does_not_learn_which_functions_there_are() -> None:
    harness = EndpointHarness(allowed=False)
    assert harness.run(lambda h: _code(lambda: h.client("lambda").invoke(FunctionName="nobody"))) == (
        "AccessDeniedException"
    )


def test_partiql_whose_permissions_nobody_evaluates_is_refused() -> None:
    harness = EndpointHarness()
    code = harness.run(
        lambda h: _code(lambda: h.client("dynamodb").execute_statement(Statement="SELECT * FROM t"))
    )
    assert code == "UnknownOperationException"
    assert (harness.decisions, harness.tables.asked) == ([], [])


def test_secret_is_read_and_replaced() -> None:
    def calls(h: EndpointHarness) -> list[Any]:
        client = h.client("secretsmanager")
        first = client.get_secret_value(SecretId="keys")["SecretString"]
        client.put_secret_value(SecretId=SECRET, SecretString="second")
        now = client.get_secret_value(SecretId=SECRET)["SecretString"]
        before = client.get_secret_value(SecretId=SECRET, VersionStage="AWSPREVIOUS")["SecretString"]
        return [first, now, before, _code(lambda: client.get_secret_value(SecretId="others"))]

    harness = EndpointHarness()
    assert harness.run(calls) == ["first", "second", "first", "ResourceNotFoundException"]
    assert harness.decisions[0] == ("ClientRole", "secretsmanager:GetSecretValue", SECRET)


def test_service_that_is_not_there_is_refused_by_name() -> None:
    def call(h: EndpointHarness) -> str:
        with pytest.raises(ClientError, match="the local cloud has no sqs") as caught:
            h.client("sqs").list_queues()
        return str(caught.value.response["Error"]["Code"])

    assert EndpointHarness().run(call) == "UnknownOperationException"


def test_unsigned_call_is_refused() -> None:
    def calls(h: EndpointHarness) -> int:
        connection = http.client.HTTPConnection(urlsplit(harness.url).netloc, timeout=HANG)
        try:
            connection.request("POST", "/2015-03-31/functions/worker/invocations", b"{}")
            return connection.getresponse().status
        finally:
            connection.close()

    harness = EndpointHarness()
    assert harness.run(calls) == 403
    assert harness.invoker.asked == []
