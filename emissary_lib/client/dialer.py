"""The platform's way in: dials targets through the bridge."""

from __future__ import annotations

import codecs
import functools
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from emissary_lib.client import CONNECTIONS_PER_RELAY as CONNECTIONS_PER_RELAY
from emissary_lib.client import DIAL_TIMEOUT as DIAL_TIMEOUT
from emissary_lib.client import MAX_CONNECTIONS, RELAY_IDLE_SECONDS, drain
from emissary_lib.client.dial import Dial, Learned, Opener
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.forward import Forward, Forwarded
from emissary_lib.client.in_flight import InFlightLimiter
from emissary_lib.client.listening import LocalAddress, check_address
from emissary_lib.client.progress import Progress, timeout_error
from emissary_lib.client.socket import SessionInfo, TunnelSocket, logger
from emissary_lib.exceptions import (
    ClosedError,
    ConfigError,
    TunnelResetError,
    dial_error,
    local_resource_error,
)
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import DEFAULT_CAPACITY
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.forked import keep_from_children
from emissary_lib.transport.websocket import OriginalServerError
from emissary_lib.tunnel.loopback import tcp_pair

if TYPE_CHECKING:
    import asyncio

    from emissary_lib.client.config import ClientConfig
    from emissary_lib.client.health import Health
    from emissary_lib.client.original import OriginalDial
    from emissary_lib.client.relays import RelayPool
    from emissary_lib.client.shared import SharedDial
    from emissary_lib.client.socks import SocksServer

    AnyDial = Dial | SharedDial | OriginalDial

_Protocol = TypeVar("_Protocol", bound="asyncio.BaseProtocol")

#: Longest timeout that can be given, in seconds: poll(2) counts milliseconds in 31 bits.
MAX_TIMEOUT: Final = 2_000_000

#: Where a dialer keeps its relays, once it has any.
_POOL: Final = "_relay_pool"

_CLOSED: Final = "this dialer was closed; make a new one"

#: Messages in flight of all tunnels of one dialer together; each is a concurrent Lambda invocation.
MAX_IN_FLIGHT: Final = 64


class RelayInfo(Record):
    """What is known of a relay that a dialer's connections share.

    Attributes:
        id: Its session's id, as it stands in the bridge's log and in each connection's ``session.id``.
        connections: How many it carries now, those included that are being dialled.
        room: How many more it takes now.
        expires_at: When its time is up and all of its connections end, in seconds since 1970 UTC.
        going_away: Whether it has announced its end: it takes no more then.
    """

    id: str
    connections: int
    room: int
    expires_at: float
    going_away: bool


