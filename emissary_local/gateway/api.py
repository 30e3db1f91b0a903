"""A local API Gateway WebSocket API: upgrades, messages, ``@connections``, all on one port.

Strict on purpose: text only, 32 KB frames, 128 KB messages, 29 s, 10 minutes idle, 2 hours, every message an
invocation of its own in no promised order. :mod:`emissary_local.limits` names each number's source.
Where AWS documents nothing, this is our reading, on the strict side:

* Only data messages, either way, keep a connection from its idle limit; ping frames do not.
* An upgrade whose function fails, is killed at its own timeout or answers no ``statusCode`` gets 502; one
  whose function was throttled 429; 504 is for the 29 s alone. For a message the first three are the same
  error frame, "Internal server error".
* A lost TCP connection is noticed at once when the network says so (1006), and never when it says nothing.
* A message to a connection that ends while it is under way is lost, though its post was answered 200.
* A throttled message is answered with the same error frame; a throttled upgrade with 429.
* With a route response a text ``body`` reaches the client whatever the ``statusCode``, and no body nothing;
  one over the message limit is an error frame. Of ``$connect`` and ``$disconnect`` no body goes anywhere.
* No message reaches ``$connect`` or ``$disconnect``: one that chooses them goes to ``$default``.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
import weakref
from collections.abc import Collection, Coroutine, Iterable, Mapping
from typing import Final
from urllib.parse import unquote

from aiohttp import web
from websockets.datastructures import Headers
from websockets.http11 import Request

from emissary_local.aws.sigv4 import CredentialsLookup
from emissary_local.billing.meter import Meter, Way
from emissary_local.faults import DecisionStream, FaultEngine, Hop, Site
from emissary_local.faults.idle_connections import transports_of
from emissary_local.faults.latency import Latency, Leg
from emissary_local.gateway.authorizer import ConnectAuthorizer
from emissary_local.gateway.callbacks import ApiName, Callbacks
from emissary_local.gateway.client_role import Classify, any_client
from emissary_local.gateway.connections import Connection, Connections
from emissary_local.gateway.disconnects import Disconnects
from emissary_local.gateway.error_frames import (
    INTERNAL_SERVER_ERROR,
    UNAUTHORIZED,
    error_frame,
    refused_upgrade,
)
from emissary_local.gateway.events import Client, EventWriter, new_id, without_port
from emissary_local.gateway.integration import IntegrationError, Integrations
from emissary_local.gateway.throttle import Throttles
from emissary_local.limits import Limits
from emissary_local.net.protocol_switch import ProtocolSwitch
from emissary_local.net.wsserver import ABNORMAL, GOING_AWAY, TOO_BIG, ClientSocket
from emissary_local.ports import Authorize, FunctionInvoker, allow_all
from emissary_local.template.selection import DEFAULT, RESERVED, RouteSelection
from emissary_local.template.specs import Authorizer, Route

#: Status of an upgrade to a stage that is not there, or not yet.
_FORBIDDEN: Final = 403

#: Why a connection is closed at one of its messages, where the faults say so.
_CLOSES: Final = {1008: "Throttled", 1011: "Internal error", 1012: "Service restart"}


class Gateway:
    """One WebSocket API with one stage.

    Args:
        stage: The stage; clients connect to ``/{stage}``.
        routes: Route key to what is behind it. Without ``$connect`` everybody is let in; a message without a
            route of its own goes to ``$default``, and without that is answered with a Forbidden frame.
        selection: The route selection expression.
        authorizer: Who is asked before ``$connect``; nobody when None.
        invoker: Runs the functions.
        faults: What to do wrong on purpose, and the clock.
        meter: Counts what AWS would bill.
        credentials: Who owns an access key, for ``@connections``.
        limits: All numbers.
        ssl: Speak TLS with this context.
        latency: How long the hops take.
        authorize: Why an identity may not call ``@connections`` on a resource, if so.
        name: API id, region and account; made from ``stage`` when None.
        throttles: The stage's; none when None.
        classify: Which role a client plays, for faults that happen to one, and for what its bytes cost: a
            relay is one of the functions.
        behind_nat: Logical ids of the functions whose way out is a NAT gateway.
        domain_port: Have the port in the events' ``domainName`` too, as AWS never does.

    Attributes:
        disconnects: Ends connections on purpose.

    Thread safety: none; use it on one event loop. No method blocks it.
    """

    def __init__(
        self,
        *,
        stage: str,
        routes: Mapping[str, Route],
        selection: str = "\\$default",
        authorizer: Authorizer | None = None,
        invoker: FunctionInvoker,
        faults: FaultEngine,
        meter: Meter,
        credentials: CredentialsLookup,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        ssl: ssl_module.SSLContext | None = None,
        latency: Latency | None = None,
        authorize: Authorize = allow_all,
        name: ApiName | None = None,
        throttles: Throttles | None = None,
        classify: Classify = any_client,
        behind_nat: Collection[str] = (),
        domain_port: bool = False,
    ) -> None:
        self._name = name or ApiName(stage)
        self._limits = limits
        self._ssl = ssl
        self._faults = faults
        self._meter = meter
        self._latency = latency or Latency()
        self._integrations = Integrations(routes, invoker, limits)
        self._selection = RouteSelection(selection)
        self._authorizer: ConnectAuthorizer | None = None
        if authorizer is not None:
            arn = self._name.route_arn("$connect")
            self._authorizer = ConnectAuthorizer(authorizer, self._integrations, arn)
        self._connections = Connections(limits)
        self._throttles = throttles or Throttles()
        self._classify = classify
        self._relays_way = Way.NAT if behind_nat else Way.REGION
        self._domain_port = domain_port
        self._callbacks = Callbacks(
            self._name,
            self._connections,
            credentials,
            authorize,
            meter,
            self._latency,
            limits,
            faults,
            behind_nat,
        )
        self.disconnects = Disconnects(self._connections, faults, limits)
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._count = 0
        self._server: asyncio.Server | None = None
        self._http: web.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen.

        Returns:
            The port listened on.

        Raises:
            OSError: If the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        http = self._http = web.Server(
            self._callbacks.handle,
            access_log=None,
            keepalive_timeout=self._limits.http_keepalive_seconds,
        )
        self._server = await loop.create_server(
            lambda: ProtocolSwitch(
                lambda: ClientSocket(self, self._limits, self._faults.now),
                http,
                self._limits,
                self._transports.add,
            ),
            host,
            port,
            ssl=self._ssl,
            backlog=512,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection, with 1001 where it still gets through.

        Functions are not told: there is nobody left to run them. Idempotent.
        """
        if self._server is None or self._http is None:
            return
        server, self._server = self._server, None
        server.close()
        self.disconnects.close()
        for connection in self._connections:
            self._connections.remove(connection)
            connection.socket.close(GOING_AWAY, "Going away")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._integrations.close()
        self._http.pre_shutdown()  # Ends the idle connections at once; shutdown waits for the busy ones.
        await self._http.shutdown(timeout=1.0)
        for transport in list(self._transports):
            transport.abort()
        await server.wait_closed()
        # Aborted transports tell their protocols in the next turn of the loop.
        await asyncio.sleep(0)

    def transports(self) -> Iterable[asyncio.Transport]:
        """The HTTP connections of those who call ``@connections``."""
        return transports_of(self._http)

    # What a ClientSocket calls (wsserver.SocketOwner).

    def upgrade_requested(self, socket: ClientSocket, request: Request) -> None:
        """Ask ``$connect``; its answer accepts or refuses the upgrade."""
        path, _, query = request.path.partition("?")
        if unquote(path).rstrip("/") != f"/{self._name.stage}":
            self._refuse(socket, _FORBIDDEN, None, new_id())
            return
        authority = request.headers.get("Host", "")
        client = Client(
            connection_id=new_id(),
            authority=authority,
            domain_name=authority if self._domain_port else without_port(authority),
            stage=self._name.stage,
            api_id=self._name.api_id,
            source_ip=socket.source_ip,
            user_agent=request.headers.get("User-Agent"),
            connected_at=int(self._faults.now() * 1000),
        )
        loop = asyncio.get_running_loop()
        role = self._classify(request.headers)
        connection = Connection(
            socket,
            client,
            EventWriter(client),
            Hop(DecisionStream(self._faults, Site.MESSAGE_IN, self._count), loop),
            Hop(DecisionStream(self._faults, Site.POST_OUT, self._count), loop),
            self._faults.rng(Site.GATEWAY, self._count),
            self._faults.rng(Site.POST, self._count),
            role,
            self._relays_way if role.side == "relay" else Way.INTERNET,
        )
        self._count += 1
        self._run(self._connect(connection, request.headers, query))

    def message_received(self, socket: ClientSocket, text: bytes) -> None:
        """Run the message's route, once it has come all the way in; later ones do not wait for that."""
        connection = self._connections.of(socket)
        if connection is None:
            return
        connection.touch()
        self._meter.message_in(len(text), connection.way)
        connection.inbound.send(
            lambda: self._run(self._message(connection, text)), self._latency.delay(Leg.INVOKE)
        )

    def closed(self, socket: ClientSocket, code: int, reason: str) -> None:
        """Forget the connection, and run ``$disconnect``."""
        connection = self._connections.of(socket)
        if connection is None:
            return
        self._connections.remove(connection)
        self._meter.close_connection(connection.client.connection_id)
        self._run(self._disconnect(connection, code, reason))

    # One invocation each.

    async def _connect(self, connection: Connection, headers: Headers, query: str) -> None:
        socket, connection_id, request_id = connection.socket, connection.client.connection_id, new_id()
        status, subprotocol = 200, None
        early = self._refuse_early(connection)
        if early is not None:
            status = early
        else:
            try:
                if self._authorizer is not None:
                    await self._authorize_upgrade(connection, self._authorizer, request_id, headers, query)
                if self._integrations.has("$connect"):
                    event = connection.events.connect(
                        request_id, headers.raw_items(), query, self._faults.now(), secure=socket.secure
                    )
                    await self._travel()
                    answer = await self._integrations.call("$connect", event)
                    status, subprotocol = answer.status, answer.subprotocol
            except IntegrationError as exc:
                status = exc.status
        accepted = 200 <= status < 300
        self._meter.connect(accepted=accepted)
        if not accepted:
            known = None if early == _FORBIDDEN else connection_id
            self._refuse(socket, status, known, request_id)
            return
        self._connections.open(connection)
        self._meter.open_connection(connection_id)
        if connection.rng.triggers("connect_lost"):
            socket.lose_answer()
            self.closed(socket, ABNORMAL, "Connection closed abnormally")
            return
        if not socket.accept(subprotocol):
            self.closed(socket, ABNORMAL, "Connection closed abnormally")

    async def _authorize_upgrade(
        self,
        connection: Connection,
        authorizer: ConnectAuthorizer,
        request_id: str,
        headers: Headers,
        query: str,
    ) -> None:
        """Raise IntegrationError for an upgrade that the authorizer refuses."""
        if not authorizer.has_identity(headers, query):
            raise IntegrationError(401, UNAUTHORIZED, "an identity source is missing")
        event = connection.events.authorization(
            authorizer.method_arn, request_id, headers.raw_items(), query, self._faults.now(),
            secure=connection.socket.secure,
        )  # fmt: skip
        await self._travel()
        connection.events.set_authorizer(await authorizer.ask(event))

    def _route(self, text: bytes) -> str:
        """The key of the route that a message takes."""
        key = self._selection.key(text)
        return DEFAULT if key is None or key in RESERVED or not self._integrations.has(key) else key

    async def _message(self, connection: Connection, text: bytes) -> None:
        request_id = new_id()
        if not self._faults.quiet and self._loses(connection, len(text)):
            return
        try:
            route = self._route(text)
            self._let_in(connection, route)
            event = connection.events.message(route, request_id, new_id(), text, self._faults.now())
            body = (await self._integrations.call(route, event)).body
            if body is not None and connection.socket.is_open:
                self._reply(connection, body)
        except IntegrationError as exc:
            if connection.socket.is_open:
                frame = error_frame(exc.frame_message, connection.client.connection_id, request_id)
                self._meter.message_out(len(frame), connection.way)
                connection.socket.send(frame)

    def _reply(self, connection: Connection, body: bytes) -> None:
        if len(body) > self._limits.message_bytes:
            raise IntegrationError(502, INTERNAL_SERVER_ERROR, "the answer is over the message limit")
        self._meter.message_out(len(body), connection.way)
        connection.touch()
        connection.outbound.send(lambda: connection.socket.send(body))

    async def _disconnect(self, connection: Connection, code: int, reason: str) -> None:
        if not self._integrations.has("$disconnect"):
            return
        rng, faults = connection.rng, self._faults.faults
        if rng.triggers("disconnect_missing"):
            return
        if rng.triggers("disconnect_late"):
            await asyncio.sleep(rng.up_to("disconnect_late", faults.disconnect_seconds))
        event = connection.events.disconnect(new_id(), code, reason, self._faults.now())
        try:
            await self._travel()
            await self._integrations.call("$disconnect", event)
        except IntegrationError:
            pass  # Best effort: there is nobody left to tell.

    def _refuse_early(self, connection: Connection) -> int | None:
        """Status of an upgrade that is refused before any function is asked, or None."""
        if not self._throttles.allows("$connect"):
            self._faults.count("throttled")
            return 429
        if connection.rng.triggers("connect_403"):
            return _FORBIDDEN
        if connection.rng.triggers("connect_429"):
            return 429
        return 502 if connection.rng.triggers("connect_500") else None

    def _loses(self, connection: Connection, size: int) -> bool:
        """Whether a message is lost before any route is chosen, and perhaps its connection with it."""
        rng, long = connection.rng, size > self._limits.frame_bytes
        if long and rng.triggers("long_lost"):
            return True
        if long and rng.triggers("long_refused"):
            connection.socket.close(TOO_BIG, "Message too long")
            return True
        for code, reason in _CLOSES.items():
            if rng.triggers(f"close_{code}"):
                connection.socket.close(code, reason)
                return True
        return False

    def _let_in(self, connection: Connection, route: str) -> None:
        """Raise IntegrationError for a message that must not reach its function."""
        if not self._throttles.allows(route):
            self._faults.count("throttled")
            raise IntegrationError(429, INTERNAL_SERVER_ERROR, "the stage's throttle")
        if self._faults.quiet:
            return
        if connection.rng.triggers("message_429"):
            raise IntegrationError(429, INTERNAL_SERVER_ERROR, "throttled on purpose")
        if connection.rng.triggers("message_500"):
            raise IntegrationError(502, INTERNAL_SERVER_ERROR, "failed on purpose")

    async def _travel(self) -> None:
        delay = self._latency.delay(Leg.INVOKE)
        if delay:
            await asyncio.sleep(delay)

    def _refuse(self, socket: ClientSocket, status: int, connection_id: str | None, request_id: str) -> None:
        kind, body = refused_upgrade(status, connection_id, request_id)
        headers = [
            ("Content-Type", "application/json"),
            ("x-amzn-RequestId", request_id),
            ("x-amzn-ErrorType", kind),
        ]
        socket.refuse(status, headers, body)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        if self._server is None:  # Closing: nothing new is begun.
            work.close()
            return
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
