"""The dialer's mirror: claims one session, connects to its target, and carries bytes until the end."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from emissary_lib.bridge.launch import Launch
from emissary_lib.exceptions import GatewayRefusedError, GatewayUnreachableError
from emissary_lib.protocol.auth.macs import RelayHeaders
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import CLAIM_DEADLINE, END_MARGIN, GOAWAY_BEFORE, GRACE, OPENING_TIME
from emissary_lib.protocol.mux.limits import MAX_CONNECTIONS, SHARED_TARGET, MuxLimits
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.opening.socks5 import reply, reply_for
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Event, Finished, MessagesShortened, PeerMoved
from emissary_lib.protocol.session.keepalive import ProbeTimes
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED, Opened
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.tunnel.driver import Tunnel
from emissary_lib.tunnel.loopback import tcp_pair
from emissary_lib.tunnel.session_driver import SessionDriver
from emissary_lib.tunnel.shared_relay import RelayTunnel
from emissary_lib.tunnel.shutdown import ShutdownPolicy
from functions.common import logs, metrics
from functions.common.metrics import Metric
from functions.common.ports import PeerLink
from functions.relay.claim import Claimed, claim
from functions.relay.connecting import Arrivals, Connecting
from functions.relay.connector import Connected
from functions.relay.link import RelayLink
from functions.relay.requests import Requests

#: Seconds that connecting to the target may take: less than a dial's default timeout.
TARGET_TIMEOUT: Final = 10.0

#: Seconds to wait for the gateway's answer to a dial-back. It answers within 29 s (AWS, "Quotas for
#: configuring and running a WebSocket API in API Gateway", integration timeout). A relay that left earlier
#: could be granted the session afterwards: the dialer would find it claimed, and nobody there.
UPGRADE_TIMEOUT: Final = 30.0

#: Seconds before its end from which on a relay takes no more connections: none that is dialled then could do
#: much, and the dialer is told of the end (docs/protocol.md 11.2-9).
_DRAIN_BEFORE: Final = max(GOAWAY_BEFORE) + 1.0

#: Shares of the margin after which the bridge is no longer waited for, and then no post under way any more:
#: who is killed at the limit leaves neither a log line nor, to a database, the end of a connection.
_LEAVE: Final = 0.6
_ABANDON: Final = 0.8


class Relay(Record):
    """What a relay works with, one for each execution environment.

    Attributes:
        dial_back: Opens a WebSocket to our API with these headers, within the deadline.
        connect: Connects to a target that the allow-list admits, within the deadline.
        poster: Posts to the connections of our API.
        sleep: Waits some seconds between two attempts to dial back.
        grace: How long a side without its WebSocket is waited for, in seconds.
        probing: When to ask whether the dialer is still there.
        connections: At once over a shared session, at most.
    """

    dial_back: Callable[[Mapping[str, str], Deadline], MessageTransport]
    connect: Callable[[Target, Deadline], Connected]
    poster: PeerLink
    sleep: Callable[[float], None] = time.sleep
    grace: float = GRACE
    probing: ProbeTimes = ProbeTimes()
    connections: int = MAX_CONNECTIONS

    def serve(self, launch: Launch, remaining: float) -> Code | None:
        """Serve one session to its end.

        Args:
            launch: What ``$default`` told.
            remaining: Seconds until Lambda ends the invocation.

        Returns:
            Why the session ended; ``None`` if it was not ours, or too late.

        Blocking: for the life of the session. When it returns, no socket is open and no thread is left but
        one that may still wait for a name server.
        """
        # In the margin the session is ended in good order; its target is let go of at once.
        margin = min(END_MARGIN, remaining / 10)
        ends_at = time.monotonic() + remaining - margin
        if time.time() >= launch.expires:
            logs.warning("launched too late", session=launch.session)
            metrics.count(Metric.RELAY_ERROR)
            return None
        if launch.target == SHARED_TARGET:
            return self._serve_shared(launch, ends_at, margin)
        connect = self._connector(launch)
        timeout = min(TARGET_TIMEOUT, remaining)
        target = Connecting(lambda deadline: self.connect(launch.target, deadline), timeout)
        claimed = self._claim(launch, connect)
        if claimed is None:
            target.abandon(TARGET_TIMEOUT)
            return None
        claimed_at = time.monotonic()
        arrivals = Arrivals(claimed.link, self.grace)
        outcome = target.result(TARGET_TIMEOUT, arrivals.over)
        connected = outcome or Connected(Code.TARGET_FAILED)  # which a session that is over does not tell
        target_name, told = str(launch.target), "GIVEN_UP" if outcome is None else connected.code.name
        logs.info("claimed", session=launch.session, target=target_name, code=told)
        if connected.code is Code.OK:
            _count_opened(launch)
        link = self._link(launch, arrivals, connect, ends_at + _ABANDON * margin)
        session = self._session(launch, connected, claimed.epoch, claimed_at, ends_at)
        if outcome is None:
            arrivals.end(session)
        ended: list[Code] = []
        with contextlib.ExitStack() as stack:
            sock = connected.sock or _target_at_its_end(stack)
            shutdown = self._shutdown(ends_at, margin)
            tunnel = Tunnel(session, link, sock, on_event=_listener(link, ended), shutdown=shutdown)
            _run(tunnel, link)
        if outcome is None:
            target.abandon(TARGET_TIMEOUT)  # only now: the WebSocket's end has freed our place
        return _record_end(launch, session, ended)

    def _serve_shared(self, launch: Launch, ends_at: float, margin: float) -> Code | None:
        """Serve a session of many connections (docs/protocol.md section 11), which ends at ``ends_at``."""
        connect = self._connector(launch)
        claimed = self._claim(launch, connect)
        if claimed is None:
            return None
        claimed_at = time.monotonic()
        logs.info("claimed", session=launch.session, target=str(launch.target), code=Code.OK.name)
        _count_opened(launch)
        link = self._link(launch, claimed.link, connect, ends_at + _ABANDON * margin)
        session = self._session(launch, Connected(Code.OK), claimed.epoch, claimed_at, ends_at)
        requests = Requests(launch.session, launch.key_id, self.connect, TARGET_TIMEOUT)
        ended: list[Code] = []
        tunnel = RelayTunnel(
            session,
            link,
            RelayMultiplexer(MuxLimits(connections=self.connections), claimed_at),
            on_request=requests.serve,
            drain_at=ends_at - _DRAIN_BEFORE,
            on_event=_listener(link, ended),
            shutdown=self._shutdown(ends_at, margin),
        )
        _run(tunnel, link)
        code = _record_end(launch, session, ended)
        requests.join(min(TARGET_TIMEOUT, max(0.0, ends_at + _ABANDON * margin - time.monotonic())))
        return code

    def _link(
        self,
        launch: Launch,
        transport: MessageTransport,
        connect: Callable[[int, Deadline], MessageTransport],
        abandon_at: float,
    ) -> RelayLink:
        again = ReconnectingTransport(transport, connect)
        link = RelayLink(again, self.poster, launch.dialer_connection, abandon_at=abandon_at)
        if launch.short:
            link.shorten()
        return link

    def _shutdown(self, ends_at: float, margin: float) -> ShutdownPolicy:
        return ShutdownPolicy(ends_at, ends_at + _LEAVE * margin, linger=self.grace)

    def _connector(self, launch: Launch) -> Callable[[int, Deadline], MessageTransport]:
        """What dials back for this session, again and again, as one and the same instance."""
        instance = secrets.token_hex(16)

        def connect(epoch: int, deadline: Deadline) -> MessageTransport:
            headers = RelayHeaders(launch.session, launch.relay_token, instance, epoch).to_headers()
            return self.dial_back(headers, deadline)

        return connect

    def _claim(
        self, launch: Launch, connect: Callable[[int, Deadline], MessageTransport]
    ) -> Claimed[MessageTransport] | None:
        def attempt(epoch: int) -> MessageTransport:
            left = max(0.1, launch.expires - time.time())  # a claim that comes later is refused
            return connect(epoch, Deadline(min(UPGRADE_TIMEOUT, left)))

        try:
            claimed = claim(attempt, Deadline(CLAIM_DEADLINE), sleep=self.sleep)
        except (GatewayRefusedError, GatewayUnreachableError, TimeoutError) as exc:
            logs.warning("could not dial back", session=launch.session, cause=str(exc))
            metrics.count(Metric.RELAY_ERROR)
            return None
        if claimed is None:
            logs.info("not ours to claim", session=launch.session)
        return claimed

    def _session(
        self, launch: Launch, connected: Connected, epoch: int, claimed_at: float, ends_at: float
    ) -> Session:
        """The session from the claim on, with what the relay's stream begins with."""
        # What came while the target was connected to was not told yet. The dialer's silence counts from the
        # claim all the same, so that no relay outlives its dialer by more than docs/protocol.md 5.5 says.
        config = self._config(launch, connected.code, epoch, ends_at)
        session = Session(Role.RELAY, config, now=claimed_at)
        if epoch > 1:
            # An earlier attempt may have claimed the session and lost its 101: the bridge, and the dialer by
            # a DISCONNECTED, may know that connection as ours. RESUME has it closed, and tells everybody.
            session.peer_unknown(claimed_at)
        session.send_data(launch.server_bytes + reply(reply_for(connected.code), connected.bound))
        return session

    def _config(self, launch: Launch, code: Code, epoch: int, ends_at: float) -> SessionConfig:
        # A shared session's connections have ends of their own, which wait for their targets.
        shared = launch.target == SHARED_TARGET
        capabilities = CAPABILITY_SHARED if shared else 0
        return SessionConfig(
            streams=StreamConfig(
                receive_start=launch.client_offset,
                peer_window=launch.window,
                holds_end=not shared,
                short=launch.short,
            ),
            probing=self.probing,
            grace=self.grace,
            own_epoch=epoch,
            peer_epoch=launch.dialer_epoch,
            opened=Opened(code, 0, int(self.grace * 1000), launch.resume_token, capabilities),
            expires_at=ends_at,
            early=launch.early,
        )