class Dialer:
    """Dials targets inside the VPC.

    Connections share a relay, up to ``connections_per_relay`` of them. The first dial starts one, which takes
    a second or more from cold; a further dial over it, to any target, takes one round trip, and neither
    another place among the sessions nor another Lambda. A relay that is full, that carries as much as
    its way takes, or that has less than a third of its time left gets no new connection: another is
    started. One that carries nothing ends after ``relay_idle_seconds``, and with :meth:`close`. Shared are:

    - the end: whatever ends a relay (its time limit, a crash, an operator) ends all connections over it, each
      with its own error; a dial that it has not answered yet is made again over another;
    - ``session``: ``id``, ``expires_at`` and ``counters`` of a socket's session are those of the relay, while
      ``target``, ``transferred`` and ``error`` are its own;
    - the buffers: a connection whose program does not read stops itself alone.

    A stack of a release that knows nothing of it is found out by the first dial, and then, asked again every
    five minutes, gives each connection a relay of its own.

    A server that accepts a WebSocket without ``emissary.v2`` is taken for the original Emissary's, and spoken
    to as such: each connection has a WebSocket of its own, without a relay, and ends with it. What that wire
    cannot is in docs/guides/original.md. Once a session was opened by ``emissary.v2``, such a server is an
    error.

    Args:
        url: The gateway: ``WebSocketUrl`` of the stack's outputs, ``wss://...``.
        key: The shared key to sign with.
        ssl_context: For ``wss``; ``None`` for one that checks certificate and name, by the authorities that
            Python trusts, or with the package truststore the operating system.
        ca_file: PEM file of authorities to trust beside those.
        max_in_flight: Messages in flight of all tunnels together; each is a concurrent Lambda invocation.
        capacity: Bytes that each tunnel buffers each way, at most; at least 65,536.
        keepalive: When to ask whether the relay is still there.
        clock: Monotonic, and goes on while the host sleeps; ``None`` for the platform's.
        connections_per_relay: How many connections share one relay, at most; 1 to 64. 1: each has a relay of
            its own, which ends with it.
        relay_idle_seconds: How long a relay that can be shared is kept without a connection, so that the next
            dial finds it; it is paid for meanwhile, and takes a place among the sessions.

    Raises:
        ConfigError: The URL is none of a WebSocket, the file has no authority in it, or a number is out of
            its range.
        LocalResourceError: This machine has no descriptor left to load with what dials need.

    Thread safety: one dialer serves any number of threads. It keeps no connection to the gateway while
    nothing is dialled, but for ``relay_idle_seconds`` that of a relay which can be shared.

    Processes: a dialer can be pickled, and so given to a process of multiprocessing's, and used by a forked
    child. Each process has a ``max_in_flight`` and relays of its own. **The pickle contains the key**: treat
    it as one. With an ``ssl_context`` or a ``clock`` it cannot be pickled. A socket that was dialled before a
    fork is shared with the child, as any socket is: the parent's threads carry its bytes, so that the tunnel
    ends with the parent; and it goes on until both have closed it, or one has shut it down. In the child its
    ``session`` stands still.

    Example::

        with Dialer(url, key) as dialer:
            sock = dialer.dial("db.internal:5432")
    """

    def __init__(
        self,
        url: str,
        key: Key,
        *,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        capacity: int = DEFAULT_CAPACITY,
        keepalive: KeepaliveTimes | None = None,
        clock: Callable[[], float] | None = None,
        connections_per_relay: int = CONNECTIONS_PER_RELAY,
        relay_idle_seconds: float = RELAY_IDLE_SECONDS,
    ) -> None:
        self._endpoint = Endpoint(url, ssl_context, ca_file)
        self._key = key
        self._streams = StreamConfig(capacity=capacity)
        self._learned = Learned()
        self._keepalive = keepalive or KeepaliveTimes()
        self._clock = clock
        self._in_flight = InFlightLimiter(max_in_flight)
        self._connections_per_relay = _whole_number(connections_per_relay, 1, MAX_CONNECTIONS)
        self._relay_idle_seconds = _idle_seconds(relay_idle_seconds)
        self._closed = False
        self._load()

    def __repr__(self) -> str:
        return f"<Dialer to {self._endpoint.url} with key {self._key.key_id}>"

    def __getstate__(self) -> dict[str, Any]:
        kept = {"ssl_context": self._endpoint.ssl_context, "clock": self._clock}
        for name, value in kept.items():
            if value is not None:
                raise TypeError(
                    f"a Dialer with a {name} of its own cannot be pickled: make it in the process that "
                    "dials, or do without"
                )
        state = dict(vars(self))
        state["_in_flight"] = self._in_flight.places
        state.pop(_POOL, None)  # each process has relays of its own
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _in_flight=InFlightLimiter(state["_in_flight"]))
        self._load()

    def _load(self) -> None:
        """Load all that dials need, and an import of the library alone does not.

        Later there may be no descriptor to read a module with; and a child that is forked while another
        thread loads one waits for that thread, which it does not have, when it needs the module itself.
        """
        try:
            import datetime  # noqa: F401 - of the date that is signed

            codecs.lookup("idna")  # of a gateway's name; what cannot be loaded now is never looked for again
            import emissary_lib.client.original

            self._endpoint.load()
            if self._connections_per_relay > 1:
                import emissary_lib.client.relays  # noqa: F401 - only who shares relays has to load HTTP/2
        except OSError as exc:
            raise local_resource_error(exc) from exc

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, env_file: str | os.PathLike[str] | None = None
    ) -> Dialer:
        """A dialer from the settings that example.env explains.

        ``EMISSARY_URL``, and one of ``EMISSARY_AUTH_KEYS``, ``EMISSARY_AUTH_KEYS_FILE`` and
        ``EMISSARY_AUTH_KEYS_SECRET``, must be there. Each is taken from the first place that has it: the
        environment, ``env_file``, the file ``.env`` of the current directory if there is one.

        Args:
            environ: The environment; ``None`` for the process's.
            env_file: A file of settings, which must be there; ``None`` for the one that ``EMISSARY_ENV_FILE``
                names, if it names one.

        Raises:
            ConfigError: Names every setting that is missing or wrong.

        Blocking: for a key in a secret, until AWS has answered; for a pipe in a file's place, up to half a
        minute.
        """
        from emissary_lib.client.config import ClientConfig  # only who reads settings has to load it
        from emissary_lib.client.settings import SettingsReader

        return cls.from_config(ClientConfig.read(SettingsReader(environ, env_file=env_file)))

    @classmethod
    def from_config(cls, config: ClientConfig) -> Dialer:
        """A dialer from settings that were read.

        Raises:
            ConfigError: The URL is none of a WebSocket, or the file of authorities has none in it.
        """
        return cls(
            config.url,
            config.key,
            keepalive=config.keepalive,
            ca_file=config.ca_file,
            connections_per_relay=config.connections_per_relay,
            relay_idle_seconds=config.relay_idle_seconds,
        )

    def dial(self, target: str | tuple[str, int], timeout: float | None = DIAL_TIMEOUT) -> TunnelSocket:
        """Connect to ``target`` from inside the VPC.

        Over a relay that is there, where connections share one (see the class); else as a new session, which
        starts a relay.

        Whatever may pass is tried again until ``timeout``, each time as a new session with a fresh nonce,
        after a jittered pause of 0.1 s that doubles up to 2 s: a throttled or broken gateway (429, 5xx), a
        connection that was cut before the gateway's answer came (it may have been granted), and a session
        that was lost before its relay had reached the target. A shared relay of which nothing is heard for
        five seconds is taken to be lost, too. Everything else is raised at once: a refusal
        (400, 401, 403), a name that does not resolve, TLS, a refused connection, a target not reached.

        Args:
            target: ``"host:port"``, ``"[v6]:port"`` or ``(host, port)``; names are resolved in the VPC.
            timeout: Seconds for the dial as a whole; ``None`` for no limit. It ends with the dial: the
                tunnel lives on, and the socket is a blocking one.

        Returns:
            A connected socket; ``.session`` knows the tunnel's deadline and counters, and whether its end
            has been announced (also a warning on the logger ``emissary_lib.tunnel``). Closing it ends the
            tunnel.

        Raises:
            ConfigError: ``target`` or ``timeout`` is none.
            ClosedError: The dialer was closed.
            AuthenticationError: The key is unknown or wrong; its subclass ClockSkewError: this clock is off.
            TransportError: The gateway was not reached, or refused; of what was tried again, the last cause.
            DialError: The target was not reached; its subclasses TargetNotAllowedError, NameNotFoundError,
                TargetRefusedError, TargetUnreachableError and TargetTimedOutError say why.
            DialTimeoutError: ``timeout`` ran out; a DialError and a TimeoutError.
            RemoteProtocolError: The server does not speak the protocol.
            LocalResourceError: This machine has no descriptor or thread left for it; an OSError.

        Blocking: until the relay is connected to the target. Any thread.
        """
        return self._dial_socket(Target.parse(target), _deadline(timeout))

    def _dial_socket(self, parsed: Target, deadline: Deadline) -> TunnelSocket:
        if self._closed:
            raise ClosedError(_CLOSED)
        try:  # first, so that a lack of descriptors shows before anything is opened
            ours, theirs = tcp_pair(deadline)
        except TimeoutError as exc:
            raise timeout_error(parsed, deadline, "loopback") from exc
        except OSError as exc:
            raise local_resource_error(exc) from exc
        keep_from_children(ours, theirs)  # theirs until the caller has it
        try:
            dial = self._dial(parsed, deadline)
            tunnel = dial.attach(ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        # Before the caller has the socket: the program may exit at any moment.
        unseen = theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        connection = drain.begin(str(parsed), (self,), unseen=unseen)
        connection.carry(tunnel)
        theirs.settimeout(socket.getdefaulttimeout())
        sock = TunnelSocket(fileno=theirs.detach())
        sock.session = dial.info
        try:
            dial.start(functools.partial(_end, dial, connection))
        except BaseException:
            drain.end(connection)
            sock.close()
            raise
        return sock

    async def open_connection(
        self,
        target: str | tuple[str, int],
        timeout: float | None = DIAL_TIMEOUT,
        *,
        limit: int = 65_536,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        r"""As :meth:`dial`, in the shape of :func:`asyncio.open_connection`: streams of the running loop.

        The dial waits in a thread of its own and takes none of the loop's executor. Cancelling it
        (``asyncio.timeout``, a task group) gives it up: the bridge is told, and nothing is left open. When
        the tunnel is cut off, reading raises :class:`TunnelResetError`, which names the cause; on a loop that
        uses the bare descriptor (Windows' own, uvloop) a plain ``ConnectionResetError``, and the cause is in
        ``session_of(writer).error``::

            async with asyncio.timeout(30), Dialer.from_env() as dialer:
                reader, writer = await dialer.open_connection("db.internal:6379")
                writer.write(b"PING\r\n")
                print(await reader.readline(), dialer.session_of(writer).expires_at)

        Args:
            target: As for :meth:`dial`.
            timeout: Seconds for the dial; ``None`` for no limit. TLS is not part of it.
            limit: Of the reader's buffer, in bytes.
            ssl: For TLS inside the tunnel, as of ``asyncio``; ``True`` for Python's default context.
            server_hostname: Whose certificate to expect; ``None`` for the target's host.

        Raises:
            ValueError: An argument is none, as a rule a ConfigError; nothing was dialled.
            EmissaryError: As :meth:`dial`.
            OSError: TLS failed.
        """
        from emissary_lib.client import asynchronous  # only who asks has to load asyncio

        parsed, timeout = Target.parse(target), _deadline(timeout).timeout
        tls = asynchronous.tls_arguments(ssl, server_hostname, parsed)
        dial = functools.partial(self._dial_socket, parsed)
        return await asynchronous.open_connection(dial, timeout, limit, tls)

    @overload
    def create_connection(
        self, address: tuple[str, int], timeout: float | None = DIAL_TIMEOUT
    ) -> TunnelSocket: ...

    @overload
    def create_connection(
        self,
        protocol_factory: Callable[[], _Protocol],
        target: str | tuple[str, int],
        timeout: float | None = DIAL_TIMEOUT,
        *,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> Coroutine[Any, Any, tuple[asyncio.Transport, _Protocol]]: ...

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """The same, in the shape of the standard library's two functions of this name.

        ``create_connection(address, timeout)`` is :func:`socket.create_connection`: a socket on which the
        timeout stays set. ``await create_connection(protocol_factory, target)`` is the event loop's: a
        transport and its protocol, and otherwise as :meth:`open_connection`.
        """
        if callable(args[0] if args else kwargs.get("protocol_factory")):
            return self._create_transport(*args, **kwargs)
        return self._create_socket(*args, **kwargs)

    def _create_socket(self, address: tuple[str, int], timeout: float | None = DIAL_TIMEOUT) -> TunnelSocket:
        sock = self.dial(address, timeout)
        sock.settimeout(timeout)
        return sock

    async def _create_transport(
        self,
        protocol_factory: Callable[[], _Protocol],
        target: str | tuple[str, int],
        timeout: float | None = DIAL_TIMEOUT,
        *,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, _Protocol]:
        from emissary_lib.client import asynchronous

        parsed, timeout = Target.parse(target), _deadline(timeout).timeout
        tls = asynchronous.tls_arguments(ssl, server_hostname, parsed)
        dial = functools.partial(self._dial_socket, parsed)
        return await asynchronous.create_connection(dial, timeout, protocol_factory, tls)

    @staticmethod
    def session_of(connection: asyncio.BaseTransport | asyncio.StreamWriter) -> SessionInfo:
        """What is known of the tunnel below a transport or a writer, TLS on top of it or not.

        Raises:
            ConfigError: It is none of a tunnel's.
        """
        from emissary_lib.client import asynchronous

        return asynchronous.session_of(connection)

    def forward(
        self,
        target: str | tuple[str, int],
        listen: LocalAddress = ("127.0.0.1", 0),
        timeout: float | None = DIAL_TIMEOUT,
        *,
        process: bool = False,
    ) -> Forward:
        """A local listening address for drivers and tools that take no socket.

        Args:
            target: As for :meth:`dial`. Each accepted connection is a dial of its own.
            listen: Local address; port 0 takes a free one, and ``localhost`` is both 127.0.0.1 and ::1.
                Anybody who can connect to it reaches the target. Or the path of a Unix socket, with a slash
                in it, for this user alone; a directory stands for the name in it that libpq looks for.
            timeout: Seconds for each dial; one whose program hangs up is given up.
            process: Serve it from a process of its own, which ends with this one, however that ends.

        Returns:
            A context manager that gives ``(host, port)``, a pair whose ``last_error`` says why the newest
            connection failed that did. At its end it waits for what was written to the connections::

                with dialer.forward("db.internal:5432") as (host, port):
                    psycopg.connect(host=host, port=port, ...)

            Its ``path`` is a Unix socket's; ``host`` and ``port`` are then what libpq takes.

            Threads of this process serve the port: whoever keeps the interpreter's lock while it connects
            to it or waits for its answer, as psycopg's ``Connection.cancel()`` does, waits for ever; so does
            a program of gevent's or eventlet's. For these ``process`` is true.

        Raises:
            ConfigError: ``target``, ``listen`` or ``timeout`` is none; or with ``process`` the dialer has an
                ``ssl_context`` or ``clock`` of its own, which another process cannot be given.
            ClosedError: The dialer was closed.
        """
        parsed = Target.parse(target)
        _deadline(timeout)
        check_address(listen)
        if self._closed:
            raise ClosedError(_CLOSED)
        if process:
            from emissary_lib.client.forward_process import ForwardProcess  # only who asks has to load it

            return ForwardProcess(self, (parsed.host, parsed.port), listen, timeout)

        def serve(sock: socket.socket, accepted: Forwarded) -> None:
            # Also if the dialer was closed meanwhile: it was open when the connection was accepted.
            dial = self._dial(parsed, accepted.deadline)
            accepted.opened(dial.info, dial.attach(sock))
            if error := dial.run():
                raise error  # nobody else could tell: the program has a plain socket

        return Forward(
            listen, serve, target=str(parsed), target_port=parsed.port, owner=self, timeout=timeout
        )

    def socks(
        self, listen: LocalAddress = ("127.0.0.1", 0), timeout: float | None = DIAL_TIMEOUT
    ) -> SocksServer:
        """A local SOCKS5 server, for clients of servers that name other servers: replica sets, clusters.

        CONNECT only, without authentication. Names are resolved in the VPC, so give programs the address as
        ``socks5h://host:port``. A dial that fails is told as a SOCKS5 reply, and logged as by
        :meth:`forward`.

        Args:
            listen: As of :meth:`forward`. Anybody who can connect to it reaches every target on the
                allow-list.
            timeout: Seconds for each dial.

        Returns:
            A context manager like that of :meth:`forward`.

        Raises:
            ConfigError: ``listen`` or ``timeout`` is none.
            ClosedError: The dialer was closed.
        """
        _deadline(timeout)
        check_address(listen)
        if self._closed:
            raise ClosedError(_CLOSED)
        from emissary_lib.client.socks import SocksServer  # only who asks has to load it

        return SocksServer(listen, self._dial, owner=self, timeout=timeout)

    def health(self, timeout: float | None = DIAL_TIMEOUT) -> Health:
        """Ask the bridge how it is: its version, the keys that are valid, how many sessions there may be.

        No relay starts, and the VPC is not touched. A throttled or broken gateway is tried again as by
        :meth:`dial`.

        Args:
            timeout: Seconds for all of it; ``None`` for no limit.

        Raises:
            ConfigError: ``timeout`` is none.
            ClosedError: The dialer was closed.
            AuthenticationError: The key is unknown or wrong, here or there.
            TransportError: The gateway was not reached, or refused; or it is the original Emissary's server.
            RemoteProtocolError: The bridge is of a release that knows no such question.
            LocalResourceError: This machine has no descriptor or thread left for it.
            TimeoutError: ``timeout`` ran out.

        Blocking: until the answer. Any thread.
        """
        if self._closed:
            raise ClosedError(_CLOSED)
        try:
            from emissary_lib.client.health import check_health  # only who asks has to load it
        except OSError as exc:  # there is no descriptor to read it with
            raise local_resource_error(exc) from exc
        return check_health(self._endpoint, self._key, _deadline(timeout))

    @property
    def relays(self) -> tuple[RelayInfo, ...]:
        """The relays that connections share and that are there now, the oldest first; as they are now.

        Empty where each connection has a relay of its own.
        """
        sessions = self._pool.sessions if self._pool else ()
        return tuple(
            RelayInfo(each.id, each.connections, each.room, each.expires_at, each.going_away)
            for each in sessions
        )

    def close(self) -> None:
        """Refuse further dials, and see what was written off. Idempotent.

        Forwarded ports stop listening. Sockets that were dialled live on until they are closed. A relay that
        connections share ends at once if it carries none, and else with the last of them.

        Blocking: for connections of forwarded ports that are being dialled, at most for their timeout; then
        until everything that was written to all sockets so far has arrived, the end of those that were closed
        included: as long as bytes move, and five seconds more (longer where the way is slow, 20 at most; two
        if only the end of a target is missing). A job that ends, or takes the gateway down, right after this
        cuts nothing off. What had not arrived by then, because the link was down or nobody read, is a warning
        on the logger ``emissary_lib.tunnel``. Then until the bridge knows of the relays that end, two seconds
        at most.
        """
        drain.stop_listeners(self)
        self._closed = True
        drain.wait_until_idle(self)
        drain.warn_undelivered(self)
        if pool := self._pool:
            pool.close()

    async def __aenter__(self) -> Dialer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As :meth:`close`, which waits in another thread meanwhile."""
        import asyncio  # only who asks has to load it

        await asyncio.to_thread(self.close)

    def __enter__(self) -> Dialer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dial(self, target: Target, deadline: Deadline) -> AnyDial:
        if target.host == SHARED_TARGET.host:
            raise dial_error(target, Code.TARGET_NOT_ALLOWED)
        progress = Progress(target)
        met: OriginalServerError | None = None
        while True:
            if met is not None or self._learned.original:
                original = self._dial_original(target, deadline, progress, met)
                if original is not None:
                    return original
                met = None
            try:
                dial = self._dial_session(target, deadline, progress)
            except OriginalServerError as exc:
                if self._learned.proved:
                    exc.stream.close()
                    raise
                met = exc
            else:
                self._learned.note_session()
                return dial

    def _dial_original(
        self, target: Target, deadline: Deadline, progress: Progress, met: OriginalServerError | None
    ) -> OriginalDial | None:
        """Dial over the original's transport; ``None`` if the server speaks ours by now."""
        from emissary_lib.client.original import NotOriginalError, OriginalDial  # loaded already, see _load

        try:
            return OriginalDial(target, deadline, self._opener, progress, met)
        except NotOriginalError:
            self._learned.original = False
            return None

    def _dial_session(self, target: Target, deadline: Deadline, progress: Progress) -> Dial | SharedDial:
        if self._connections_per_relay > 1:
            dial = self._begin_pool().dial(target, deadline, progress)
            if dial is not None:
                return dial
        return Dial(target, deadline, self._opener, progress)

    @property
    def _opener(self) -> Opener:
        return Opener(
            self._endpoint,
            self._key,
            self._streams,
            self._keepalive,
            self._in_flight,
            self._clock,
            self._learned,
        )

    @property
    def _pool(self) -> RelayPool | None:
        pool: RelayPool | None = vars(self).get(_POOL)
        return pool

    def _begin_pool(self) -> RelayPool:
        if (pool := self._pool) is not None:
            return pool
        from emissary_lib.client.relays import RelayPool  # which is loaded already, see _load

        made = RelayPool(
            self._opener, most=self._connections_per_relay, idle_seconds=self._relay_idle_seconds
        )
        # In one step and without a lock of our own, which a forked child might find taken.
        kept: RelayPool = vars(self).setdefault(_POOL, made)
        return kept


def _deadline(timeout: float | None) -> Deadline:
    usable = isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout <= MAX_TIMEOUT
    if timeout is not None and not usable:
        raise ConfigError(
            f"the timeout {timeout!r} is no number of seconds up to {MAX_TIMEOUT}; None is no limit"
        )
    return Deadline(timeout)


def _whole_number(value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"connections_per_relay is {value!r}, no whole number from {least} to {most}")
    return value


def _idle_seconds(value: float) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TIMEOUT
    if not usable:
        raise ConfigError(f"relay_idle_seconds is {value!r}, no number of seconds up to {MAX_TIMEOUT}")
    return value


def _end(dial: AnyDial, connection: drain.Connection, error: TunnelResetError | None) -> None:
    try:
        if error is not None and not error.whole and (error.lost or dial.nobody_is_left):
            logger.warning("%s", error)  # the socket tells it too, but it may be closed already
    finally:
        drain.end(connection)
