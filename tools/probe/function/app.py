"""The probe's one function: says what it has seen, and does what the client asks for.

A message is a JSON object whose ``op`` names one of :data:`OPS`; ``report_to`` is the connection that gets
the answer, the sender's own if it names none. Lambda's runtime brings all that is needed.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Fields = Mapping[str, Any]

#: A post is tried once, for at most so many seconds: what goes wrong is to be seen, not to be mended.
_POST_SECONDS: Final = 20

#: How often an answer is posted, a second apart, while the gateway refuses it.
_ANSWER_ATTEMPTS: Final = 30

#: Namespace and dimension of the metric that question 14 looks for.
_NAMESPACE: Final = "EmissaryProbe"


def handler(event: Fields, _context: object) -> dict[str, Any]:
    """Handle one event of any route."""
    context = event["requestContext"]
    if context["eventType"] == "CONNECT":
        asked = (event.get("queryStringParameters") or {}).get("status", "200")
        return {"statusCode": int(asked), "headers": {"Sec-WebSocket-Protocol": "emissary.probe"}}
    if context["eventType"] == "DISCONNECT":
        _note_end(context)
        return {"statusCode": 200}
    message = json.loads(event["body"])
    gateway = Gateway(context)
    result = OPS[message["op"]](message, gateway, event)
    gateway.answer({"answer": message["op"], "id": message.get("id"), **result}, message.get("report_to"))
    return {"statusCode": 200}


class Gateway:
    """``@connections``, for one message.

    Args:
        context: The event's ``requestContext``.
    """

    def __init__(self, context: Fields) -> None:
        self.domain: str = context["domainName"]
        self.connection: str = context["connectionId"]
        self._client = _management(f"https://{self.domain}/{context['stage']}")

    def post(self, data: bytes, connection: str | None = None) -> tuple[str, float]:
        """Post once: ``ok`` or status and name of the error, and how many milliseconds it took."""
        begin = time.monotonic()
        outcome = "ok"
        try:
            self._client.post_to_connection(ConnectionId=connection or self.connection, Data=data)
        except ClientError as exc:
            status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
            outcome = f"{status} {exc.response['Error']['Code']}"
        except BotoCoreError as exc:
            outcome = type(exc).__name__
        return outcome, round((time.monotonic() - begin) * 1000, 1)

    def close(self) -> None:
        """End the sender's connection."""
        self._client.delete_connection(ConnectionId=self.connection)

    def answer(self, fields: Fields, connection: str | None) -> None:
        """Post an answer; again while the gateway says that it is too much."""
        for _ in range(_ANSWER_ATTEMPTS):
            if not self.post(json.dumps(fields).encode(), connection)[0].startswith("429 "):
                return
            time.sleep(1)


def size(_message: Fields, _gateway: Gateway, event: Fields) -> dict[str, Any]:
    """How long the message is that has come."""
    return {"size": len(event["body"])}