def _count_opened(launch: Launch) -> None:
    admitted = launch.expires - OPENING_TIME
    took = max(0.0, time.time() - admitted)
    metrics.put({Metric.SESSION_OPENED: 1, Metric.DIAL_MILLISECONDS: took * 1000})


def _listener(link: RelayLink, ended: list[Code]) -> Callable[[Event], None]:
    """Has the link follow the dialer, and notes why the session ended."""

    def on_event(event: Event) -> None:
        if isinstance(event, PeerMoved):
            link.redirect(event.connection)
        elif isinstance(event, MessagesShortened):
            link.shorten()
            logs.warning("the gateway passes on no message of more than one fragment; now all are shorter")
        elif isinstance(event, Aborted | Finished):
            ended.append(event.code)

    return on_event


def _run(driver: SessionDriver, link: RelayLink) -> None:
    link.on_refused, link.on_gone = driver.message_refused, driver.peer_unknown
    link.on_too_long = driver.message_too_long
    link.on_absent = lambda: driver.abort(Code.DIALER_GONE, "its connection never came about")
    link.on_hopeless = lambda reason: driver.abort(Code.MESSAGE_REFUSED, reason)
    driver.run()
    if link.throttled:
        metrics.put({Metric.PEER_THROTTLED: link.throttled})


def _record_end(launch: Launch, session: Session, ended: list[Code]) -> Code | None:
    """Log what we have counted ourselves: the audit record may have to go by what the dialer says."""
    if not ended:
        return None
    of_shared = {} if session.connections is None else {"connections": session.connections}
    logs.info(
        "session ended",
        session=launch.session,
        code=ended[-1].name,
        dialer_bytes=session.received,
        relay_bytes=session.sent,
        dialer_messages=session.counters.messages_received,
        relay_messages=session.counters.messages_sent,
        **of_shared,
    )
    return ended[-1]


def _target_at_its_end(stack: contextlib.ExitStack) -> socket.socket:
    """Stands in for a target that was not reached: nothing comes from it, and it takes what is sent."""
    near, far = tcp_pair()
    stack.enter_context(far).shutdown(socket.SHUT_WR)
    return near
