"""What handlers and relay take from AWS: each part of event, context and environment, and each status.

The one list of it. tests/infra/test_aws_shapes.py holds it: the code uses nothing else, AWS gives all of it,
and the local cloud gives nothing that the code could lean on besides.

The shapes are those of recorded events; ids, names and times are made up. Sources, by the names used below:

- CONTEXT: API Gateway developer guide, apigateway-websocket-api-mapping-template-reference.html
- AUTHORIZER: the same, apigateway-websocket-api-lambda-auth.html (an event of the upgrade, in full)
- CONNECTIONS: the same, apigateway-how-to-call-websocket-api-connections.html; errors and statuses in the
  SDK's model of the service, which botocore brings
- CONNECT: the same, apigateway-websocket-api-route-keys-connect-disconnect.html
- VARIABLES: Lambda developer guide, configuration-envvars.html, "Defined runtime environment variables"
- PYTHON: the same, python-context.html
- ENDPOINTS: AWS SDKs and Tools reference guide, feature-ss-endpoints.html
- BOTO3: boto3's documentation, guide/configuration.html, "Using environment variables"
- RECORDED: github.com/aws-powertools/powertools-lambda-python, tests/events/apiGatewayWebSocketApi*.json, and
  github.com/aws/aws-lambda-rust-runtime, lambda-events/src/fixtures/example-apigw-websocket-request*.json
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Use(NamedTuple):
    """One thing that is taken from AWS.

    Attributes:
        what: What it is used for.
        source: Where AWS says that it is there, by the names above.
        needed: Whether nothing goes without it. Whatever is not is absent on AWS, or may be.
    """

    what: str
    source: str
    needed: bool = True


#: Parts of an event of API Gateway's, by their path. Header names are compared in any case.
EVENT: Final[Mapping[str, Use]] = {
    "requestContext.routeKey": Use("which route it is", "CONTEXT, RECORDED"),
    "requestContext.connectionId": Use("whom to answer; any text", "CONTEXT, RECORDED"),
    "requestContext.domainName": Use(
        "the host that is signed, and that of @connections", "CONTEXT, RECORDED"
    ),
    "requestContext.stage": Use("the path of @connections", "CONTEXT, RECORDED"),
    "requestContext.requestId": Use("in log lines; any text", "CONTEXT, RECORDED"),
    "requestContext.identity.sourceIp": Use("in the session's record", "CONTEXT, RECORDED", needed=False),
    "requestContext.disconnectStatusCode": Use("why a side is gone", "RECORDED", needed=False),
    "headers": Use("of $connect: what a client shows", "AUTHORIZER, RECORDED", needed=False),
    "body": Use("of $default: the message", "RECORDED", needed=False),
}

#: Headers of an upgrade: only such as a client of ours sends, and none that API Gateway adds.
HEADERS: Final = frozenset(
    {
        "Sec-WebSocket-Protocol",
        "X-Emissary-Date",
        "X-Emissary-Epoch",
        "X-Emissary-Host",
        "X-Emissary-Instance",
        "X-Emissary-Key-Id",
        "X-Emissary-Mac",
        "X-Emissary-Nonce",
        "X-Emissary-Opening",
        "X-Emissary-Opening-Mac",
        "X-Emissary-Relay-Token",
        "X-Emissary-Resume-Token",
        "X-Emissary-Session",
    }
)

#: Attributes of Lambda's context object.
CONTEXT: Final[Mapping[str, Use]] = {
    "get_remaining_time_in_millis": Use("how long the relay may serve", "PYTHON"),
}

#: Environment variables that neither template.yaml sets nor a client's user.
ENVIRONMENT: Final[Mapping[str, Use]] = {
    "AWS_REGION": Use("what is signed for, and whose services are asked", "VARIABLES"),
    "AWS_LAMBDA_FUNCTION_NAME": Use("in log lines", "VARIABLES", needed=False),
    "AWS_LAMBDA_RUNTIME_API": Use("that this is Lambda, which may have the log set up", "VARIABLES"),
    "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": Use("an emulator's @connections", "ENDPOINTS", needed=False),
    "AWS_CA_BUNDLE": Use("an emulator's authorities", "BOTO3", needed=False),
    "AWS_ACCESS_KEY_ID": Use("who signs", "VARIABLES"),
    "AWS_SECRET_ACCESS_KEY": Use("who signs", "VARIABLES"),
    "AWS_SESSION_TOKEN": Use("who signs; not without it on AWS", "VARIABLES"),
    "AWS_ENDPOINT_URL": Use("an emulator's services", "ENDPOINTS", needed=False),
    "AWS_ENDPOINT_URL_DYNAMODB": Use("an emulator's tables", "ENDPOINTS", needed=False),
    "AWS_ENDPOINT_URL_LAMBDA": Use("an emulator's relays", "ENDPOINTS", needed=False),
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": Use("an emulator's secrets", "ENDPOINTS", needed=False),
}

#: What Lambda sets in an environment of a Python function. Source: VARIABLES.
LAMBDA_VARIABLES: Final = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "LANG",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONPATH",
        "TZ",
    }
)

#: What leads the SDK to an emulator, and is not there on AWS. Source: ENDPOINTS, BOTO3.
REDIRECTIONS: Final = frozenset(
    {
        "AWS_CA_BUNDLE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI",
        "AWS_ENDPOINT_URL_DYNAMODB",
        "AWS_ENDPOINT_URL_LAMBDA",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        "SSL_CERT_FILE",
    }
)

#: Statuses with which $connect refuses. That a function's own is the upgrade's AWS shows for 400, 401 and 403
#: only (CONNECT, AUTHORIZER); if another arrived as a 5xx, a dial would go on to its end, and name $connect's
#: log.
CONNECT_STATUSES: Final = frozenset({400, 401, 403, 409, 421, 429, 500, 502, 503})

#: Statuses of @connections that mean more than "not delivered". Source: CONNECTIONS.
CALLBACK_STATUSES: Final[Mapping[int, str]] = {
    403: "ForbiddenException",
    410: "GoneException",
    413: "PayloadTooLargeException",
    429: "LimitExceededException",
}

_HOST: Final = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"

_REQUEST: Final[Mapping[str, Any]] = {
    "extendedRequestId": "BFHPhFe3IAMF95g=",
    "requestTime": "11/Nov/2024:11:35:24 +0000",
    "messageDirection": "IN",
    "stage": "emissary",
    "connectedAt": 1731324924553,
    "requestTimeEpoch": 1731324924561,
    "identity": {"sourceIp": "203.0.113.7"},
    "requestId": "BFHPhFe3IAMF95g=",
    "domainName": _HOST,
    "connectionId": "BFHPhfCWIAMCKlQ=",
    "apiId": "a1b2c3d4e5",
}

_UPGRADE: Final = {
    "Host": _HOST,
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "X-Amzn-Trace-Id": "Root=1-6731ebfc-08e1e656421db73c5d2eef31",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Proto": "https",
}

_END: Final = {"Host": _HOST, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}


def _several(headers: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in headers.items()}


#: Route -> its event, as recorded. Source: RECORDED.
EVENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "$connect": {
        "headers": _UPGRADE,
        "multiValueHeaders": _several(_UPGRADE),
        "requestContext": {**_REQUEST, "routeKey": "$connect", "eventType": "CONNECT"},
        "isBase64Encoded": False,
    },
    "$default": {
        "requestContext": {
            **_REQUEST,
            "routeKey": "$default",
            "eventType": "MESSAGE",
            "messageId": "BFaVtfGSIAMCKug=",
        },
        "body": "text",
        "isBase64Encoded": False,
    },
    "$disconnect": {
        "headers": _END,
        "multiValueHeaders": _several(_END),
        "requestContext": {
            **_REQUEST,
            "routeKey": "$disconnect",
            "eventType": "DISCONNECT",
            "disconnectStatusCode": 1005,
            "disconnectReason": "Client-side close frame status not set",
        },
        "isBase64Encoded": False,
    },
}

#: Members that API Gateway has written too, in older recordings or where a client or an account has more to
#: tell, by the route's event; with null for what there is nothing to say of.
MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "$connect": {
        "messageId": None,
        "disconnectStatusCode": None,
        "authorizer": "",
        "error": "",
        "status": "",
    },
    "$default": {"disconnectStatusCode": None, "disconnectReason": None},
    "$disconnect": {"messageId": None, "authorizer": "", "integrationLatency": ""},
}

#: The same of identity.
MORE_IDENTITY: Final[Mapping[str, Any]] = {
    "accountId": None,
    "apiKey": "example",
    "apiKeyId": "example",
    "principalOrgId": None,
    "userAgent": "emissary-lib/0.1.0",
}