def who(_message: Fields, gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """The sender's connection id."""
    return {"connection": gateway.connection}


def post(message: Fields, gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """Post ``count`` messages of ``size`` characters, ``threads`` at a time, each with its number in front.

    With ``until_refused`` it stops at the first that is not taken.
    """
    count, threads = message["count"], message.get("threads", 1)
    begin = time.monotonic()
    outcomes: list[str] = []
    times: list[float] = []

    def post_one(number: int) -> tuple[str, float]:
        return gateway.post(f"{number:06d}".ljust(message["size"], ".").encode())

    with ThreadPoolExecutor(threads) as pool:
        each = map(post_one, range(count)) if threads == 1 else pool.map(post_one, range(count))
        for outcome, milliseconds in each:
            outcomes.append(outcome)
            times.append(milliseconds)
            if outcome != "ok" and message.get("until_refused"):
                break
    refused = next((number for number, outcome in enumerate(outcomes) if outcome != "ok"), None)
    return {
        "taken": outcomes.count("ok"),
        "refusals": {name: outcomes.count(name) for name in sorted({*outcomes} - {"ok"})},
        "first_refused": refused,
        "seconds": round(time.monotonic() - begin, 3),
        "milliseconds": times,
    }


def binary(_message: Fields, gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """Post what is not UTF-8."""
    return {"post": gateway.post(b"\xff\xfe" * 8)[0]}


def fail(_message: Fields, _gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """Fail."""
    raise RuntimeError("as asked for")


def sleep(message: Fields, _gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """Take ``seconds``."""
    time.sleep(message["seconds"])
    return {}


def resolve(_message: Fields, gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """How many addresses the gateway's own name has, as seen from here."""
    host = gateway.domain.partition(":")[0]
    found = {(info[0], info[4][0]) for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
    families = [family for family, _ in found]
    return {"ipv4": families.count(socket.AF_INET), "ipv6": families.count(socket.AF_INET6)}


def close(_message: Fields, gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """End the sender's connection; the answer goes to ``report_to``."""
    gateway.close()
    return {}


def ended(message: Fields, _gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """What ``$disconnect`` was told of ``connection``; None if it has not been called yet."""
    # Reading by UpdateItem: question 13 needs a role that may not read.
    item = _table().update_item(
        Key={"id": message["connection"]},
        UpdateExpression="SET asked_at = :now",
        ExpressionAttributeValues={":now": int(time.time())},
        ReturnValues="ALL_NEW",
    )["Attributes"]
    return {
        "code": int(item["close_code"]) if "close_code" in item else None,
        "reason": item.get("close_reason"),
    }


def conditions(_message: Fields, _gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """Whether each write whose condition fails brings the item along."""
    table, client = _table(), _table().meta.client
    table.put_item(Item={"id": "there", "value": "old"})
    absent: dict[str, Any] = {
        "ConditionExpression": "attribute_not_exists(id)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    put = {"Item": {"id": "there"}, **absent}
    update = {
        "Key": {"id": "there"},
        "UpdateExpression": "SET asked_again = :yes",
        "ExpressionAttributeValues": {":yes": True},
        **absent,
    }
    attempts: dict[str, Callable[[], Any]] = {
        "put_item": lambda: table.put_item(**put),
        "update_item": lambda: table.update_item(**update),
        "transact_write_items": lambda: client.transact_write_items(
            TransactItems=[{"Update": {"TableName": table.name, **update}}]
        ),
    }
    return {name: _condition(attempt) for name, attempt in attempts.items()}


def metric(message: Fields, _gateway: Gateway, _event: Fields) -> dict[str, Any]:
    """Write a metric into the log, in CloudWatch's embedded metric format."""
    line = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {"Namespace": _NAMESPACE, "Dimensions": [["Run"]], "Metrics": [{"Name": "Asked"}]}
            ],
        },
        "Run": message["run"],
        "Asked": 1,
    }
    print(json.dumps(line))  # noqa: T201 - that is how it gets into the log
    return {}


OPS: Final[Mapping[str, Callable[[Fields, Gateway, Fields], dict[str, Any]]]] = {
    op.__name__: op
    for op in (size, who, post, binary, fail, sleep, resolve, close, ended, conditions, metric)
}


def _condition(attempt: Callable[[], Any]) -> str:
    """``item`` if the failure brings it along; else what happened."""
    try:
        attempt()
    except ClientError as exc:
        response: Fields = exc.response
        reasons = response.get("CancellationReasons") or [response]
        return "item" if reasons[0].get("Item") else str(response["Error"]["Code"])
    return "no failure"


def _note_end(context: Fields) -> None:
    _table().update_item(
        Key={"id": context["connectionId"]},
        UpdateExpression="SET close_code = :code, close_reason = :reason",
        ExpressionAttributeValues={
            ":code": context.get("disconnectStatusCode", 0),
            ":reason": context.get("disconnectReason") or "-",
        },
    )


@functools.cache
def _management(endpoint: str) -> Any:
    # The SDK's own variable leads to a gateway elsewhere; an endpoint that is given would hide it.
    given: dict[str, Any] = (
        {} if "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI" in os.environ else {"endpoint_url": endpoint}
    )
    config = Config(retries={"total_max_attempts": 1}, read_timeout=_POST_SECONDS, max_pool_connections=32)
    return boto3.client("apigatewaymanagementapi", config=config, **given)


@functools.cache
def _table() -> Any:
    return boto3.resource("dynamodb").Table(os.environ["PROBE_TABLE"])
