"""``@connections``: the HTTP API through which functions reach the clients.

Source: API Gateway Developer Guide, "Use @connections commands in your backend service"; errors as botocore's
model of ``apigatewaymanagementapi`` names them.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from emissary_local.aws.sigv4 import CredentialsLookup, SignatureError, verify
from emissary_local.billing.meter import Meter, Way
from emissary_local.errors import LocalCloudError
from emissary_local.faults import FaultEngine
from emissary_local.faults.latency import Latency, Leg
from emissary_local.gateway.connections import Connection, Connections
from emissary_local.gateway.events import new_id
from emissary_local.limits import Limits
from emissary_local.net.wsserver import NORMAL
from emissary_local.ports import Authorize

ACTION: Final = "execute-api:ManageConnections"


@dataclass(frozen=True, slots=True)
class ApiName:
    """What names one API and stage in addresses, scopes and ARNs.

    Attributes:
        stage: The stage.
        api_id: The API's id.
        region: Region of the credential scope.
        account: Account number.
    """

    stage: str
    api_id: str = "emissary00"
    region: str = "us-east-1"
    account: str = "123456789012"

    def arn(self, method: str, connection_id: str) -> str:
        """The resource of an ``@connections`` call."""
        return self.route_arn(f"{method}/@connections/{connection_id}")

    def route_arn(self, route: str) -> str:
        """A route's ARN."""
        return f"arn:aws:execute-api:{self.region}:{self.account}:{self.api_id}/{self.stage}/{route}"


class _CallbackError(LocalCloudError):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Fault:
    """What goes wrong with a post: whether it is delivered all the same, the answer, and when."""

    delivered: bool
    error: _CallbackError | None
    seconds: float = 0.0


