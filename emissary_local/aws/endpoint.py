"""The local endpoint of DynamoDB, Lambda and Secrets Manager, where ``AWS_ENDPOINT_URL_*`` of functions lead.

Every call's signature is checked here and ascribed to the function whose credentials signed it, and what that
function may not do is refused. DynamoDB calls are metered and passed on to the tables; Lambda's Invoke is
answered by the Lambda service. Calls of other services lead here too, and are refused.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from emissary_local.aws.dynamodb.stale_reads import StaleReads
from emissary_local.aws.dynamodb.tables import Answer, Tables
from emissary_local.aws.iam import dynamodb
from emissary_local.aws.secrets import SecretError, SecretStore, secret_id_of
from emissary_local.aws.sigv4 import CredentialsLookup, SignatureError, verify
from emissary_local.billing.meter import Meter
from emissary_local.errors import LocalCloudError
from emissary_local.faults import FaultEngine, Site
from emissary_local.faults.idle_connections import transports_of
from emissary_local.faults.latency import Latency, Leg
from emissary_local.net.tcp import reset
from emissary_local.ports import Authorize, FunctionInvoker, InvocationResult, InvocationStatus, allow_all
from emissary_local.template import names
from emissary_local.template.specs import FunctionSpec

#: Largest payload of an invocation, in bytes, by X-Amz-Invocation-Type. Source: AWS Lambda quotas.
MAX_PAYLOAD: Final[Mapping[str, int]] = {"RequestResponse": 6_291_556, "Event": 1_048_576}

#: The service in the Authorization header's credential scope.
_SCOPE: Final = re.compile(r"Credential=[^/,]*/[^/,]*/[^/,]*/([^/,]+)/")

_SERVICES: Final = frozenset({"dynamodb", "lambda", "secretsmanager"})

_INVOKE: Final = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")

#: DynamoDB operations whose answer can be lost after they are done.
_WRITES: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})

_FUNCTION: Final = "AWS::Lambda::Function"
_DYNAMODB: Final = "DynamoDB_20120810."
_SECRETS_MANAGER: Final = "secretsmanager."


class _Refusal(Exception):
    """An answer that is an AWS error; never leaves this module."""

    def __init__(self, status: int, kind: str, message: str, **extra: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.body = status, kind, {"message": message, **extra}


class AwsEndpoint:
    """One HTTP listener for DynamoDB, Lambda and Secrets Manager.

    Args:
        functions: By logical id; whom Invoke can name.
        invoker: Runs them.
        tables: Answers DynamoDB.
        meter: Counts.
        credentials: Whose access key it is.
        latency: How long a DynamoDB request takes on top.
        authorize: Decides on every call; a DynamoDB transaction needs the permissions of its parts.
        faults: What to do wrong on purpose, and the clock.
        earlier: What stale reads give; needed for them alone.
        secrets: Answers Secrets Manager.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        *,
        invoker: FunctionInvoker,
        tables: Tables,
        meter: Meter,
        credentials: CredentialsLookup,
        latency: Latency | None = None,
        authorize: Authorize = allow_all,
        faults: FaultEngine | None = None,
        earlier: StaleReads | None = None,
        secrets: SecretStore | None = None,
    ) -> None:
        self._by_name = {spec.name: spec for spec in functions.values()}
        self._invoker = invoker
        self._tables = tables
        self._meter = meter
        self._credentials = credentials
        self._latency = latency or Latency()
        self._authorize = authorize
        self._faults = faults or FaultEngine()
        self._earlier = earlier
        self._secrets = secrets or SecretStore([])
        self._rng = self._faults.rng(Site.DATABASE)
        self._invoke_rng = {name: self._faults.rng(Site.INVOKE, name) for name in self._by_name}
        self._http: web.Server | None = None
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; the base URL."""
        self._http = web.Server(self._handle, access_log=None, keepalive_timeout=60.0)
        self._server = await asyncio.get_running_loop().create_server(self._http, host, port, backlog=256)
        return f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        server, self._server = self._server, None
        if server is None or self._http is None:
            return
        server.close()
        self._http.pre_shutdown()
        await self._http.shutdown(timeout=0.5)
        await server.wait_closed()

    def transports(self) -> Iterable[asyncio.Transport]:
        """Its HTTP connections."""
        return transports_of(self._http)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.content.read()  # request.read() stops at 1 MB
        path, _, query = request.raw_path.partition("?")
        invoked = _INVOKE.fullmatch(path)
        target = request.headers.get("X-Amz-Target", "")
        secret = not invoked and target.startswith(_SECRETS_MANAGER)
        service = "lambda" if invoked else "secretsmanager" if secret else "dynamodb"
        request_id = str(uuid.uuid4())
        try:
            named = _SCOPE.search(request.headers.get("Authorization", ""))
            if named and named.group(1) not in _SERVICES:
                raise _Refusal(400, "UnknownOperationException", f"the local cloud has no {named.group(1)}")
            try:
                identity = verify(
                    request.method, path, query, request.headers, body, self._credentials, self._faults.now(),
                    service, names.REGION,
                )  # fmt: skip
            except SignatureError as exc:
                raise _Refusal(403 if invoked else 400, exc.code, str(exc)) from exc
            if invoked:
                response = await self._invoke(identity, unquote(invoked.group(1)), request, body)
            elif secret:
                response = self._secretsmanager(identity, target.removeprefix(_SECRETS_MANAGER), body)
            else:
                response = await self._dynamodb(identity, request, body)
        except _Refusal as exc:
            response = web.Response(status=exc.status, body=json.dumps(_add_type(exc, service)))
            response.headers["x-amzn-ErrorType"] = exc.kind
            response.content_type = "application/json"
        response.headers["x-amzn-RequestId"] = request_id
        response.headers["Date"] = email.utils.formatdate(self._faults.now(), usegmt=True)
        return response

    async def _dynamodb(self, identity: str, request: web.BaseRequest, body: bytes) -> web.Response:
        target = request.headers.get("X-Amz-Target", "")
        operation = target.removeprefix(_DYNAMODB)
        if operation in (target, ""):
            raise _Refusal(400, "UnknownOperationException", f"X-Amz-Target is {target!r}")
        try:
            needed = dynamodb.permissions(operation, body)
        except LookupError as exc:
            raise _Refusal(400, "UnknownOperationException", str(exc.args[0])) from exc
        except ValueError as exc:
            raise _Refusal(400, "SerializationException", str(exc)) from exc
        for action, arn in needed:
            self._check(identity, action, arn, 400)
        delay = self._latency.delay(Leg.DYNAMODB)
        if delay:
            await asyncio.sleep(delay)
        if self._rng.triggers("database_500"):
            raise _Refusal(500, "InternalServerError", "Internal server error")
        try:
            status, answer, written = await self._forward(operation, target, body)
        except LocalCloudError as exc:
            raise _Refusal(500, "InternalServerError", str(exc)) from exc
        self._meter.dynamodb(operation, body, answer, written)
        if status == 200 and operation in _WRITES and self._rng.triggers("lost_write"):
            if self._rng.coin("lost_write"):
                reset(request.transport)
            raise _Refusal(500, "InternalServerError", "Internal server error")
        return web.Response(status=status, body=answer, content_type="application/x-amz-json-1.0")

    async def _forward(self, operation: str, target: str, body: bytes) -> Answer:
        """Ask the tables, or for a stale read what they said before."""
        earlier = self._earlier
        if earlier is None or not self._faults.faults.stale_read:
            return await self._tables.forward(target, body)
        if operation in _WRITES:
            images = await earlier.images(operation, body)
            answer = await self._tables.forward(target, body)
            if answer.status == 200:
                earlier.remember(images)
            return answer
        old = earlier.of(operation, body, self._faults.faults.stale_seconds)
        if old is not None and self._rng.triggers("stale_read"):
            return Answer(200, old)
        return await self._tables.forward(target, body)

    def _secretsmanager(self, identity: str, operation: str, body: bytes) -> web.Response:
        try:
            asked = json.loads(body)
            arn = self._secrets.arn(secret_id_of(asked))
            self._check(identity, f"secretsmanager:{operation}", arn, 400)
            answer = self._secrets.answer(operation, asked)
        except SecretError as exc:
            raise _Refusal(400, exc.kind, str(exc)) from exc
        except (ValueError, AttributeError) as exc:
            raise _Refusal(400, "SerializationException", f"the request is malformed: {exc!r}") from exc
        return web.Response(body=json.dumps(answer).encode(), content_type="application/x-amz-json-1.1")

    def _check(self, identity: str, action: str, arn: str, status: int) -> None:
        """Refuse what the caller may not do, as DynamoDB, Lambda and Secrets Manager do."""
        refusal = self._authorize(identity, action, arn)
        if refusal is not None:
            raise _Refusal(status, "AccessDeniedException", refusal)

    async def _invoke(self, identity: str, name: str, request: web.BaseRequest, body: bytes) -> web.Response:
        if request.method != "POST":
            raise _Refusal(405, "MethodNotAllowedException", "Invoke is a POST")
        spec = self._by_name.get(function_name(name))
        arn = spec.arn if spec else names.attribute(_FUNCTION, function_name(name), "Arn")
        self._check(identity, "lambda:InvokeFunction", arn, 403)
        if spec is None:
            raise _Refusal(404, "ResourceNotFoundException", f"Function not found: {arn}", Type="User")
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        limit = MAX_PAYLOAD.get(kind)
        if limit is None:
            raise _Refusal(
                400, "InvalidParameterValueException", f"InvocationType {kind} is not offered here"
            )
        if len(body) > limit:
            text = (
                f"{len(body)} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
            )
            raise _Refusal(413, "RequestEntityTooLargeException", text, Type="User")
        payload = body or b"{}"
        try:
            json.loads(payload)
        except ValueError as exc:
            text = f"Could not parse request body into json: {exc}"
            raise _Refusal(400, "InvalidRequestContentException", text, Type="User") from exc
        rng = self._invoke_rng[spec.name]
        if rng.triggers("invoke_429"):
            raise _throttling()
        fails = rng.triggers("invoke_500")
        if not fails or rng.coin("invoke_500"):
            if kind == "Event":
                await self._invoker.enqueue(spec.logical_id, payload)
                response = web.Response(status=202)
            else:
                response = _answer(await self._invoker.invoke(spec.logical_id, payload))
            if not fails:
                return response
        raise _Refusal(500, "ServiceException", "Internal server error", Type="Service")


def function_name(given: str) -> str:
    """The plain name in a function name, partial ARN or ARN, with or without ``:$LATEST``."""
    parts = given.split(":")
    if "function" in parts[:-1]:
        return parts[parts.index("function") + 1]
    return parts[0]


def _answer(result: InvocationResult) -> web.Response:
    if result.status is InvocationStatus.THROTTLED:
        raise _throttling()
    headers = {"X-Amz-Executed-Version": "$LATEST"}
    if result.status is not InvocationStatus.OK:
        headers["X-Amz-Function-Error"] = "Unhandled"
    return web.Response(body=result.payload, headers=headers, content_type="application/json")


def _throttling() -> _Refusal:
    reason = "ConcurrentInvocationLimitExceeded"
    return _Refusal(429, "TooManyRequestsException", "Rate Exceeded.", Type="User", Reason=reason)


def _add_type(refusal: _Refusal, service: str) -> dict[str, str]:
    if service == "lambda":
        return refusal.body
    return {"__type": f"com.amazon.coral.service#{refusal.kind}", **refusal.body}
