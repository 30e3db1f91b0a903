"""Handlers of the stack beside this file; they use boto3 as any function on AWS does."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

_CONFIG = Config(retries={"total_max_attempts": 1})
db = boto3.client("dynamodb", config=_CONFIG)
lambda_ = boto3.client("lambda", config=_CONFIG)
secrets = boto3.client("secretsmanager", config=_CONFIG)
api = boto3.client("apigatewaymanagementapi", config=_CONFIG)


def connect(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": 200}


def default(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Run the operation named by the message, and post its answer to the sender."""
    connection = event["requestContext"]["connectionId"]
    operation, _, argument = event["body"].partition(" ")
    if operation == "remaining":
        argument = str(context.get_remaining_time_in_millis())
    answer = _OPERATIONS[operation](connection, argument)
    if answer is not None:
        api.post_to_connection(ConnectionId=connection, Data=json.dumps(answer).encode())
    return {"statusCode": 200}


def worker(event: dict[str, Any], context: object) -> dict[str, str]:
    if "fail" in event:
        raise ValueError("asked to fail")
    if "to" in event:
        api.post_to_connection(ConnectionId=event["to"], Data=b'"worked"')
    return {"echo": event.get("echo", "")}


def _count(connection: str, argument: str) -> int:
    answer = db.update_item(
        TableName=os.environ["TABLE"], Key={"pk": {"S": "counter"}}, UpdateExpression="ADD hits :one",
        ExpressionAttributeValues={":one": {"N": "1"}}, ReturnValues="UPDATED_NEW",
    )  # fmt: skip
    return int(answer["Attributes"]["hits"]["N"])


def _claim(connection: str, argument: str) -> str:
    item = {"pk": {"S": argument}}
    try:
        db.put_item(TableName=os.environ["TABLE"], Item=item, ConditionExpression="attribute_not_exists(pk)")
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])
    return "won"


def _ttl(connection: str, argument: str) -> str:
    answer = db.describe_time_to_live(TableName=os.environ["TABLE"])
    return str(answer["TimeToLiveDescription"]["AttributeName"])


def _enqueue(connection: str, argument: str) -> None:
    event = json.dumps({"to": connection}).encode()
    answer = lambda_.invoke(FunctionName=os.environ["WORKER"], InvocationType="Event", Payload=event)
    assert answer["StatusCode"] == 202


def _invoke(connection: str, argument: str) -> dict[str, Any]:
    try:
        answer = lambda_.invoke(FunctionName=os.environ["WORKER"], Payload=argument.encode())
    except ClientError as exc:
        return {"code": exc.response["Error"]["Code"]}
    payload = json.loads(answer["Payload"].read())
    return {"status": answer["StatusCode"], "error": answer.get("FunctionError"), "payload": payload}


def _invoke_unknown(connection: str, argument: str) -> str:
    try:
        lambda_.invoke(FunctionName="nobody")
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])
    return "invoked"


def _forge(connection: str, argument: str) -> str:
    forged = boto3.client(
        "dynamodb", config=_CONFIG, aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="wrong", aws_session_token=os.environ["AWS_SESSION_TOKEN"],
    )  # fmt: skip
    try:
        forged.get_item(TableName=os.environ["TABLE"], Key={"pk": {"S": "counter"}})
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])
    return "read"


def _variable(connection: str, argument: str) -> str:
    return os.environ[argument]


def _secret(connection: str, argument: str) -> str:
    """The secret's value; with an argument, put that first."""
    try:
        if argument:
            secrets.put_secret_value(SecretId=os.environ["SECRET"], SecretString=argument)
        return str(secrets.get_secret_value(SecretId=os.environ["SECRET"])["SecretString"])
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])


def _delete(connection: str, argument: str) -> list[Any]:
    try:
        api.delete_connection(ConnectionId=connection)
    except ClientError as exc:
        return [exc.response["Error"]["Code"], exc.response["ResponseMetadata"]["HTTPStatusCode"]]
    return []


def _remaining(connection: str, argument: str) -> int:
    return int(argument)


def _clock(connection: str, argument: str) -> float:
    return time.time()


def _sleep(connection: str, argument: str) -> None:
    time.sleep(float(argument))


_OPERATIONS = {
    "count": _count, "claim": _claim, "ttl": _ttl, "enqueue": _enqueue, "invoke": _invoke,
    "invoke-unknown": _invoke_unknown, "forge": _forge, "variable": _variable,
    "remaining": _remaining, "clock": _clock, "sleep": _sleep,
    "secret": _secret, "delete": _delete,
}  # fmt: skip