class Callbacks:
    """Answers ``POST``, ``GET`` and ``DELETE /{stage}/@connections/{connection id}``.

    A 200 to a POST means that the gateway has taken the message, not that the client has read it: a client
    that died silently keeps being posted to.

    ``Data`` that is not UTF-8 is refused with 400: AWS documents nothing, sends it in a text frame as far
    as is known, and the client then has to fail the connection with 1007. Refusing puts the error where
    the fault is.

    Args:
        name: Stage, API id, region and account.
        connections: The open connections.
        credentials: Looks up who signed.
        authorize: Says why they may not.
        meter: Counts.
        latency: How long a post travels.
        limits: Message size, send buffer.
        faults: What to do wrong on purpose, and the clock.
        behind_nat: Logical ids of the functions whose way out is a NAT gateway.
    """

    def __init__(
        self,
        name: ApiName,
        connections: Connections,
        credentials: CredentialsLookup,
        authorize: Authorize,
        meter: Meter,
        latency: Latency,
        limits: Limits,
        faults: FaultEngine,
        behind_nat: Collection[str] = (),
    ) -> None:
        self._name = name
        self._connections = connections
        self._credentials = credentials
        self._authorize = authorize
        self._meter = meter
        self._latency = latency
        self._limits = limits
        self._faults = faults
        self._behind_nat = frozenset(behind_nat)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request; never raises for what a client can cause."""
        try:
            response = await self._answer(request)
        except _CallbackError as exc:
            response = web.Response(
                status=exc.status,
                body=json.dumps({"message": str(exc)}).encode(),
                headers={"x-amzn-ErrorType": exc.kind, "Content-Type": "application/json"},
            )
        response.headers["x-amzn-RequestId"] = new_id()
        response.headers["Date"] = email.utils.formatdate(self._faults.now(), usegmt=True)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as exc:
            # Far over the limit: not even read to the end, so its signature cannot be checked.
            raise self._too_large() from exc
        try:
            identity = verify(
                request.method,
                path,
                query,
                request.headers,
                body,
                self._credentials,
                self._faults.now(),
                "execute-api",
                self._name.region,
            )
        except SignatureError as exc:
            raise _CallbackError(403, exc.code, str(exc)) from exc
        self._meter.sent(len(body), Way.NAT if identity in self._behind_nat else Way.REGION)
        connection_id = self._target(path)
        refusal = self._authorize(identity, ACTION, self._name.arn(request.method, connection_id))
        if refusal is not None:
            raise _CallbackError(403, "ForbiddenException", refusal)
        if request.method == "POST":
            return await self._post(connection_id, body)
        if request.method == "GET":
            return self._get(connection_id)
        if request.method == "DELETE":
            return self._delete(connection_id)
        raise _CallbackError(403, "ForbiddenException", "Forbidden")

    def _target(self, path: str) -> str:
        parts = [unquote(part) for part in path.split("/")]
        if len(parts) != 4 or parts[:3] != ["", self._name.stage, "@connections"] or not parts[3]:
            raise _CallbackError(403, "ForbiddenException", "Forbidden")
        return parts[3]

    async def _post(self, connection_id: str, body: bytes) -> web.Response:
        delay = self._latency.delay(Leg.POST)
        if delay:
            await asyncio.sleep(delay)
        posted = False
        try:
            if len(body) > self._limits.message_bytes:
                raise self._too_large()
            connection = self._open(connection_id)
            if connection.socket.waiting_bytes > self._limits.send_buffer_bytes:
                raise _CallbackError(
                    429, "LimitExceededException", "The client-side buffer of the connection is full"
                )
            if not body.isascii():
                try:
                    body.decode()
                except UnicodeDecodeError as exc:
                    raise _CallbackError(400, "BadRequestException", "Data must be valid UTF-8") from exc
            fault = None if self._faults.quiet else self._fault(connection, len(body))
            posted = fault is None or fault.delivered
        finally:
            self._meter.callback("POST", posted=posted)
        if posted:
            self._meter.message_out(len(body), connection.way)
            connection.touch()
            connection.outbound.send(lambda: connection.socket.send(body))
        if fault is not None:
            await asyncio.sleep(fault.seconds)
            if fault.error is not None:
                raise fault.error
        return web.Response(status=200)

    def _fault(self, connection: Connection, size: int) -> _Fault | None:
        """What goes wrong with this post, if anything."""
        rng = connection.post_rng
        if size > self._limits.frame_bytes:
            if rng.triggers("long_refused"):
                return _Fault(False, self._too_large())
            if rng.triggers("long_lost"):
                return _Fault(False, None)
        if rng.triggers("post_429"):
            return _Fault(False, _CallbackError(429, "LimitExceededException", "Rate exceeded"))
        if rng.triggers("post_410"):
            # Both have been seen: a spurious 410, and one for a message that had arrived.
            return _Fault(rng.coin("post_410"), _CallbackError(410, "GoneException", "Gone"))
        if rng.triggers("post_500"):
            error = _CallbackError(500, "InternalServerErrorException", "Internal server error")
            return _Fault(rng.coin("post_500"), error)
        if rng.triggers("post_hang"):
            return _Fault(rng.coin("post_hang"), None, self._faults.faults.hang_seconds)
        return None

    def _get(self, connection_id: str) -> web.Response:
        self._meter.callback("GET")
        connection = self._open(connection_id)
        shown = {
            "connectedAt": _iso(connection.client.connected_at / 1000),
            "identity": connection.client.identity,
            "lastActiveAt": _iso(connection.last_active),
        }
        return web.Response(body=json.dumps(shown).encode(), content_type="application/json")

    def _delete(self, connection_id: str) -> web.Response:
        self._meter.callback("DELETE")
        self._open(connection_id).socket.close(NORMAL, "Connection Closed Normally")
        return web.Response(status=204)

    def _open(self, connection_id: str) -> Connection:
        connection = self._connections.get(connection_id)
        if connection is None:
            raise _CallbackError(410, "GoneException", "Gone")
        return connection

    def _too_large(self) -> _CallbackError:
        return _CallbackError(413, "PayloadTooLargeException", "Message too long")


def _iso(at: float) -> str:
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
