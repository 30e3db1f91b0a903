"""Says who may connect."""

from typing import Any


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    token = event["headers"]["Authorization"]
    if token == "unknown":
        raise Exception("Unauthorized")
    if token == "broken":
        return {"principalId": "nobody"}
    effect = "Allow" if token == "sesame" else "Deny"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
    return {
        "principalId": "ali",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"room": event["queryStringParameters"]["room"], "admin": True, "level": 7},
    }
