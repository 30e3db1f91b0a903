"""The route ``sendmessage`` of the chat: posts the message to everybody."""

import json
import os
from typing import Any

import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE_NAME"])


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    asked = event["requestContext"]
    api = boto3.client(
        "apigatewaymanagementapi", endpoint_url=f"https://{asked['domainName']}/{asked['stage']}"
    )
    data = json.loads(event["body"])["data"].encode()
    for item in table.scan(ProjectionExpression="connectionId")["Items"]:
        try:
            api.post_to_connection(ConnectionId=item["connectionId"], Data=data)
        except api.exceptions.GoneException:
            table.delete_item(Key=item)
    return {"statusCode": 200, "body": "Data sent."}
