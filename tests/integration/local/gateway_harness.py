"""A gateway on a free port with scripted functions behind it, for the gateway's tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import boto3
import websockets.asyncio.client
from botocore.config import Config

from emissary_local.aws.sigv4 import Credentials
from emissary_local.billing.meter import Meter
from emissary_local.emissary import classify
from emissary_local.faults import FaultEngine, Faults
from emissary_local.gateway.api import Gateway
from emissary_local.gateway.throttle import Throttles
from emissary_local.limits import Limits
from emissary_local.net.certificates import Certificates
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import Authorizer, Route
from tests.helpers.patience import HANG

STAGE = "prod"
ROUTES = {key: Route(key[1:].capitalize()) for key in ("$connect", "$default", "$disconnect")}
KEY = Credentials("AKIDLOCAL", "secret/of+the=function", "session==token", "Default")

Event = dict[str, Any]
Function = Callable[[Event], Awaitable[Any]]


def answer(status: int = 200, **headers: str) -> dict[str, Any]:
    """A Lambda proxy response; underscores in header names stand for hyphens."""
    return {
        "statusCode": status,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
    }


def connect(url: str, **options: Any) -> websockets.asyncio.client.connect:
    """A client of websockets that gives up on a hang only, and pings nobody unless it is told to."""
    patient = {"open_timeout": HANG, "close_timeout": HANG, "ping_interval": None, "ping_timeout": HANG}
    return websockets.asyncio.client.connect(url, **{**patient, **options})


async def ok(event: Event) -> Any:
    return answer()


class FakeInvoker:
    """Runs coroutine functions as if they were Lambda functions, and remembers their events."""

    def __init__(self, **functions: Function) -> None:
        self.functions: dict[str, Function] = {"Connect": ok, "Default": ok, "Disconnect": ok, **functions}
        self.events: list[tuple[str, Event]] = []
        self._came = asyncio.Event()

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        event = json.loads(payload)
        self.events.append((function, event))
        self._came.set()
        result = await self.functions[function](event)
        if isinstance(result, InvocationStatus):
            return InvocationResult(result, b'{"errorMessage":"scripted"}')
        return InvocationResult(InvocationStatus.OK, json.dumps(result).encode())

    async def enqueue(self, function: str, payload: bytes) -> InvocationResult:
        raise AssertionError("API Gateway never invokes asynchronously here")

    async def wait_for(self, function: str, count: int = 1) -> list[Event]:
        """The first ``count`` events of ``function``, once they have come."""

        async def enough() -> list[Event]:
            while len(found := [event for name, event in self.events if name == function]) < count:
                self._came.clear()
                await self._came.wait()
            return found[:count]

        return await asyncio.wait_for(enough(), HANG)


class Running:
    """A started gateway and what a test needs to talk to it."""

    def __init__(
        self,
        gateway: Gateway,
        invoker: FakeInvoker,
        meter: Meter,
        engine: FaultEngine,
        port: int,
        tls: Certificates | None,
    ):
        self.faults = engine
        self.gateway = gateway
        self.invoker = invoker
        self.meter = meter
        self.host = f"127.0.0.1:{port}"
        self.port = port
        self.tls = tls
        self.url = f"{'wss' if tls else 'ws'}://{self.host}/{STAGE}"

    def management(self, **changes: Any) -> Any:
        """A boto3 client for ``@connections``, without retries."""
        arguments: dict[str, Any] = {
            "endpoint_url": f"{'https' if self.tls else 'http'}://{self.host}/{STAGE}",
            "region_name": "us-east-1",
            "aws_access_key_id": KEY.access_key_id,
            "aws_secret_access_key": KEY.secret_access_key,
            "aws_session_token": KEY.session_token,
            "verify": self.tls.ca_file if self.tls else None,
            "config": Config(retries={"max_attempts": 0}, connect_timeout=HANG, read_timeout=HANG),
        }
        return boto3.client("apigatewaymanagementapi", **{**arguments, **changes})

    async def call(self, method: str, client: Any = None, **arguments: Any) -> Any:
        """One boto3 call, off the event loop; its connections are closed afterwards."""
        if client is not None:
            return await asyncio.to_thread(getattr(client, method), **arguments)
        own = self.management()
        try:
            return await asyncio.to_thread(getattr(own, method), **arguments)
        finally:
            own.close()


@contextlib.asynccontextmanager
async def running(
    *,
    faults: Faults | None = None,
    limits: Limits | None = None,
    tls: Certificates | None = None,
    routes: Mapping[str, Route] = ROUTES,
    selection: str = "\\$default",
    authorizer: Authorizer | None = None,
    throttles: Throttles | None = None,
    domain_port: bool = False,
    **functions: Function,
) -> AsyncIterator[Running]:
    """A gateway for the length of a ``with``; functions are scripted by route name (``Default=...``)."""
    invoker, meter, engine = FakeInvoker(**functions), Meter(), FaultEngine(faults)
    gateway = Gateway(
        stage=STAGE,
        routes=routes,
        selection=selection,
        authorizer=authorizer,
        invoker=invoker,
        faults=engine,
        meter=meter,
        credentials=lambda key: KEY if key == KEY.access_key_id else None,
        limits=limits or Limits(),
        ssl=tls.server_context() if tls else None,
        throttles=throttles,
        classify=classify,
        domain_port=domain_port,
    )
    port = await gateway.start()
    try:
        yield Running(gateway, invoker, meter, engine, port, tls)
    finally:
        await gateway.close()
